//! Endpoints that issue a credential to the agent itself. There is one row per template.
//!
//! Control: an ordinary request of the same template is allowed.

use data_encoding::BASE64;
use onecli_tests::daemon::Granted;

use crate::stage::row::{Row, Trial};
use crate::stage::world::{Script, World, reply};
use crate::wire::Answer;

const GETS: &str = "a new credential of its own, which outlives the grant";
const CONTROL: &str = "an ordinary request is allowed";

pub(crate) const ROWS: &[Row] = &[
    Row::new("credential/aws", GETS, CONTROL, aws),
    Row::new("credential/gcp", GETS, CONTROL, gcp),
    Row::new("credential/github", GETS, CONTROL, |trial| try_template(trial, &GITHUB)).quick(),
    Row::new("credential/gitlab", GETS, CONTROL, |trial| try_template(trial, &GITLAB)),
    Row::new("credential/cloudflare", GETS, CONTROL, |trial| try_template(trial, &CLOUDFLARE)),
    Row::new("credential/sentry", GETS, CONTROL, |trial| try_template(trial, &SENTRY)),
    Row::new("credential/datadog", GETS, CONTROL, |trial| try_template(trial, &DATADOG)),
    Row::new("credential/twilio", GETS, CONTROL, |trial| try_template(trial, &TWILIO)),
    Row::new("credential/npm", GETS, CONTROL, |trial| try_template(trial, &NPM)),
];

/// The requests of one template.
struct Template {
    name: &'static str,
    host: &'static str,
    /// Whether the credential replaces the placeholder in Basic credentials.
    replaces: bool,
    ordinary: (&'static str, &'static str),
    issuing: &'static [(&'static str, &'static str)],
}

const GITHUB: Template = Template {
    name: "github",
    host: "api.github.com",
    replaces: false,
    ordinary: ("GET", "/repos/acme/site/issues"),
    issuing: &[
        ("POST", "/app/installations/42/access_tokens"),
        ("POST", "/app/installations/42/ACCESS_TOKENS/"),
        ("POST", "/repos/acme/site/actions/runners/registration-token"),
        ("POST", "/repos/acme/site/actions/runners/generate-jitconfig"),
        ("POST", "/orgs/acme/actions/runners/generate-jitconfig"),
        ("POST", "/app-manifests/abc/conversions"),
        ("POST", "/applications/Iv1/token/scoped"),
        ("POST", "/user/keys"),
        ("POST", "/repos/acme/site/keys"),
    ],
};

const GITLAB: Template = Template {
    name: "gitlab",
    host: "gitlab.com",
    replaces: false,
    ordinary: ("GET", "/api/v4/projects/1/issues"),
    issuing: &[
        ("POST", "/api/v4/projects/1/access_tokens"),
        ("POST", "/api/v4/groups/1/access_tokens/2/rotate"),
        ("POST", "/api/v4/users/1/personal_access_tokens"),
        ("POST", "/api/v4/projects/1/deploy_tokens"),
        ("POST", "/api/v4/projects/1/cluster_agents/2/tokens"),
        ("POST", "/api/v4/projects/1/triggers"),
        ("POST", "/api/v4/user/runners"),
        ("POST", "/oauth/token"),
    ],
};

const CLOUDFLARE: Template = Template {
    name: "cloudflare",
    host: "api.cloudflare.com",
    replaces: false,
    ordinary: ("GET", "/client/v4/zones"),
    issuing: &[
        ("POST", "/client/v4/user/tokens"),
        ("PUT", "/client/v4/user/tokens/1/value"),
        ("POST", "/client/v4/accounts/1/tokens"),
        ("POST", "/client/v4/accounts/1/access/service_tokens"),
        ("POST", "/client/v4/accounts/1/access/service_tokens/2/rotate"),
        ("POST", "/client/v4/zones/1/access/service_tokens"),
    ],
};

const SENTRY: Template = Template {
    name: "sentry",
    host: "sentry.io",
    replaces: false,
    ordinary: ("GET", "/api/0/projects/"),
    issuing: &[
        ("POST", "/api/0/api-tokens/"),
        ("POST", "/api/0/organizations/acme/org-auth-tokens/"),
        ("POST", "/api/0/sentry-apps/x/api-tokens/"),
    ],
};

const DATADOG: Template = Template {
    name: "datadog-app",
    host: "api.datadoghq.com",
    replaces: false,
    ordinary: ("GET", "/api/v1/monitor"),
    issuing: &[
        ("POST", "/api/v1/api_key"),
        ("POST", "/api/v2/api_keys"),
        ("POST", "/api/v2/current_user/application_keys"),
        ("POST", "/api/v2/service_accounts/1/application_keys"),
    ],
};

