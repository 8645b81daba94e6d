//! The main feature: a real client uses a credential that it does not have, both ways.

use onecli_tests::client::{self, Run};
use onecli_tests::need;
use onecli_tests::upstream::{Upstream, git};

use crate::scene::{API, API_V6, Scene, VALUE, Way, curl_with_key, in_shell, ways};

#[test]
fn curl_uses_a_credential_over_both_versions() {
    let scene = Scene::new();
    for way in ways() {
        for (flag, version, alpn) in [("--http1.1", "1.1", "http/1.1"), ("--http2", "2", "h2")] {
            let run = curl_with_key(&scene.url("/echo?q=1"), &[flag, "--data", "hello"]);
            let outcome = scene.run(way, run);
            outcome.ok(&format!("curl {flag}, {way:?}"));
            let reply = outcome.reply();
            assert_eq!((reply.status, reply.version.as_str()), (200, version), "{way:?}: {reply:?}");
            assert_eq!(reply.json()["body"], "hello");
            let seen = scene.injected_once(&format!("Bearer {VALUE}"));
            assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/echo?q=1"));
            assert_eq!(seen.body, b"hello");
            assert_eq!(seen.sni.as_deref(), Some(API));
            assert!(seen.alpn.is_some(), "the negotiated protocol must be {alpn}: {seen:?}");
        }
        let name = &scene.agent(way).name;
        let mode = if way == Way::Transparent { "transparent" } else { "explicit" };
        let decision = scene.daemon.audit_until("the injection", |r| {
            r["event"] == "decision" && r["agent"] == **name && r["verdict"] == "inject"
        });
        assert_eq!(decision["mode"], mode, "{decision}");
        assert_eq!((&decision["method"], &decision["host"]), (&"POST".into(), &API.into()), "{decision}");
        assert_eq!((&decision["path"], &decision["secret"]), (&"/echo".into(), &"api".into()), "{decision}");
        let id = decision["request_id"].clone();
        let outcome =
            scene.daemon.audit_until("its outcome", |r| r["event"] == "outcome" && r["request_id"] == id);
        assert_eq!(outcome["status"], 200, "{outcome}");
        assert!(outcome["bytes_in"].is_u64() && outcome["bytes_out"].is_u64(), "{outcome}");
    }
}

