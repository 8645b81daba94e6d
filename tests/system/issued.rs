//! Credentials that a service issues are masked if a template lists them, with an alert. Other text arrives unchanged.

use onecli_tests::client::{self, Reply, Run};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::need;
use onecli_tests::upstream::{Builder, Upstream, git};
use serde_json::Value;

use crate::scene::{API, VALUE};

/// In the form in which GitHub, npm and `OpenAI` issue them.
const GITHUB: &str = "ghs_0123456789abcdefghijABCDEFGHIJ012345";
const NPM: &str = "npm_0123456789abcdefghijABCDEFGHIJ012345";
const OPENAI: &str = "sk-proj-0123456789abcdefghijABCDEFGHIJ012345";

/// A daemon, an agent that is identified by its token, and one secret of a template.
struct Stage {
    daemon: Daemon,
    upstream: Upstream,
    agent: Agent,
    key: String,
}

impl Stage {
    fn new(upstream: Builder, template: &str, options: &[&str]) -> Self {
        let upstream = upstream.start();
        let daemon = Daemon::builder().upstream(&upstream).no_ebpf().start();
        let agent = daemon.add_agent("agent", &["--factors", "token"]);
        let host = format!("{API}:{}", upstream.https_addr().port());
        daemon.add_secret("own", VALUE, &[&["--template", template, "--host", &host], options].concat());
        let key = daemon.grant(&agent, "own").placeholder;
        Self { daemon, upstream, agent, key }
    }

    fn run(&self, run: Run) -> client::Outcome {
        self.daemon.explicit(&self.agent.token, run).outcome()
    }

    fn fetch(&self, path: &str, args: &[&str]) -> Reply {
        let outcome = self.run(client::curl(&self.upstream.https_url(API, path)).args(args));
        outcome.ok(path);
        outcome.reply()
    }

    fn alert(&self) -> Value {
        self.daemon.audit_until("an alert", |r| r["code"] == "credential_issued")
    }
}

fn stars(text: &str) -> String {
    "*".repeat(text.len())
}

