//! Resources that a request names besides its URL, and documents that a denial searches for words. Text that a server
//! may read differently is refused before the credential is sent.

use data_encoding::BASE64;
use onecli_tests::client;
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::upstream::Upstream;

const VALUE: &str = "real-credential-0123456789";

/// A daemon whose agent may use one secret for each host.
struct World {
    upstream: Upstream,
    daemon: Daemon,
    agent: Agent,
}

impl World {
    fn new(hosts: &[&str]) -> World {
        let upstream = Upstream::start(hosts);
        let daemon = Daemon::for_upstream(&upstream);
        let agent = daemon.add_agent("agent", &["--factors", "token"]);
        World { upstream, daemon, agent }
    }

    /// Stores a secret for `host`, and returns its placeholder.
    fn secret(&self, name: &str, host: &str, args: &[&str]) -> String {
        let host = format!("{host}:{}", self.upstream.https_addr().port());
        self.daemon.add_secret(name, VALUE, &[&["--host", &host], args].concat());
        self.daemon.grant(&self.agent, name).placeholder
    }

    /// The error code of the refusal, or `None` if one request was forwarded with the credential.
    fn ask(&self, method: &str, host: &str, path: &str, args: &[&str]) -> Option<String> {
        let before = self.upstream.request_count();
        let url = self.upstream.https_url(host, path);
        let run = client::curl(&url).args(["-X", method, "--path-as-is"]).args(args);
        let reply = self.daemon.explicit(&self.agent.token, run).outcome().reply();
        let code = reply.header("x-onecli-error").map(str::to_owned);
        let sent = self.upstream.request_count() - before;
        assert_eq!(sent, usize::from(code.is_none()), "{method} {host}{path} {args:?}: {reply:?}");
        if code.is_none() {
            let seen = self.upstream.requests().pop().unwrap();
            assert!(format!("{seen:?}").contains(VALUE), "{method} {path}: without the credential");
        }
        code
    }
}

const DENIED: Option<&str> = Some("egress_denied");
const BAD: Option<&str> = Some("bad_request");
const ENDPOINT: Option<&str> = Some("credential_endpoint");

#[test]
fn every_repository_of_a_mount_is_judged() {
    let world = World::new(&["registry.test"]);
    let key = world.secret("registry", "registry.test", &["--bearer", "--path", "/v2/public/**"]);
    let bearer = format!("Authorization: Bearer {key}");
    let check = |query: &str, expected: Option<&str>| {
        let path = format!("/v2/public/app/blobs/uploads/?{query}");
        let got = world.ask("POST", "registry.test", &path, &["-H", &bearer, "-d", ""]);
        assert_eq!(got.as_deref(), expected, "{query}");
    };
    check("mount=sha256:0&from=public/base", None);
    check("mount=sha256:0&from=private/x", DENIED);
    check("mount=sha256:0&from=public/base&from=private/x", DENIED);
    check("x=;from=public/base&mount=sha256:0&from=private/x", DENIED);
    check("mount=sha256:0&from=public/base;from=private/x", DENIED);
    check("mount=sha256:0&From=private/x", DENIED);
    check("mount=sha256:0", BAD);
}

#[test]
fn bucket_in_the_host_limits_copies() {
    let hosts = [
        "public.nyc3.digitaloceanspaces.com",
        "public.acct.r2.cloudflarestorage.com",
        "public.s3.eu-central-1.amazonaws.com",
        "public.store.acme.test",
    ];
    let world = World::new(&hosts);
    for host in hosts {
        let key = world.secret(host, host, &["--header", "X-Key: {secret}"]);
        let key = format!("X-Key: {key}");
        let check = |source: &str, expected: Option<&str>| {
            let field = format!("x-amz-copy-source: {source}");
            let got = world.ask("PUT", host, "/k", &["-H", &key, "-H", &field, "-d", ""]);
            assert_eq!(got.as_deref(), expected, "{host}: {source}");
        };
        check("/public/k", None);
        check("public%2Fa%2Fk", None);
        check("/private/payroll", DENIED);
        check("/private/payroll?x=1", BAD);
        check("/public/../private/payroll", BAD);
        check("arn:aws:s3:eu-central-1:1:accesspoint/private/object/k", BAD);
        let query = world.ask("PUT", host, "/k?X-Amz-Copy-Source=/private/payroll", &["-H", &key, "-d", ""]);
        assert_eq!(query.as_deref(), DENIED, "{host}");
    }
}

