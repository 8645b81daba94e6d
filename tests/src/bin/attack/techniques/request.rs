//! Requests that two parsers read differently: host confusion, smuggling, contradicting names.
//!
//! `tests/system/hostile` sends more than 300 of them through every entry point; these rows show one of each kind.

use crate::stage::row::{Row, Trial};
use crate::stage::world::{A, B, VALUE, World, reply};

const CONTROL: &str = "the ordinary request is injected";

pub(crate) const ROWS: &[Row] = &[
    Row::new("request/host-mismatch", "the credential at another host", CONTROL, host_mismatch),
    Row::new("request/sni-mismatch", "the credential at another host", CONTROL, sni_mismatch),
    Row::new("request/userinfo-in-connect", "the credential at another host", CONTROL, userinfo),
    Row::new("request/smuggling", "a second request that policy did not judge", CONTROL, smuggling),
    Row::new("request/switch", "a connection whose requests policy does not judge", CONTROL, switch),
    Row::new("request/malformed", "a daemon that stops", CONTROL, malformed),
];

struct Scene {
    world: World,
    fields: String,
}

fn scene(trial: &mut Trial) -> Scene {
    let (world, granted) = World::with_key(&["--bearer", "--path", "/v1/**"], |_, conn| reply(conn, "ok"));
    // The other host is inspected too, so that the daemon could confuse a request to it with one to the first host.
    let _ = world.give("other", B, "anotherValue0123456789", &["--header", "X-Key: {secret}"]);
    let fields = format!("Authorization: Bearer {}\r\nConnection: close\r\n", granted.placeholder);
    let answer = world.get(A, "/v1/x", &fields);
    trial.control(CONTROL, answer.status == 200 && world.script.saw(VALUE));
    world.script.clear();
    Scene { world, fields }
}

impl Scene {
    /// Returns whether the credential arrived in a request to another host than its own.
    fn confused(&self) -> bool {
        let own = format!("host: {}", self.world.at(A));
        self.world
            .script
            .seen()
            .iter()
            .any(|seen| seen.has(VALUE) && !seen.head.to_lowercase().contains(&own))
    }

    fn head(&self, line: &str, host: &str, more: &str) -> Vec<u8> {
        format!("{line}\r\nHost: {host}\r\n{more}{}\r\n", self.fields).into_bytes()
    }
}

fn host_mismatch(trial: &mut Trial) {
    let scene = scene(trial);
    let (a, b) = (scene.world.at(A), scene.world.at(B));
    for (through, line, host, more) in [
        (A, "GET /v1/x HTTP/1.1".to_owned(), b.clone(), String::new()),
        (B, "GET /v1/x HTTP/1.1".to_owned(), a.clone(), String::new()),
        (A, format!("GET https://{b}/v1/x HTTP/1.1"), a.clone(), String::new()),
        (A, format!("GET https://{a}/v1/x HTTP/1.1"), b.clone(), String::new()),
        (A, "GET /v1/x HTTP/1.1".to_owned(), a.clone(), format!("Host: {b}\r\n")),
        (A, "GET /v1/x HTTP/1.1".to_owned(), format!("{a}@{b}"), String::new()),
        (A, "GET /v1/x HTTP/1.1".to_owned(), format!("{a},{b}"), String::new()),
    ] {
        scene.world.script.clear();
        let answer = scene.world.send(through, &scene.head(&line, &host, &more));
        trial.attempt(format!("{line}, Host {host} {more}: {}", answer.status), scene.confused());
    }
}

fn sni_mismatch(trial: &mut Trial) {
    let scene = scene(trial);
    for (connect, name, host) in [(A, B, A), (B, A, A), (A, B, B)] {
        scene.world.script.clear();
        let tunnel = scene.world.tunnel_named(connect, name);
        let request = scene.head("GET /v1/x HTTP/1.1", &scene.world.at(host), "");
        let status = tunnel.map(|mut tunnel| tunnel.ask(&request).status);
        let worked = !scene.world.script.seen().is_empty();
        trial.attempt(format!("CONNECT {connect}, SNI {name}, Host {host}: {status:?}"), worked);
    }
}

