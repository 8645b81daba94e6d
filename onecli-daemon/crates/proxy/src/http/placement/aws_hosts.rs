//! Finds the service at an Amazon host from AWS's naming of endpoints ("AWS service endpoints" in the AWS General
//! Reference). The agent's signature names a service, and the host must agree with it.

use onecli_model::Host;

/// Suffixes of Amazon's endpoint names.
const ENDS: [&str; 4] = [".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn"];

/// Names that stand in the position of a region but name no region.
const EVERYWHERE: [&str; 3] = ["global", "aws-global", "us-gov"];

/// Names that follow the region: `DOMAIN.REGION.es`, `REGION.queue`.
const BEHIND_REGION: [&str; 7] = ["aoss", "cloudsearch", "compute", "elb", "es", "queue", "rds"];

/// Services whose endpoint name differs from the name in signatures: the endpoint name, then the service name.
const OTHERWISE: &[(&str, &str)] = &[
    ("aos", "es"),
    ("appconfigdata", "appconfig"),
    ("appstream2", "appstream"),
    ("bedrock-agent", "bedrock"),
    ("bedrock-agent-runtime", "bedrock"),
    ("bedrock-agentcore-control", "bedrock-agentcore"),
    ("bedrock-data-automation", "bedrock"),
    ("bedrock-data-automation-runtime", "bedrock"),
    ("bedrock-runtime", "bedrock"),
    ("cassandra-streams", "cassandra"),
    ("cloudhsmv2", "cloudhsm"),
    ("cloudsearchdomain", "cloudsearch"),
    ("contact-lens", "connect"),
    ("data-signer", "signer"),
    ("email", "ses"),
    ("forecastquery", "forecast"),
    ("iot", "iot-jobs-data"),
    ("iot", "iotdata"),
    ("iotevents", "ioteventsdata"),
    ("ivsrealtime", "ivs"),
    ("mail-manager", "ses"),
    ("marketplace", "aws-marketplace"),
    ("memory-db", "memorydb"),
    ("migrationhub-config", "mgh"),
    ("models-v2-lex", "lex"),
    ("oidc", "sso-oauth"),
    ("personalize-events", "personalize"),
    ("personalize-runtime", "personalize"),
    ("pinpoint", "mobiletargeting"),
    ("pinpoint", "sms-voice"),
    ("queue", "sqs"),
    ("runtime-v2-lex", "lex"),
    ("s3-accelerate", "s3"),
    ("s3-accesspoint", "s3"),
    ("s3-control", "s3"),
    ("s3-external-1", "s3"),
    ("servicecatalog-appregistry", "servicecatalog"),
    ("sso", "awsssoportal"),
    ("transcribestreaming", "transcribe"),
];

/// Suffixes of endpoint names, with the service name in signatures.
const ENDING_OTHERWISE: &[(&str, &str)] = &[("-chime", "chime"), ("-marketplace", "aws-marketplace")];

/// Names of endpoints that run customers' programs, which see the whole request.
const CUSTOMERS: [&str; 7] =
    ["appsync-api", "appsync-realtime-api", "compute", "compute-1", "elb", "execute-api", "s3-website"];

/// An endpoint, as parsed from its host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Endpoint<'h> {
    /// The part of the name that denotes the service; often the service's own name.
    name: &'h str,
    /// The region; none for a global endpoint.
    pub(super) region: Option<&'h str>,
}

