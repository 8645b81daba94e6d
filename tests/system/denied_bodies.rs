//! Requests for new credentials whose parameters are in the body, or whose path is that of a gRPC method.

use std::path::PathBuf;

use onecli_tests::client;
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::need;
use onecli_tests::upstream::Upstream;
use serde_json::json;

const ENDPOINT: Option<&str> = Some("credential_endpoint");
const BAD: Option<&str> = Some("bad_request");
const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// A cloud whose hosts share one secret.
struct Cloud {
    upstream: Upstream,
    daemon: Daemon,
    agent: Agent,
    placeholder: String,
    dir: tempfile::TempDir,
}

impl Cloud {
    /// A cloud with a secret of `template` for `hosts`. `value` receives the port of the upstream.
    fn new(template: &str, hosts: &[&str], value: impl Fn(u16) -> String) -> Cloud {
        let upstream = Upstream::start(hosts);
        let daemon = Daemon::for_upstream(&upstream);
        let agent = daemon.add_agent("agent", &["--factors", "token"]);
        let port = upstream.https_addr().port();
        let places: Vec<String> = hosts.iter().map(|host| format!("{host}:{port}")).collect();
        let hosts = places.iter().flat_map(|place| ["--host", place.as_str()]);
        let options: Vec<&str> = ["--template", template].into_iter().chain(hosts).collect();
        daemon.add_secret("cloud", &value(port), &options);
        let placeholder = daemon.grant(&agent, "cloud").placeholder;
        Cloud { upstream, daemon, agent, placeholder, dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, body: &[u8]) -> PathBuf {
        let file = self.dir.path().join("body");
        std::fs::write(&file, body).unwrap();
        file
    }

    /// Sends `METHOD HOST/PATH` with a body of this type. `expected` is the error code of the refusal, or `None` if the
    /// request must reach the upstream with its body.
    fn check(&self, line: &str, kind: &str, body: &[u8], options: &[&str], expected: Option<&str>) {
        let (method, url) = line.split_once(' ').unwrap();
        let (host, path) = url.split_once('/').unwrap();
        let is_api = |path: &str| !path.starts_with("/token/");
        let count = || self.upstream.requests().iter().filter(|seen| is_api(&seen.path)).count();
        let before = count();
        let (data, kind) = (format!("@{}", self.file(body).display()), format!("Content-Type: {kind}"));
        let run = client::curl(&self.upstream.https_url(host, &format!("/{path}")))
            .args(["-X", method, "--path-as-is", "-H", &kind, "--data-binary", &data])
            .args(options);
        let reply = self.daemon.explicit(&self.agent.token, run).outcome().reply();
        let text = String::from_utf8_lossy(body);
        assert_eq!(reply.header("x-onecli-error"), expected, "{line} {kind} {text} {options:?}: {reply:?}");
        assert_eq!(count() - before, usize::from(expected.is_none()), "{line} {kind} {text} {options:?}");
        if expected.is_none() {
            let seen = self.upstream.requests().into_iter().rfind(|seen| is_api(&seen.path)).unwrap();
            assert_eq!(seen.body, body, "{line}");
        }
    }
}

#[test]
fn aws_parameters_are_read_from_every_body_type() {
    let hosts =
        ["rds", "redshift", "ec2", "es", "lightsail"].map(|name| format!("{name}.us-east-1.amazonaws.com"));
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let aws = Cloud::new("aws", &hosts, |_| "AKIDREAL:real-credential/0123456789".to_owned());
    let user = format!("{0}:{0}", aws.placeholder);
    let check = |line: &str, kind: &str, body: &[u8], options: &[&str], expected| {
        let service = line.split_once(' ').unwrap().1.split('.').next().unwrap();
        let scope = format!("aws:amz:us-east-1:{service}");
        let signed = [&["--aws-sigv4", &scope, "-u", &user], options].concat();
        aws.check(line, kind, body, &signed, expected);
    };
    let rds = "POST rds.us-east-1.amazonaws.com/";
    let change = b"Action=ModifyDBInstance&Version=2014-10-31&DBInstanceIdentifier=d&MasterUserPassword=Xx1";
    check(rds, FORM, change, &[], ENDPOINT);
    check(rds, "application/x-www-form-urlencoded; charset=utf-8", change, &[], ENDPOINT);
    check(rds, "text/plain", change, &["-H", "Transfer-Encoding: chunked"], ENDPOINT);
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        check(&rds.replace("POST", method), FORM, change, &[], ENDPOINT);
    }
    check(rds, FORM, b"Action=ModifyDBInstance&Master%55serPassword=Xx1", &[], ENDPOINT);
    check(rds, FORM, b"\xef\xbb\xbfMasterUserPassword=Xx1&Action=ModifyDBInstance", &[], ENDPOINT);
    let wide = "\u{feff}MasterUserPassword=x".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    check(rds, FORM, &wide, &[], ENDPOINT);
    let part = b"--x\r\nContent-Disposition: form-data; name=\"MasterUserPassword\"\r\n\r\nXx1\r\n--x--\r\n";
    check(rds, "multipart/form-data; boundary=x", part, &[], BAD);
    check(rds, FORM, change, &["-H", "Content-Encoding: gzip"], BAD);
    let managed = b"Action=ModifyDBInstance&DBInstanceIdentifier=d&ManageMasterUserPassword=true";
    check(rds, FORM, managed, &[], None);
    let redshift = "POST redshift.us-east-1.amazonaws.com/";
    check(redshift, FORM, b"Action=ModifyCluster&ClusterIdentifier=c&MasterUserPassword=Xx1", &[], ENDPOINT);
    check(redshift, FORM, b"Action=DescribeClusters&Version=2012-12-01", &[], None);
    let ec2 = "POST ec2.us-east-1.amazonaws.com/";
    check(ec2, FORM, b"\xef\xbb\xbfAction=CreateKeyPair&KeyName=k", &[], ENDPOINT);
    let part = b"--x\r\nContent-Disposition: form-data; name=\"Action\"\r\n\r\nCreateKeyPair\r\n--x--\r\n";
    check(ec2, "multipart/form-data; boundary=x", part, &[], BAD);
    let domain = "POST es.us-east-1.amazonaws.com/2021-01-01/opensearch/domain/d/config";
    let options = br#"{"AdvancedSecurityOptions":{"MasterUserOptions":{"MasterUser\u0050assword":"x"}}}"#;
    check(domain, JSON, options, &[], ENDPOINT);
    check(domain, JSON, br#"{"EngineVersion":"OpenSearch_2.11"}"#, &[], None);
    let lightsail = "POST lightsail.us-east-1.amazonaws.com/";
    let target = ["-H", "X-Amz-Target: Lightsail_20161128.UpdateRelationalDatabase"];
    check(lightsail, "application/x-amz-json-1.1", br#"{"masterUserPassword":"x"}"#, &target, ENDPOINT);
    check(lightsail, "application/x-amz-json-1.1", br#"{"relationalDatabaseName":"d"}"#, &target, None);
}

#[test]
fn every_path_to_a_denied_google_endpoint_is_refused() {
    if !need::program("everything", "openssl", "openssl") {
        return;
    }
    let pem = client::Run::new("openssl").args(["genrsa", "2048"]).outcome().ok("genrsa");
    let hosts = ["iam", "storage", "compute", "sqladmin", "oauth2", "pubsub"]
        .map(|name| format!("{name}.googleapis.com"));
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let gcp = Cloud::new("gcp", &hosts, |port| {
        json!({
            "type": "service_account", "client_email": "bot@acme.iam.gserviceaccount.com", "private_key_id": "k1",
            "private_key": pem, "token_uri": format!("https://oauth2.googleapis.com:{port}/token/3599"),
        })
        .to_string()
    });
    let bearer = format!("Authorization: Bearer {}", gcp.placeholder);
    let check = |line: &str, kind: &str, body: &[u8], expected| {
        gcp.check(line, kind, body, &["-H", &bearer], expected);
    };
    let grpc = "application/grpc";
    for path in [
        "iam.googleapis.com/google.iam.admin.v1.IAM/CreateServiceAccountKey",
        "iam.googleapis.com/$rpc/google.iam.admin.v1.IAM/CreateServiceAccountKey",
        "iam.googleapis.com/%24rpc/google.iam.admin.v1.IAM/UploadServiceAccountKey",
        "iam.googleapis.com/google.iam.credentials.v1.IAMCredentials/GenerateAccessToken",
        "storage.googleapis.com/google.storage.v2.Storage/CreateHmacKey",
        "storage.googleapis.com/$rpc/google.storage.v2.Storage/CreateHmacKey",
        "sqladmin.googleapis.com/google.cloud.sql.v1.SqlUsersService/Insert",
        "compute.googleapis.com/$rpc/google.cloud.compute.v1.Projects/SetCommonInstanceMetadata",
    ] {
        check(&format!("POST {path}"), grpc, b"\0\0\0\0\0", ENDPOINT);
        check(&format!("GET {path}"), grpc, b"\0\0\0\0\0", ENDPOINT);
    }
    check("POST pubsub.googleapis.com/google.pubsub.v1.Publisher/Publish", grpc, b"\0\0\0\0\0", None);
    let keys = br#"{"items":[{"key":"ssh-keys","value":"x"}]}"#;
    for method in ["POST", "PUT", "PATCH"] {
        let instance = "compute.googleapis.com/compute/v1/projects/p/zones/z/instances/i";
        check(&format!("{method} {instance}"), JSON, keys, ENDPOINT);
        check(&format!("{method} {instance}"), JSON, br#"{"labels":{}}"#, None);
        let account = "iam.googleapis.com/v1/projects/p/serviceAccounts/a@b/keys";
        check(&format!("{method} {account}"), JSON, b"{}", ENDPOINT);
        let database = "sqladmin.googleapis.com/sql/v1beta4/projects/p/instances/i";
        check(&format!("{method} {database}"), JSON, br#"{"rootPassword":"x"}"#, ENDPOINT);
    }
    let key = b"Action=CreateAccessKey&UserName=a";
    check("POST storage.googleapis.com/", FORM, key, ENDPOINT);
    check("PUT storage.googleapis.com//", FORM, key, ENDPOINT);
    check("POST storage.googleapis.com/?Action=CreateAccessKey", FORM, b"a=b", ENDPOINT);
    check("POST storage.googleapis.com/", "multipart/form-data; boundary=x", key, BAD);
    check("PUT storage.googleapis.com/bucket/object", FORM, key, None);
}