#[test]
fn named_swift_resources_are_judged() {
    let world = World::new(&["swift.test"]);
    let limits = ["--header", "X-Auth-Token: {secret}", "--path", "/v1/AUTH_me/public/**"];
    let key = format!("X-Auth-Token: {}", world.secret("swift", "swift.test", &limits));
    let check = |fields: &[&str], expected: Option<&str>| {
        let mut args = vec!["-d", "", "-H", &key];
        args.extend(fields.iter().flat_map(|field| ["-H", *field]));
        let got = world.ask("PUT", "swift.test", "/v1/AUTH_me/public/x", &args);
        assert_eq!(got.as_deref(), expected, "{fields:?}");
    };
    check(&["X-Symlink-Target: public/y"], None);
    check(&["X-Symlink-Target: private/y"], DENIED);
    check(&["X-Symlink-Target: public/y", "X-Symlink-Target-Account: AUTH_other"], DENIED);
    check(&["X-Object-Manifest: public/part-"], None);
    check(&["X-Object-Manifest: private/"], DENIED);
    let copy = "X-Copy-From: public/y";
    check(&[copy, "X-Copy-From-Account: AUTH_me"], None);
    check(&[copy, "X-Copy-From-Account: AUTH_me", "X-Copy-From-Account: AUTH_other"], DENIED);
    check(&[copy, "X-Copy-From-Account: AUTH_other", "X-Copy-From-Account: AUTH_me"], DENIED);
    let manifest = "/v1/AUTH_me/public/x?multipart-manifest=put";
    let got = world.ask("PUT", "swift.test", manifest, &["-H", &key, "-d", "[]"]);
    assert_eq!(got.as_deref(), BAD);
    let copies = ["-H", &key, "-H", "Destination: public/y", "-H", "Destination-Account: AUTH_me"];
    let got = world.ask("COPY", "swift.test", "/v1/AUTH_me/public/x", &copies);
    assert_eq!(got, None);
    let twice = [&copies[..], &["-H", "Destination-Account: AUTH_other"]].concat();
    let got = world.ask("COPY", "swift.test", "/v1/AUTH_me/public/x", &twice);
    assert_eq!(got.as_deref(), DENIED);
}

#[test]
fn template_denials_apply_behind_prefixes() {
    let world = World::new(&["ghe.test", "gl.test"]);
    let github = world.secret("github", "ghe.test", &["--template", "github"]);
    let gitlab = world.secret("gitlab", "gl.test", &["--template", "gitlab"]);
    let github = format!("Authorization: token {github}");
    let gitlab = format!("Private-Token: {gitlab}");
    let check = |host: &str, path: &str, body: &str, expected: Option<&str>| {
        let key = if host == "ghe.test" { &github } else { &gitlab };
        let json = "Content-Type: application/json";
        let got = world.ask("POST", host, path, &["-H", key, "-H", json, "-d", body]);
        assert_eq!(got.as_deref(), expected, "{host}{path}");
    };
    for path in ["/user/keys", "/repos/o/r/keys", "/app/installations/1/access_tokens", "/authorizations"] {
        for prefix in ["", "/api/v3", "//x", "/a/b"] {
            check("ghe.test", &format!("{prefix}{path}"), "{}", ENDPOINT);
        }
    }
    check("ghe.test", "/api/v3/repos/o/r/k%u0065ys", "{}", ENDPOINT);
    check("ghe.test", "/api/v3/repos/o/r/k%c1%a5ys", "{}", ENDPOINT);
    check("ghe.test", "/api/graphql", r#"{"query":"{repository{tempCloneToken}}"}"#, ENDPOINT);
    check("ghe.test", "/api/graphql", r#"{"query":"{viewer{login}}"}"#, None);
    check("ghe.test", "/api/v3/repos/o/r/issues", "{}", None);
    for path in ["/api/v4/user/keys", "/api/v4/projects/1/access_tokens", "/oauth/token"] {
        check("gl.test", &format!("/gitlab{path}"), "{}", ENDPOINT);
    }
    check("gl.test", "/gitlab/api/v4/projects/a%2Fb/issues", "{}", None);
}

#[test]
fn graphql_documents_are_read_in_every_location() {
    let world = World::new(&["linear.test"]);
    let key = world.secret("linear", "linear.test", &["--template", "linear"]);
    let key = format!("Authorization: {key}");
    let check = |path: &str, kind: &str, body: &[u8], expected: Option<&str>| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("body");
        std::fs::write(&file, body).unwrap();
        let (kind, data) = (format!("Content-Type: {kind}"), format!("@{}", file.display()));
        let got = world.ask("POST", "linear.test", path, &["-H", &key, "-H", &kind, "--data-binary", &data]);
        assert_eq!(got.as_deref(), expected, "{path} {kind} {}", String::from_utf8_lossy(body));
    };
    let (json, form) = ("application/json", "application/x-www-form-urlencoded");
    let mutation = "mutation{apiKeyCreate(input:{}){id}}";
    let document = format!("{{\"query\":\"{mutation}\"}}");
    check("/graphql", json, br#"{"query":"{viewer{id}}"}"#, None);
    check("/graphql", form, br#"{"query":"{viewer{id}}"}"#, None);
    check("/graphql", json, document.as_bytes(), ENDPOINT);
    check("/graphql", form, format!("query={mutation}").as_bytes(), ENDPOINT);
    check("/graphql", form, b"query=mutation%7Bapi%4beyCreate%7D", ENDPOINT);
    check("/graphql?query=mutation%7Bapi%4beyCreate%7D", json, br#"{"query":"{viewer{id}}"}"#, ENDPOINT);
    let wide: Vec<u8> = document.encode_utf16().flat_map(u16::to_le_bytes).collect();
    check("/graphql", json, &wide, BAD);
    check("/graphql", "application/json; charset=utf-8; charset=utf-16", &wide, BAD);
    let coded = BASE64.encode(mutation.as_ref());
    let part = format!(
        "--x\r\nContent-Disposition: form-data; name=query\r\nContent-Transfer-Encoding: base64\r\n\r\n{coded}\r\n--x--"
    );
    check("/graphql", "multipart/form-data; boundary=x", part.as_bytes(), BAD);
    check("/graphql", json, br#"{"documentId":"x"}"#, BAD);
    check("/graphql?documentId=x", json, br#"{"query":"{viewer{id}}"}"#, BAD);
}