impl<'h> Endpoint<'h> {
    /// Parses a host name; `None` if it is not Amazon's. A name of unknown form denotes no service.
    pub(crate) fn of(host: &'h Host) -> Option<Endpoint<'h>> {
        let text = host.as_name()?;
        let mut labels: Vec<&str> = ENDS.iter().find_map(|end| text.strip_suffix(end))?.split('.').collect();
        // Labels are read from the end, because a bucket may have any name.
        if labels.last() == Some(&"vpce") {
            labels.pop();
        }
        let place = |label: &&str| is_region(label) || EVERYWHERE.contains(label);
        let region = if labels.last().is_some_and(place) {
            labels.pop()
        } else {
            let before = labels.len().wrapping_sub(2);
            let behind = labels.last().is_some_and(|last| BEHIND_REGION.contains(last));
            (behind && labels.get(before).is_some_and(|label| is_region(label)))
                .then(|| labels.remove(before))
        };
        if labels.last() == Some(&"dualstack") {
            labels.pop();
        }
        let name = labels.pop().unwrap_or_default();
        let name = name.strip_suffix("-fips").or_else(|| name.strip_prefix("fips-")).unwrap_or(name);
        let region = region.filter(|label| is_region(label));
        // `s3-eu-west-1`, `s3-website-eu-west-1`
        for service in ["s3-website", "s3"] {
            let named = name.strip_prefix(service).and_then(|rest| rest.strip_prefix('-'));
            if let Some(own) = named.filter(|own| is_region(own)) {
                return Some(Endpoint { name: service, region: region.or(Some(own)) });
            }
        }
        let name = if name.starts_with("s3express-") { "s3express" } else { name };
        Some(Endpoint { name, region })
    }

    /// Returns whether the service with this name in signatures answers at the endpoint.
    pub(crate) fn is_of(&self, service: &str) -> bool {
        let ending = |(end, own): &(&str, &str)| self.name.ends_with(end) && *own == service;
        self.name == service
            || OTHERWISE.contains(&(self.name, service))
            || ENDING_OTHERWISE.iter().any(ending)
    }

    /// Returns whether a customer's program answers at the endpoint.
    pub(super) fn is_a_customers(&self) -> bool {
        CUSTOMERS.contains(&self.name)
    }
}

/// Returns whether `label` has the form of a region, such as `eu-central-1` or `us-gov-west-1`.
fn is_region(label: &str) -> bool {
    let parts: Vec<&str> = label.split('-').collect();
    let letters = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    let number = |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let [first, middle @ .., last] = parts.as_slice() else { return false };
    first.len() == 2
        && letters(first)
        && (1..=2).contains(&middle.len())
        && middle.iter().all(letters)
        && number(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every endpoint that botocore 1.43 lists in one region, with the service name that it signs for there.
    const ENDPOINTS: &str = include_str!("aws_hosts/endpoints.txt");

    #[test]
    fn each_endpoint_belongs_to_its_service_only() {
        let rows: Vec<(Host, &str)> = ENDPOINTS
            .lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(host, service)| (host.parse().unwrap(), service))
            .collect();
        assert!(rows.len() > 800, "{}", rows.len());
        for (host, service) in &rows {
            let endpoint = Endpoint::of(host).unwrap();
            assert!(endpoint.is_of(service), "{host} {service} {endpoint:?}");
            assert!(
                ["iam", "sts", "s3"].iter().all(|other| other == service || !endpoint.is_of(other)),
                "{host}"
            );
            assert!(endpoint.region.is_none_or(|region| region == "us-east-1"), "{host} {endpoint:?}");
        }
    }

    #[test]
    fn endpoint_names_are_parsed() {
        let check = |host: &str, name: &str, region: Option<&str>| {
            let host = host.parse().unwrap();
            assert_eq!(Endpoint::of(&host), Some(Endpoint { name, region }), "{host}");
        };
        check("s3.eu-central-1.amazonaws.com", "s3", Some("eu-central-1"));
        check("my-bucket-1.s3.us-west-2.amazonaws.com", "s3", Some("us-west-2"));
        check("eu-bucket-1.s3.amazonaws.com", "s3", None);
        check("my.iam.s3.amazonaws.com", "s3", None);
        check("iam.us-east-1.s3.dualstack.eu-west-1.amazonaws.com", "s3", Some("eu-west-1"));
        check("b.s3-us-west-2.amazonaws.com", "s3", Some("us-west-2"));
        check("b.s3-website-us-west-2.amazonaws.com", "s3-website", Some("us-west-2"));
        check("b.s3-website.eu-central-1.amazonaws.com", "s3-website", Some("eu-central-1"));
        check("b--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com", "s3express", Some("us-east-1"));
        check("vpce-1a2b-c3d.s3.us-east-1.vpce.amazonaws.com", "s3", Some("us-east-1"));
        check("sts.us-gov-west-1.amazonaws.com", "sts", Some("us-gov-west-1"));
        check("iam.us-gov.amazonaws.com", "iam", None);
        check("lambda.us-east-1.api.aws", "lambda", Some("us-east-1"));
        check("search-x-abc.eu-west-1.es.amazonaws.com", "es", Some("eu-west-1"));
        check("eu-west-1.queue.amazonaws.com", "queue", Some("eu-west-1"));
        check("iam.amazonaws.com", "iam", None);
        check("amazonaws.com.cn.amazonaws.com", "cn", None);
        check("x1y2.execute-api.eu-west-1.amazonaws.com", "execute-api", Some("eu-west-1"));
        check("ap-southeast-12.amazonaws.com", "", Some("ap-southeast-12"));
        for none in
            ["minio.test", "amazonaws.com", "s3.amazonaws.com.evil.test", "xamazonaws.com", "127.0.0.1"]
        {
            assert_eq!(Endpoint::of(&none.parse().unwrap()), None, "{none}");
        }
    }

    #[test]
    fn customer_endpoints_are_distinguished_from_amazon_endpoints() {
        let check = |host: &str, customers: bool| {
            let host = host.parse().unwrap();
            assert_eq!(Endpoint::of(&host).unwrap().is_a_customers(), customers, "{host}");
        };
        check("x.execute-api.eu-west-1.amazonaws.com", true);
        check("x.appsync-api.eu-west-1.amazonaws.com", true);
        check("x-123.eu-west-1.elb.amazonaws.com", true);
        check("b.s3-website-us-west-2.amazonaws.com", true);
        check("ec2-1-2-3-4.compute-1.amazonaws.com", true);
        check("execute-api.s3.eu-west-1.amazonaws.com", false);
        check("appsync.eu-west-1.amazonaws.com", false);
    }
}