/// Over both versions of HTTP, and in a content coding.
#[test]
fn issued_credentials_are_masked() {
    let json = format!(r#"{{"id":1,"token":"{GITHUB}","note":"{GITHUB}","expires_at":"2030"}}"#);
    let page = |upstream: Builder| upstream.page("/issued", "application/json", json.clone());
    for alpn in ["http/1.1", "h2"] {
        let stage = Stage::new(page(Upstream::builder(&[API]).alpn(&[alpn])), "github", &[]);
        let masked = json.replacen(GITHUB, &stars(GITHUB), 1);
        for (path, flag) in
            [("/issued", "--http1.1"), ("/issued", "--http2"), ("/issued?coding=gzip", "--http2")]
        {
            let reply = stage.fetch(path, &[flag]);
            assert_eq!((reply.status, reply.text()), (200, masked.clone()), "{path} {flag} {alpn}");
        }
        let alert = stage.alert();
        assert_eq!(alert["event"], "alert", "{alert:#}");
        assert_eq!(alert["verdict"], "inject", "{alert:#}");
        assert_eq!(alert["rule"], "issued: 1 masked, 1 passed", "{alert:#}");
        assert_eq!((&alert["secret"], &alert["path"]), (&"own".into(), &"/issued".into()), "{alert:#}");
        assert!(!alert.to_string().contains(GITHUB));
        // One for each response: the kit disables folding.
        let alerts = stage.daemon.audit().into_iter().filter(|r| r["code"] == "credential_issued");
        assert_eq!(alerts.count(), 3);
    }
}

#[test]
fn mask_issued_option_selects_what_is_masked() {
    let json = format!(r#"{{"token":"{GITHUB}","note":"{GITHUB}"}}"#);
    for (mode, expected) in [
        ("none", json.clone()),
        ("listed", json.replacen(GITHUB, &stars(GITHUB), 1)),
        ("all", json.replace(GITHUB, &stars(GITHUB))),
    ] {
        let upstream = Upstream::builder(&[API]).page("/issued", "application/json", json.clone());
        let stage = Stage::new(upstream, "github", &["--mask-issued", mode]);
        assert_eq!(stage.fetch("/issued", &[]).text(), expected, "{mode}");
        let _ = stage.alert();
        let shown = stage.daemon.onecli_json(&["secret", "show", "own"]);
        let expected = if mode == "listed" { Value::Null } else { mode.into() };
        assert_eq!(shown["profile"]["mask_issued"], expected, "{shown:#}");
        let shown = stage.daemon.onecli(&["secret", "show", "own"]).ok("secret show");
        assert!(shown.lines().any(|line| line.starts_with("mask issued") && line.ends_with(mode)), "{shown}");
    }
}

/// Any type of the response, and any format that contains the credential.
#[test]
fn members_are_masked_in_every_text_format() {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let json = format!(r#"{{"id":1,"token":"{GITHUB}"}}"#);
    let quoted = serde_json::json!({ "body": json }).to_string();
    let object = format!(r#"{{"token":{{"value":"{GITHUB}"}},"id":1}}"#);
    let cases: [(&str, &str, Vec<u8>); 8] = [
        ("plain", "text/plain", json.clone().into()),
        ("html", "text/html; charset=utf-8", format!("<html><script>x = {json};</script></html>").into()),
        ("attribute", "text/html", format!("<p data-x=\"{}\">", json.replace('"', "&quot;")).into()),
        ("utf-16", "application/json; charset=utf-16", utf16(&json)),
        ("quoted", "application/json", quoted.into()),
        ("object", "application/json", object.into()),
        ("cdata", "text/xml", format!("<a><token><![CDATA[{GITHUB}]]></token></a>").into()),
        ("text xml", "text/plain", format!("<a><token>{GITHUB}</token></a>").into()),
    ];
    let mut upstream = Upstream::builder(&[API]);
    for (name, kind, body) in &cases {
        upstream = upstream.page(&format!("/{}", name.replace(' ', "-")), kind, body.clone());
    }
    let number = format!(r#"{{"token":{},"id":7}}"#, "7".repeat(30));
    let stage = Stage::new(upstream.page("/number", "application/json", number.clone()), "github", &[]);
    for (name, _, body) in &cases {
        let reply = stage.fetch(&format!("/{}", name.replace(' ', "-")), &[]);
        let text = |body: &[u8]| String::from_utf8_lossy(body).replace('\0', "");
        assert_eq!(text(&reply.body), text(body).replace(GITHUB, &stars(GITHUB)), "{name}");
        assert_eq!(reply.body.len(), body.len(), "{name}");
    }
    assert_eq!(stage.fetch("/number", &[]).text(), number.replace(&"7".repeat(30), &"1".repeat(30)));
    // An agent cannot request a charset that the daemon does not read.
    let charset = ["-H", "Accept-Charset: utf-7, ibm037", "-H", "Accept: text/plain;charset=ibm037"];
    assert_eq!(stage.fetch("/plain", &charset).status, 200);
    let sent = stage.upstream.requests();
    let sent = sent.last().unwrap();
    assert_eq!((sent.header("accept-charset"), sent.header("accept")), (None, Some("text/plain")));
}

/// A request without the credential did not cause the service to issue anything.
#[test]
fn other_responses_arrive_unchanged() {
    let json = format!(r#"{{"token":"{GITHUB}"}}"#);
    let upstream = Upstream::builder(&[API, "other.test"]).page("/issued", "application/json", json.clone());
    let stage = Stage::new(upstream, "github", &[]);
    let port = stage.upstream.https_addr().port().to_string();
    let rule = [
        "rule",
        "add",
        "allow",
        "--agent",
        "agent",
        "--host",
        "other.test",
        "--port",
        &port,
        "--path",
        "/issued",
    ];
    let _ = stage.daemon.onecli(&rule).ok("rule add");
    let reply = stage.run(client::curl(&stage.upstream.https_url("other.test", "/issued"))).reply();
    assert_eq!((reply.status, reply.text()), (200, json));
    // The agent's own placeholder, which the service echoes.
    let echo = stage.fetch("/echo", &["-H", &format!("X-Own: {}", stage.key)]);
    assert_eq!(echo.status, 200);
    assert!(!stage.daemon.audit().iter().any(|r| r["code"] == "credential_issued"));
}

#[test]
fn an_event_stream_arrives_byte_for_byte() {
    let events = format!("data: {{\"token\":\"{OPENAI}\",\"delta\":\"see {OPENAI}\"}}\n\ndata: [DONE]\n\n");
    let upstream =
        Upstream::builder(&[API]).page("/v1/chat/completions", "text/event-stream", events.clone());
    let stage = Stage::new(upstream, "openai", &["--mask-issued", "all"]);
    assert_eq!(stage.fetch("/v1/chat/completions", &["-d", "{}"]).text(), events);
}

#[test]
fn git_clone_arrives_byte_for_byte() {
    let branch = format!("b/{GITHUB}");
    let repo = git::Repo::new("x-access-token", VALUE).branch(&branch);
    let stage = Stage::new(Upstream::builder(&[API]).git(repo), "github-git", &["--mask-issued", "all"]);
    let dir = stage.daemon.agent_dir(&stage.agent).join("clone");
    let script = format!(
        r#"git -c credential.helper='!f() {{ echo username=x-access-token; echo "password={}"; }}; f' \
           clone --quiet "https://{API}:{}/git/demo.git" "$1" && git -C "$1" branch --remotes"#,
        stage.key,
        stage.upstream.https_addr().port()
    );
    let run = Run::new("sh").args(["-c", &script, "sh"]).arg(&dir).env("GIT_TERMINAL_PROMPT", "0");
    let branches = stage.run(run).ok("git clone");
    assert!(branches.contains(&branch), "{branches}");
    assert_eq!(std::fs::read_to_string(dir.join(git::FILE)).unwrap(), git::CONTENT);
}

/// Packages that Python creates for the two package managers.
const PACK: &str = r#"
import base64, hashlib, io, json, sys, tarfile, zipfile
dir, shape = sys.argv[1:]
manifest = {"name": "demo", "version": "1.0.0", "token": shape}
buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode="w") as tar:
    for name, data in (("package/package.json", json.dumps(manifest)), ("package/shape.txt", shape)):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data.encode()))
open(dir + "/demo.tgz", "wb").write(buffer.getvalue())
integrity = "sha512-" + base64.b64encode(hashlib.sha512(buffer.getvalue()).digest()).decode()
dist = {"tarball": sys.stdin.read() + "/demo/-/demo-1.0.0.tgz", "integrity": integrity}
packument = {"name": "demo", "readme": shape, "token": shape, "dist-tags": {"latest": "1.0.0"},
             "versions": {"1.0.0": {**manifest, "dist": dist}}}
open(dir + "/packument.json", "w").write(json.dumps(packument))
with zipfile.ZipFile(dir + "/demo.whl", "w") as wheel:
    wheel.writestr("demo.py", "TOKEN = " + repr(shape))
    wheel.writestr("demo-1.0.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0.0\n\n" + shape + "\n")
    wheel.writestr("demo-1.0.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("demo-1.0.0.dist-info/RECORD", "")
"#;

/// Creates packages in `dir`, which needs the registry's address.
fn pack(dir: &std::path::Path, registry: &str) {
    let python = client::python().unwrap();
    let run = Run::new(python).args(["-c", PACK]).arg(dir).arg(NPM).stdin(registry.to_owned());
    run.outcome().ok("packing");
}

#[test]
fn packages_arrive_byte_for_byte() {
    if !need::python("everything") || !need::program("npm", "npm", "npm") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // The redirect contains only the path, so the port does not matter.
    pack(dir.path(), &format!("https://{API}"));
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let index = format!("<a href=\"/files/demo-1.0.0-py3-none-any.whl\">demo {NPM}</a>");
    let upstream = Upstream::builder(&[API])
        .page("/demo", "application/json", read("packument.json"))
        .page("/demo/-/demo-1.0.0.tgz", "application/octet-stream", read("demo.tgz"))
        .page("/simple/demo/", "text/html", index)
        .page("/files/demo-1.0.0-py3-none-any.whl", "application/octet-stream", read("demo.whl"));
    let stage = Stage::new(upstream, "npm", &[]);
    let port = stage.upstream.https_addr().port();
    let own = stage.daemon.agent_dir(&stage.agent);
    std::fs::create_dir_all(&own).unwrap();

    let same = stage.fetch("/demo", &[]);
    assert_eq!(same.body, read("packument.json"), "the packument");
    let script = format!(
        r#"cd "$1"; export HOME=$PWD; echo "//{API}:{port}/:_authToken={}" > .npmrc
           exec npm install --no-audit --no-fund --fetch-retries=0 --cafile "$SSL_CERT_FILE" --registry https://{API}:{port}/ --replace-registry-host=always demo"#,
        stage.key
    );
    stage.run(Run::new("sh").args(["-c", &script, "sh"]).arg(&own)).ok("npm install");
    assert_eq!(std::fs::read_to_string(own.join("node_modules/demo/shape.txt")).unwrap(), NPM);

    let python = client::python().unwrap();
    let run = Run::new(python)
        .args([
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--no-cache-dir",
            "download",
            "--no-deps",
            "--quiet",
        ])
        .args(["--index-url", &format!("https://x:{}@{API}:{port}/simple", stage.key), "--dest"])
        .arg(&own)
        .arg("demo");
    stage.run(run).ok("pip download");
    assert_eq!(std::fs::read(own.join("demo-1.0.0-py3-none-any.whl")).unwrap(), read("demo.whl"));
}

/// A profile allows only the requests it is for.
#[test]
fn narrow_profiles_allow_only_their_purpose() {
    let upstream = Upstream::start(&[API]);
    let daemon = Daemon::builder().upstream(&upstream).no_ebpf().start();
    let agent = daemon.add_agent("agent", &["--factors", "token"]);
    let host = format!("{API}:{}", upstream.https_addr().port());
    daemon.add_secret("own", VALUE, &["--template", "github:read-repos", "--host", &host]);
    let _ = daemon.grant(&agent, "own");
    let status = |method: &str, path: &str| {
        let run = client::curl(&upstream.https_url(API, path)).args(["-X", method]);
        daemon.explicit(&agent.token, run).outcome().reply().status
    };
    assert_eq!(status("GET", "/repos/a/b/contents/x"), 404);
    assert_eq!(upstream.request_count(), 1);
    for (method, path) in
        [("POST", "/repos/a/b/issues"), ("GET", "/user"), ("GET", "/repos/a/b/actions/secrets")]
    {
        assert_eq!(status(method, path), 403, "{method} {path}");
    }
    let wide = ["secret", "add", "wide", "--template", "github:read-repos", "--path", "/**", "--value-stdin"];
    assert!(daemon.onecli(&wide).err().contains("omit --method and --path"));
    let listed = daemon.onecli(&["template", "list"]).ok("template list");
    assert!(listed.contains("github:read-repos") && listed.contains("slack:post"), "{listed}");
}