#[test]
fn curl_uses_a_credential_over_ipv6() {
    if !need::bpf("everything") {
        return;
    }
    let scene = Scene::new();
    assert_eq!(scene.add_v6_secret().env.as_deref(), Some("API6_KEY"));
    let curl = client::curl(&scene.upstream.https_url(API_V6, "/echo"));
    let run = in_shell(&curl, r#"exec "$@" -H "Authorization: Bearer $API6_KEY""#);
    let outcome = scene.run(Way::Transparent, run);
    outcome.ok("curl -6");
    assert!(scene.injected_once(&format!("Bearer {VALUE}")).peer.is_ipv6());
}

#[test]
fn bodies_stream_both_ways() {
    let scene = Scene::new();
    let body = scene.daemon.home().dir().join("body");
    std::fs::write(&body, vec![b'b'; 4 << 20]).unwrap();
    let data = format!("@{}", body.display());
    for way in ways() {
        for flag in ["--http1.1", "--http2"] {
            let up = scene.run(way, curl_with_key(&scene.url("/upload"), &[flag, "--data-binary", &data]));
            assert_eq!(up.json("upload")["bytes"], 4 << 20, "{way:?} {flag}");
            let down = scene.run(way, curl_with_key(&scene.url("/bytes/4194304"), &[flag]));
            down.ok("download");
            assert_eq!(down.stdout.len(), 4 << 20, "{way:?} {flag}");
            let chunked = scene.run(way, curl_with_key(&scene.url("/chunked/100000"), &[flag]));
            assert_eq!(chunked.stdout.len(), 100_000, "{way:?} {flag}");
            let events = scene.run(way, curl_with_key(&scene.url("/sse?n=3&ms=10"), &[flag, "--no-buffer"]));
            assert_eq!(events.ok("sse").matches("data: event").count(), 3, "{way:?} {flag}");
        }
    }
}

/// Each script prints `STATUS VERSION` and then the body of the echo.
const PYTHON: &[(&str, &str)] = &[
    (
        "requests",
        r#"
import os, sys, requests
r = requests.post(sys.argv[1], headers={"Authorization": "Bearer " + os.environ["API_KEY"]}, data="hello", timeout=20)
print(r.status_code, "1.1"); print(r.text)
"#,
    ),
    (
        "httpx",
        r#"
import os, sys, httpx
for http2 in (False, True):
    with httpx.Client(http2=http2, timeout=20) as c:
        r = c.post(sys.argv[1], headers={"Authorization": "Bearer " + os.environ["API_KEY"]}, content="hello")
        print(r.status_code, r.http_version); print(r.text)
"#,
    ),
    (
        "aiohttp",
        r#"
import asyncio, os, sys, aiohttp
async def main():
    async with aiohttp.ClientSession(trust_env=True, timeout=aiohttp.ClientTimeout(total=20)) as s:
        async with s.post(sys.argv[1], headers={"Authorization": "Bearer " + os.environ["API_KEY"]}, data="hello") as r:
            print(r.status, "1.1"); print(await r.text())
asyncio.run(main())
"#,
    ),
];

#[test]
fn python_clients_use_a_credential() {
    if !need::python("everything") {
        return;
    }
    let python = client::python().unwrap();
    let scene = Scene::new();
    for way in ways() {
        for (name, script) in PYTHON {
            let run = Run::new(&python).args(["-c", script, &scene.url("/echo")]);
            let out = scene.run(way, run).ok(&format!("{name}, {way:?}"));
            let requests = scene.upstream.requests();
            scene.upstream.clear();
            assert_eq!(requests.len(), if *name == "httpx" { 2 } else { 1 }, "{name}, {way:?}: {out}");
            for seen in requests {
                let expected = format!("Bearer {VALUE}");
                assert_eq!(seen.header("authorization"), Some(expected.as_str()), "{name}, {way:?}");
                assert_eq!(seen.body, b"hello", "{name}, {way:?}");
            }
            if *name == "httpx" {
                assert!(out.contains("200 HTTP/1.1") && out.contains("200 HTTP/2"), "{way:?}: {out}");
            } else {
                assert!(out.starts_with("200 "), "{name}, {way:?}: {out}");
            }
        }
    }
}

/// Node's fetch ignores proxy variables, so only the transparent way can serve it.
#[test]
fn node_fetch_uses_a_credential() {
    if !need::bpf("everything") || !need::program("everything", "node", "nodejs") {
        return;
    }
    let script = r#"
        fetch(process.argv[1], { headers: { authorization: "Bearer " + process.env.API_KEY } })
            .then(async r => { console.log(r.status); console.log(await r.text()); })
            .catch(e => { console.error(e, e.cause); process.exit(1); });
    "#;
    let scene = Scene::new();
    let run = Run::new("node").args(["-e", script, &scene.url("/echo")]);
    let out = scene.run(Way::Transparent, run).ok("node");
    assert!(out.starts_with("200\n"), "{out}");
    scene.injected_once(&format!("Bearer {VALUE}"));
}

#[test]
fn git_clone_uses_a_credential() {
    let repo = git::Repo::new("deploy", VALUE);
    let scene = Scene::with(Upstream::builder(&[API]).git(repo).start(), &["--basic", "deploy"]);
    for way in ways() {
        let dir = scene.daemon.agent_dir(scene.agent(way)).join("clone");
        let _ = std::fs::remove_dir_all(&dir);
        let port = scene.upstream.https_addr().port();
        // A credential helper supplies the password: a URL cannot contain every placeholder unescaped.
        let script = format!(
            r#"exec git -c credential.helper='!f() {{ echo username=deploy; echo "password=$API_KEY"; }}; f' \
               clone --quiet "https://{API}:{port}/git/demo.git" "$1""#
        );
        let run = Run::new("sh").args(["-c", &script, "sh"]).arg(&dir).env("GIT_TERMINAL_PROMPT", "0");
        scene.run(way, run).ok(&format!("git clone, {way:?}"));
        assert_eq!(std::fs::read_to_string(dir.join(git::FILE)).unwrap(), git::CONTENT, "{way:?}");
        assert!(scene.upstream.request_count() >= 2, "{way:?}");
        scene.upstream.clear();
    }
}

#[test]
fn websocket_uses_a_credential() {
    if !need::python("everything") {
        return;
    }
    let script = r#"
import os, sys
from websockets.sync.client import connect
with connect(sys.argv[1], additional_headers={"Authorization": "Bearer " + os.environ["API_KEY"]}, open_timeout=20) as ws:
    for text in ("hello", "x" * 100000):
        ws.send(text)
        assert ws.recv(timeout=20) == text
    ws.send(b"\x00\xff")
    assert ws.recv(timeout=20) == b"\x00\xff"
print("echoed")
"#;
    let scene = Scene::new();
    for way in ways() {
        let url = scene.url("/ws").replace("https://", "wss://");
        let run = Run::new(client::python().unwrap()).args(["-c", script, &url]);
        assert_eq!(scene.run(way, run).ok(&format!("websockets, {way:?}")), "echoed\n");
        scene.injected_once(&format!("Bearer {VALUE}"));
    }
}