const TWILIO: Template = Template {
    name: "twilio",
    host: "api.twilio.com",
    replaces: true,
    ordinary: ("GET", "/2010-04-01/Accounts/AC0/Messages.json"),
    issuing: &[
        ("POST", "/2010-04-01/Accounts/AC0/Keys.json"),
        ("POST", "/2010-04-01/Accounts/AC0/SigningKeys.json"),
        ("POST", "/2010-04-01/Accounts/AC0/SigningKeys"),
        ("POST", "/2010-04-01/Accounts/AC0/Tokens.json"),
    ],
};

const NPM: Template = Template {
    name: "npm",
    host: "npm.test",
    replaces: false,
    ordinary: ("GET", "/express"),
    issuing: &[("POST", "/-/npm/v1/tokens"), ("PUT", "/-/user/org.couchdb.user:me")],
};

fn is_refused(answer: &Answer) -> bool {
    answer.status == 403 && answer.code().is_some()
}

/// An upstream that serves all of these hosts, and a secret of the template for them.
fn world_of(template: &str, value: &str, mut hosts: Vec<&str>) -> (World, Granted) {
    hosts.sort_unstable();
    hosts.dedup();
    let script = Script::start(&hosts, |_, conn| reply(conn, "{}"));
    let world = World::of(script, &hosts);
    let at: Vec<String> = hosts.iter().map(|host| world.at(host)).collect();
    let more = at.iter().skip(1).flat_map(|host| ["--host", host]);
    let options: Vec<&str> = ["--template", template].into_iter().chain(more).collect();
    let granted = world.give("key", hosts[0], value, &options);
    (world, granted)
}

fn try_template(trial: &mut Trial, template: &Template) {
    let (world, granted) = world_of(template.name, "realCredential0123456789", vec![template.host]);
    let basic = BASE64.encode(format!("AC0:{}", granted.placeholder).as_bytes());
    // An agent identified by its token needs a placeholder only if the secret replaces one.
    let authorization =
        if template.replaces { format!("Authorization: Basic {basic}\r\n") } else { String::new() };
    let ask = |(method, path): &(&str, &str)| {
        world.script.clear();
        let fields = format!("{authorization}Content-Length: 0\r\nConnection: close\r\n");
        world.send(template.host, &world.request(method, template.host, path, &fields))
    };
    let ordinary = ask(&template.ordinary);
    trial.control(format!("{:?}: {}", template.ordinary, ordinary.status), ordinary.status == 200);
    for request in template.issuing {
        let answer = ask(request);
        trial.attempt(format!("{request:?}: {}", answer.status), !world.script.seen().is_empty());
    }
}

/// The daemon discards the agent's signature, except for its region and service.
pub(super) fn signature(placeholder: &str, service: &str) -> String {
    format!(
        "Authorization: AWS4-HMAC-SHA256 Credential={placeholder}/20260101/eu-west-1/{service}/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature={}\r\nX-Amz-Date: 20260101T000000Z\r\n",
        "0".repeat(64)
    )
}

pub(super) const AWS_VALUE: &str = "AKIDREAL0123456789AB:wJ4rXUtn7EMIbK7MDqENGbPxRfiCY9QzEXAM8L3v";

