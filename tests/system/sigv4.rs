//! AWS Signature Version 4: real SDKs sign with a placeholder, and botocore verifies the request that the upstream
//! receives.

use onecli_tests::client::{self, Outcome, Run};
use onecli_tests::daemon::{Agent, Daemon, Granted};
use onecli_tests::need;
use onecli_tests::upstream::{Recorded, Upstream};
use serde_json::json;

const HOST: &str = "s3.eu-central-1.amazonaws.com";
const DYNAMO: &str = "dynamodb.eu-central-1.amazonaws.com";
const CUSTOMERS: &str = "x1y2z3.execute-api.eu-central-1.amazonaws.com";
const MINIO: &str = "minio.test";
const ID: &str = "AKIAREALREALREALREAL";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYREALKEY";
const TOKEN: &str = "FwoGZXIvYXdzEBYaDK/session+token==";

/// Computes the signature of a recorded request with botocore and the real keys, and prints `ok`.
const VERIFY: &str = r#"
import json, sys
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
r = json.load(sys.stdin)
h = {}
for k, v in r["headers"]: h[k.lower()] = v
h.setdefault("host", r["authority"])
fields = dict(f.strip().split("=", 1) for f in h["authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(","))
key, day, region, service, end = fields["Credential"].split("/")
assert key == r["id"] and end == "aws4_request", fields
assert h["x-amz-date"].startswith(day)
names = fields["SignedHeaders"].split(";")
assert "host" in names and all(n in names for n in h if n.startswith("x-amz-")), (names, h)
assert h.get("x-amz-security-token") == r["token"], h
q = AWSRequest(r["method"], "https://" + h["host"] + r["path"], data=bytes(r["body"]))
for n in names: q.headers[n] = h[n]
q.context["timestamp"] = h["x-amz-date"]
a = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials(r["id"], r["secret"], r["token"]), service, region)
c = a.canonical_request(q)
s = a.signature(a.string_to_sign(q, c), q)
assert s == fields["Signature"], (c, fields, h)
print("ok", service, region, h.get("x-amz-content-sha256"))
"#;

struct Cloud {
    daemon: Daemon,
    upstream: Upstream,
    agent: Agent,
    /// For the hosts of AWS.
    granted: Granted,
    /// For [`MINIO`].
    minio: Granted,
    token: Option<&'static str>,
}

impl Cloud {
    fn new(token: Option<&'static str>) -> Option<Cloud> {
        if !need::python("everything") {
            return None;
        }
        let upstream = Upstream::builder(&[HOST, DYNAMO, CUSTOMERS, MINIO]).alpn(&["http/1.1"]).start();
        let daemon = Daemon::for_upstream(&upstream);
        let agent = daemon.add_agent("agent", &["--factors", "token"]);
        let port = upstream.https_addr().port();
        let value = match token {
            Some(token) => {
                json!({"AccessKeyId": ID, "SecretAccessKey": SECRET, "SessionToken": token}).to_string()
            }
            None => format!("{ID}:{SECRET}"),
        };
        let at = |host: &str| format!("{host}:{port}");
        let hosts = [at(HOST), at(DYNAMO), at(CUSTOMERS)];
        let [s3, dynamo, customers] = &hosts;
        daemon.add_secret(
            "aws",
            &value,
            &["--template", "aws", "--host", s3, "--host", dynamo, "--host", customers],
        );
        daemon.add_secret(
            "minio",
            &value,
            &["--template", "s3-compatible", "--host", &at(MINIO), "--env", "MINIO_KEY"],
        );
        let (granted, minio) = (daemon.grant(&agent, "aws"), daemon.grant(&agent, "minio"));
        Some(Cloud { daemon, upstream, agent, granted, minio, token })
    }

    /// Runs boto3 code with `ENDPOINTS` of the upstream.
    fn boto(&self, code: &str) -> Outcome {
        let script = format!(
            "import boto3, sys\nfrom botocore.config import Config\n\
             from botocore.exceptions import ClientError\nfrom botocore.parsers import ResponseParserError\n\
             one = Config(retries={{'max_attempts': 0}}, s3={{'addressing_style': 'path'}})\n\
             def client(name, host, **more):\n    \
             more.setdefault('config', one)\n    \
             return boto3.client(name, endpoint_url=f'https://{{host}}:{}', region_name='eu-central-1', **more)\n\
             # The upstream is not AWS, so its response is ignored.\n\
             try:\n    {}\nexcept (ClientError, ResponseParserError): pass",
            self.upstream.https_addr().port(),
            code.replace('\n', "\n    ")
        );
        let run = Run::new(client::python().unwrap())
            .args(["-c", &script])
            .env("AWS_ACCESS_KEY_ID", &self.granted.placeholder)
            .env("AWS_SECRET_ACCESS_KEY", &self.granted.placeholder)
            .env("AWS_CA_BUNDLE", self.daemon.ca_file())
            .env("AWS_EC2_METADATA_DISABLED", "true");
        self.daemon.explicit(&self.agent.token, run).outcome()
    }

    /// The only request that arrived, verified by botocore.
    fn verified(&self) -> Recorded {
        let seen = self.upstream.only_request();
        self.upstream.clear();
        let described = json!({
            "method": seen.method, "path": seen.path, "authority": seen.authority, "headers": seen.headers,
            "body": seen.body, "id": ID, "secret": SECRET, "token": self.token,
        });
        let out =
            Run::new(client::python().unwrap()).args(["-c", VERIFY]).stdin(described.to_string()).outcome();
        let said = out.ok("botocore's own signature");
        assert!(said.starts_with("ok "), "{said}");
        assert!(!format!("{seen:?}").contains("onecli_ph_"), "{seen:#?}");
        seen
    }
}

#[test]
fn bodies_of_every_kind_are_signed() {
    let Some(cloud) = Cloud::new(None) else { return };
    // A hash in a header, which is forwarded unchanged.
    cloud
        .boto(&format!("client('s3', '{HOST}').put_object(Bucket='upload', Key='a b:c+d/é', Body=b'hello')"))
        .ok("put");
    let seen = cloud.verified();
    assert!(seen.path.starts_with("/upload/a%20b"), "{}", seen.path);
    // With signatures over the payload, which boto3 makes if configured.
    cloud
        .boto(&format!(
            "client('s3', '{HOST}', config=Config(retries={{'max_attempts': 0}}, request_checksum_calculation='when_required', \
             s3={{'payload_signing_enabled': True, 'addressing_style': 'path'}})).put_object(Bucket='upload', Key='k', Body=b'hello')"
        ))
        .ok("signed put");
    let seen = cloud.verified();
    assert_eq!(seen.body, b"hello");
    assert_eq!(seen.header("x-amz-content-sha256").map(str::len), Some(64));
    // Not seekable: chunks with a trailing checksum.
    cloud
        .boto(&format!(
            "import io\nclient('s3', '{HOST}').upload_fileobj(io.BytesIO(b'x' * 100000), 'upload', 'k')"
        ))
        .ok("upload");
    let seen = cloud.verified();
    assert!(
        seen.header("x-amz-content-sha256").is_some_and(|v| v.len() == 64 || v.contains("UNSIGNED")),
        "{seen:#?}"
    );
    // No hash in a header: the body is read and hashed.
    cloud.boto(&format!("client('dynamodb', '{DYNAMO}').list_tables(Limit=5)")).ok("list_tables");
    let seen = cloud.verified();
    assert_eq!(seen.body, br#"{"Limit": 5}"#);
    // No body, a query, another host.
    cloud
        .boto(&format!(
            "print(client('s3', '{MINIO}', aws_access_key_id='{0}', aws_secret_access_key='{0}')\
             .head_object(Bucket='upload', Key='k', VersionId='a/b+c='))",
            cloud.minio.placeholder
        ))
        .ok("head");
    assert!(cloud.verified().path.contains("versionId=a%2Fb%2Bc%3D"));
}

#[test]
fn session_tokens_are_sent_and_scrubbed() {
    let Some(cloud) = Cloud::new(Some(TOKEN)) else { return };
    let url = cloud.upstream.https_url(HOST, "/echo");
    let run = client::curl(&url).args([
        "--aws-sigv4",
        "aws:amz:eu-central-1:s3",
        "-u",
        &format!("{0}:{0}", cloud.granted.placeholder),
        "-H",
        "x-amz-security-token: mine",
        "-H",
        "range: bytes=0-9",
    ]);
    let outcome = cloud.daemon.explicit(&cloud.agent.token, run).outcome();
    let out = outcome.ok("curl");
    let seen = cloud.verified();
    assert_eq!(seen.header("x-amz-security-token"), Some(TOKEN));
    assert_eq!(seen.header("range"), None, "a response with the token must arrive complete");
    assert!(
        !out.contains("session+token")
            && !outcome.reply().headers.values().flatten().any(|v| v.contains(TOKEN))
    );
}

/// A signature is as powerful as the keys for some minutes, for anyone who has it.
#[test]
fn echoed_signature_is_scrubbed() {
    let Some(cloud) = Cloud::new(None) else { return };
    let run = client::curl(&cloud.upstream.https_url(HOST, "/echo"))
        .args(["--aws-sigv4", "aws:amz:eu-central-1:s3", "--include"])
        .args(["-u", &format!("{0}:{0}", cloud.granted.placeholder)]);
    let out = cloud.daemon.explicit(&cloud.agent.token, run).outcome().ok("curl");
    let seen = cloud.verified();
    let (_, signature) = seen.header("authorization").unwrap().split_once("Signature=").unwrap();
    assert_eq!(signature.len(), 64);
    assert!(!out.contains(signature), "{out}");
    let masked = format!("Signature={}", "*".repeat(64));
    assert_eq!(out.matches(&masked).count(), 2, "in a header and in the body: {out}");
}

#[test]
fn presigned_urls_and_chunk_signatures_are_recomputed() {
    let Some(cloud) = Cloud::new(None) else { return };
    cloud
        .boto(&format!(
            "import urllib.request, ssl\nurl = client('s3', '{HOST}').generate_presigned_url('get_object', \
             Params={{'Bucket': 'echo', 'Key': 'k'}})\n\
             print(urllib.request.urlopen(url, context=ssl.create_default_context(cafile=sys.argv[0] if False else \
             __import__('os').environ['AWS_CA_BUNDLE'])).status)"
        ))
        .ok("presigned");
    let seen = cloud.verified();
    assert!(!seen.path.to_lowercase().contains("x-amz-"), "{}", seen.path);
    let signature = format!(
        "AWS4-HMAC-SHA256 Credential={}/20260101/eu-central-1/s3/aws4_request, SignedHeaders=host, Signature=00",
        cloud.granted.placeholder
    );
    let chunks =
        "5;chunk-signature=00\r\nhello\r\n6;chunk-signature=01\r\n world\r\n0;chunk-signature=02\r\n";
    let send = |kind: &str, body: String, more: &[&str]| {
        let run = client::curl(&cloud.upstream.https_url(HOST, "/upload"))
            .args(["-X", "PUT", "--data-binary", "@-", "-H", &format!("authorization: {signature}")])
            .args(["-H", &format!("x-amz-content-sha256: {kind}"), "-H", "x-amz-decoded-content-length: 11"])
            .args(["-H", "content-encoding: aws-chunked"])
            .args(more.iter().flat_map(|field| ["-H", field]))
            .stdin(body);
        let outcome = cloud.daemon.explicit(&cloud.agent.token, run).outcome();
        (outcome.reply().status, cloud.upstream.request_count())
    };
    assert_eq!(send("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", format!("{chunks}\r\n"), &[]), (200, 1));
    let seen = cloud.verified();
    assert_eq!(seen.body, b"hello world");
    assert_eq!(seen.header("content-length"), Some("11"));
    assert_eq!(
        (seen.header("content-encoding"), seen.header("x-amz-content-sha256")),
        (None, Some("UNSIGNED-PAYLOAD"))
    );
    let trailers = format!("{chunks}x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:00\r\n\r\n");
    let kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
    assert_eq!(send(kind, trailers, &["x-amz-trailer: x-amz-checksum-crc32c"]), (200, 1));
    let seen = cloud.verified();
    assert_eq!(
        String::from_utf8_lossy(&seen.body),
        "5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32c:sOO8/Q==\r\n\r\n"
    );
    assert_eq!(seen.header("x-amz-content-sha256"), Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER"));
}

/// The scope of the agent's signature must match the host and the template.
#[test]
fn foreign_scopes_are_refused() {
    let Some(cloud) = Cloud::new(None) else { return };
    let ask = |scope: &str, host: &str| {
        let placeholder = &if host == MINIO { &cloud.minio } else { &cloud.granted }.placeholder;
        let run = client::curl(&cloud.upstream.https_url(host, "/echo")).args([
            "--aws-sigv4",
            &format!("aws:amz:{scope}"),
            "-u",
            &format!("{placeholder}:{placeholder}"),
        ]);
        let reply = cloud.daemon.explicit(&cloud.agent.token, run).outcome().reply();
        (reply.status, reply.header("x-onecli-error").unwrap_or_default().to_owned())
    };
    let denied = (403, "egress_denied".to_owned());
    assert_eq!(ask("us-east-1:s3", HOST), denied, "another region");
    assert_eq!(ask("eu-central-1:dynamodb", HOST), denied, "another service");
    assert_eq!(ask("eu-central-1:s3", DYNAMO), denied, "another service");
    assert_eq!(ask("eu-central-1:execute-api", CUSTOMERS), denied, "another service, not AWS");
    assert_eq!(ask("eu-central-1:sts", HOST), (403, "credential_endpoint".to_owned()));
    let plain = client::curl(&cloud.upstream.https_url(HOST, "/echo"));
    let reply = cloud.daemon.explicit(&cloud.agent.token, plain).outcome().reply();
    assert_eq!((reply.status, reply.header("x-onecli-error")), (401, Some("placeholder_missing")));
    assert_eq!(cloud.upstream.request_count(), 0);
    // The secret for it names its service, whatever service the agent signed for.
    assert_eq!(ask("us-west-2:iam", MINIO), (200, String::new()));
    assert!(cloud.verified().header("authorization").unwrap().contains("/us-west-2/s3/aws4_request"));
    let port = cloud.upstream.https_addr().port();
    let add = |name: &str, scope: &str| {
        let value = format!("{ID}:{SECRET}");
        cloud.daemon.add_secret(name, &value, &["--sigv4", scope, "--host", &format!("{CUSTOMERS}:{port}")]);
        cloud.daemon.grant(&cloud.agent, name)
    };
    let gateway = add("gateway", "*/execute-api");
    let run = client::curl(&cloud.upstream.https_url(CUSTOMERS, "/echo")).args([
        "--aws-sigv4",
        "aws:amz:eu-central-1:execute-api",
        "-u",
        &format!("{0}:{0}", gateway.placeholder),
    ]);
    assert_eq!(cloud.daemon.explicit(&cloud.agent.token, run).outcome().reply().status, 200);
    cloud.verified();
    let bad = cloud
        .daemon
        .home()
        .cli(&["secret", "rotate", "aws", "--value-stdin", "--force"])
        .stdin("no-keys-at-all")
        .outcome();
    assert!(bad.err().contains("ID:SECRET"), "{bad:?}");
}