fn userinfo(trial: &mut Trial) {
    let scene = scene(trial);
    let (a, b) = (scene.world.at(A), scene.world.at(B));
    for target in [
        format!("{a}@{b}"),
        format!("{b}@{a}"),
        format!("{b}#{a}"),
        format!("{A}\\@{b}"),
        format!("{A}%40{b}"),
    ] {
        let request = format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Bearer {}\r\n\r\n",
            scene.world.agent.token
        );
        let answer = scene.world.raw_head(request.as_bytes());
        trial.attempt(format!("CONNECT {target}"), answer.starts_with(b"HTTP/1.1 200"));
    }
}

fn smuggling(trial: &mut Trial) {
    let scene = scene(trial);
    let inner = format!("GET /admin HTTP/1.1\r\nHost: {}\r\n\r\n", scene.world.at(A));
    let chunk = format!("0\r\n\r\n{inner}");
    for (what, fields, body) in [
        (
            "both lengths",
            format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", chunk.len()),
            chunk.clone(),
        ),
        ("two lengths", format!("Content-Length: 0\r\nContent-Length: {}\r\n", inner.len()), inner.clone()),
        ("a list of lengths", format!("Content-Length: 0, {}\r\n", inner.len()), inner.clone()),
        ("a folded field", "Transfer-Encoding:\r\n chunked\r\n".to_owned(), chunk.clone()),
        ("a space before the colon", "Transfer-Encoding : chunked\r\n".to_owned(), chunk.clone()),
        ("another coding", "Transfer-Encoding: xchunked\r\n".to_owned(), chunk.clone()),
        ("a bare line feed", "X-Note: 1\nTransfer-Encoding: chunked\r\n".to_owned(), chunk.clone()),
        ("a sign", "Content-Length: +0\r\n".to_owned(), inner.clone()),
        (
            "a chunk size with a bare line feed",
            "Transfer-Encoding: chunked\r\n".to_owned(),
            format!("1\nx\r\n{chunk}"),
        ),
    ] {
        scene.world.script.clear();
        let mut request = scene.head("POST /v1/x HTTP/1.1", &scene.world.at(A), &fields);
        request.extend(body.as_bytes());
        let answer = scene.world.send(A, &request);
        let seen = scene.world.script.seen();
        let second = seen.iter().any(|s| s.target() == "/admin" || s.head.contains("GET /admin"));
        trial.attempt(format!("{what}: {}", answer.status), second);
    }
}

/// After a switch of protocols, policy would not apply to later requests.
fn switch(trial: &mut Trial) {
    let scene = scene(trial);
    for (what, more) in [
        (
            "h2c",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        ),
        ("another protocol", "Connection: Upgrade\r\nUpgrade: x\r\n"),
        ("TLS", "Connection: Upgrade\r\nUpgrade: TLS/1.3\r\n"),
    ] {
        scene.world.script.clear();
        scene.world.send(A, &scene.head("GET /v1/x HTTP/1.1", &scene.world.at(A), more));
        let passed = scene.world.script.seen().iter().any(|s| s.head.to_lowercase().contains("upgrade:"));
        trial.attempt(what, passed);
    }
}

fn malformed(trial: &mut Trial) {
    let mut scene = scene(trial);
    let host = scene.world.at(A);
    let long = "a".repeat(70_000);
    for path in ["/%", "/%zz", "*", "http://b.test/", "/\u{e9}", &format!("/{long}"), "/\u{ff}\u{fe}", ""] {
        scene.world.send(A, &scene.head(&format!("GET {path} HTTP/1.1"), &host, ""));
    }
    for target in [
        "[::1]:443",
        "[::ffff:127.0.0.1]:80",
        "0x7f.1:80",
        "a..test:443",
        ":443",
        "a.test:99999",
        "a.test:-1",
    ] {
        scene.world.raw_head(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes());
    }
    for garbage in [&b"\0\0\0\0"[..], b"\x16\x03\x01\xff\xff", b"PRI * HTTP/2.0\r\n\r\n", b"\r\n\r\n\r\n"] {
        scene.world.raw_head(garbage);
    }
    let alive = scene.world.daemon.onecli(&["--json", "status"]).status.success();
    let panicked = scene.world.daemon.home().log().contains("panicked at");
    trial.attempt("the daemon stopped", !alive);
    trial.attempt("a task panicked", panicked);
    scene.world.daemon.assert_healthy();
}