/// The host, the service of the signature, the method, the path and the header lines.
type Signed = (&'static str, &'static str, &'static str, &'static str, &'static str);

fn aws(trial: &mut Trial) {
    const ORDINARY: &[Signed] = &[
        (
            "dynamodb.eu-west-1.amazonaws.com",
            "dynamodb",
            "POST",
            "/",
            "X-Amz-Target: DynamoDB_20120810.GetItem\r\n",
        ),
        ("s3.eu-west-1.amazonaws.com", "s3", "GET", "/bucket/key", ""),
        ("ec2.eu-west-1.amazonaws.com", "ec2", "GET", "/?Action=DescribeInstances&Version=2016-11-15", ""),
    ];
    const ISSUING: &[Signed] = &[
        ("sts.amazonaws.com", "sts", "GET", "/?Action=GetSessionToken&Version=2011-06-15", ""),
        ("sts.eu-west-1.amazonaws.com", "sts", "GET", "/?Action=AssumeRole&Version=2011-06-15", ""),
        ("iam.amazonaws.com", "iam", "GET", "/?Action=CreateAccessKey&Version=2010-05-08", ""),
        (
            "api.ecr.eu-west-1.amazonaws.com",
            "ecr",
            "POST",
            "/",
            "X-Amz-Target: AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken\r\n",
        ),
        ("redshift.eu-west-1.amazonaws.com", "redshift", "GET", "/?Action=GetClusterCredentials", ""),
        (
            "lakeformation.eu-west-1.amazonaws.com",
            "lakeformation",
            "POST",
            "/GetTemporaryGlueTableCredentials",
            "",
        ),
        ("ec2.eu-west-1.amazonaws.com", "ec2", "GET", "/?Action=CreateKeyPair&KeyName=x", ""),
        (
            "123456789012.s3-control.eu-west-1.amazonaws.com",
            "s3",
            "GET",
            "/v20180820/accessgrantsinstance/dataaccess",
            "",
        ),
        ("s3.eu-west-1.amazonaws.com", "s3", "GET", "/?session", ""),
        ("appsync.eu-west-1.amazonaws.com", "appsync", "POST", "/v1/apis/1/apikeys", ""),
        ("apigateway.eu-west-1.amazonaws.com", "apigateway", "POST", "/apikeys", ""),
    ];
    let hosts = ORDINARY.iter().chain(ISSUING).map(|row| row.0);
    let (world, granted) = world_of("aws", AWS_VALUE, hosts.collect());
    let ask = |(host, service, method, path, fields): &Signed| {
        world.script.clear();
        let signature = signature(&granted.placeholder, service);
        let fields = format!("{fields}{signature}Content-Length: 0\r\nConnection: close\r\n");
        let answer = world.send(host, &world.request(method, host, path, &fields));
        (world.script.saw("AKIDREAL"), answer)
    };
    for row in ORDINARY {
        let (signed, answer) = ask(row);
        trial.control(format!("{row:?}: {answer:?}"), signed);
    }
    for row in ISSUING {
        let (signed, answer) = ask(row);
        trial.attempt(format!("{row:?}: {}", answer.status), signed);
    }
}

/// Tokens of this template are minted and there is no token endpoint, so an allowed request fails later.
fn gcp(trial: &mut Trial) {
    const ISSUING: &[(&str, &str, &str)] = &[
        ("iam.googleapis.com", "POST", "/v1/projects/-/serviceAccounts/x/keys"),
        ("iam.googleapis.com", "POST", "/v1/projects/-/serviceAccounts/x/keys:upload"),
        ("iam.googleapis.com", "POST", "/v1/projects/-/serviceAccounts/x:signJwt"),
        ("iamcredentials.googleapis.com", "POST", "/v1/projects/-/serviceAccounts/x:generateAccessToken"),
        ("iamcredentials.googleapis.com", "POST", "/v1/projects/-/serviceAccounts/x:signJwt"),
        ("storage.googleapis.com", "POST", "/storage/v1/projects/p/hmacKeys"),
        ("www.googleapis.com", "POST", "/storage/v1/projects/p/hmacKeys"),
        ("www.googleapis.com", "POST", "/batch/storage/v1"),
        ("sqladmin.googleapis.com", "POST", "/v1/projects/p/instances/i:generateEphemeralCert"),
        ("sqladmin.googleapis.com", "POST", "/sql/v1beta4/projects/p/instances/i/createEphemeral"),
        ("apikeys.googleapis.com", "POST", "/v2/projects/p/locations/global/keys"),
    ];
    let (world, _) = world_of("gcp", &key_file(), ISSUING.iter().map(|row| row.0).collect());
    let ask = |host: &str, method: &str, path: &str| {
        let fields = "Content-Length: 0\r\nConnection: close\r\n";
        world.send(host, &world.request(method, host, path, fields))
    };
    let ordinary = ask("storage.googleapis.com", "GET", "/storage/v1/b/bucket/o");
    trial.control(
        format!("an ordinary request: {}", ordinary.status),
        !is_refused(&ordinary) && ordinary.status != 0,
    );
    for (host, method, path) in ISSUING {
        let answer = ask(host, method, path);
        trial.attempt(format!("{method} {host}{path}: {}", answer.status), !is_refused(&answer));
    }
}

/// A service account's key file, with a temporary key.
fn key_file() -> String {
    let output = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .expect("openssl runs: install Debian's package openssl");
    let key = String::from_utf8(output.stdout).expect("PEM");
    serde_json::json!({
        "type": "service_account", "client_email": "x@p.iam.gserviceaccount.com", "private_key_id": "1",
        "private_key": key, "token_uri": "https://oauth2.googleapis.com/token",
    })
    .to_string()
}
