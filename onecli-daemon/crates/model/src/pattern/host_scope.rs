//! The hosts of a denial: a pattern, or those of one AWS service.

use std::fmt;
use std::str::FromStr;

use super::HostPattern;
use super::glob::Part;
use crate::host::authority::Host;

/// The endings of AWS endpoints' names ("AWS service endpoints", AWS General Reference).
const AWS_ENDS: [&str; 4] =
    [".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn"];

/// The hosts that a denial applies to.
#[derive(Debug, Clone)]
pub enum HostScope {
    /// A pattern, in the format of a secret's hosts.
    Pattern(HostPattern),
    /// The endpoints of an AWS service in every region and partition and of every kind.
    Aws(AwsService),
}

/// The name of an AWS service in its endpoints: `ec2`, `api.ecr`, `s3*`.
#[derive(Debug, Clone)]
pub struct AwsService {
    name: String,
    /// One part for each label.
    labels: Vec<Part>,
}

impl HostScope {
    /// Returns whether `host` is one of them. A host outside Amazon's domains may be any service, because the
    /// operator chose it.
    pub fn matches(&self, host: &Host) -> bool {
        match self {
            HostScope::Pattern(pattern) => pattern.matches(host),
            HostScope::Aws(service) => service.matches(host),
        }
    }
}

impl AwsService {
    fn matches(&self, host: &Host) -> bool {
        let Some(name) = host.as_name() else { return true };
        let Some(name) = AWS_ENDS.iter().find_map(|end| name.strip_suffix(end)) else { return true };
        let labels = || name.split('.').map(without_fips);
        (0..name.split('.').count()).any(|at| {
            let mut rest = labels().skip(at);
            self.labels.iter().all(|own| rest.next().is_some_and(|label| own.matches(label)))
        })
    }
}

/// Endpoints for FIPS 140 are named `ec2-fips` or `fips-ec2`.
fn without_fips(label: &str) -> &str {
    label.strip_suffix("-fips").or_else(|| label.strip_prefix("fips-")).unwrap_or(label)
}

impl FromStr for HostScope {
    type Err = String;

    /// Parses `aws:SERVICE`, or a host pattern.
    fn from_str(text: &str) -> Result<HostScope, String> {
        match text.strip_prefix("aws:") {
            Some("") => Err("name the AWS service".to_owned()),
            Some(name) => {
                let labels = name.split('.').map(|label| Part::new(label.to_owned())).collect();
                Ok(HostScope::Aws(AwsService { name: name.to_owned(), labels }))
            }
            None => text.parse().map(HostScope::Pattern).map_err(|error| format!("{error}")),
        }
    }
}

impl fmt::Display for HostScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostScope::Pattern(pattern) => pattern.fmt(f),
            HostScope::Aws(service) => write!(f, "aws:{}", service.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_endpoints_are_recognized() {
        let check = |scope: &str, host: &str, expected: bool| {
            let scope: HostScope = scope.parse().unwrap();
            assert_eq!(scope.matches(&host.parse().unwrap()), expected, "{scope} {host}");
        };
        check("aws:ec2", "ec2.eu-central-1.amazonaws.com", true);
        check("aws:ec2", "ec2.amazonaws.com", true);
        check("aws:ec2", "ec2-fips.us-gov-west-1.amazonaws.com", true);
        check("aws:ec2", "fips-ec2.us-east-1.api.aws", true);
        check("aws:ec2", "eu-west-1.ec2.amazonaws.com.cn", true);
        check("aws:ec2", "vpce-0a.ec2.us-east-1.vpce.amazonaws.com", true);
        check("aws:ec2", "ecs.eu-central-1.amazonaws.com", false);
        check("aws:ec2", "ec2messages.eu-central-1.amazonaws.com", false);
        check("aws:api.ecr", "api.ecr.eu-central-1.amazonaws.com", true);
        check("aws:api.ecr", "ecr.eu-central-1.amazonaws.com", false);
        check("aws:s3*", "bucket.s3.eu-central-1.amazonaws.com", true);
        check("aws:s3*", "s3-eu-west-1.amazonaws.com", true);
        check("aws:s3*", "a--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com", true);
        check("aws:s3*", "sqs.eu-central-1.amazonaws.com", false);
        check("aws:ec2", "localstack.internal", true);
        check("iam.googleapis.com", "iam.googleapis.com", true);
        check("iam.googleapis.com", "storage.googleapis.com", false);
        assert!("aws:".parse::<HostScope>().is_err());
    }
}
