//! Placeholders in an agent's data: bodies, trailers and WebSocket messages are searched, forwarded, and raise alerts.

use std::io::{Read, Write};
use std::time::Duration;

use onecli_tests::client::curl;
use onecli_tests::daemon::Daemon;
use onecli_tests::socket::Socket;
use onecli_tests::upstream::Upstream;
use serde_json::Value;

use crate::scene::{API, API_V6, Scene, Way, curl_with_key, read_head};

/// The alert about a request with this path.
fn alert(scene: &Scene, path: &str) -> Value {
    scene.daemon.audit_until(path, |record| record["event"] == "alert" && record["path"] == path)
}

/// Lets the agent send requests with this path to the upstream's plain port, which has no secret. The daemon inspects
/// them.
fn allow(scene: &Scene, path: &str) {
    let port = scene.upstream.http_addr().port().to_string();
    let rule = ["rule", "add", "allow", "--agent", "outside", "--host", API, "--port", &port, "--path", path];
    let _ = scene.daemon.onecli(&rule).ok("rule add");
}

/// The number of alerts so far, including folded ones.
fn alerts(scene: &Scene) -> u64 {
    let records = scene.daemon.audit();
    let alerts = records.iter().filter(|record| record["event"] == "alert");
    alerts.map(|record| record["count"].as_u64().unwrap_or(1)).sum()
}

#[test]
fn placeholder_in_a_body_is_forwarded_with_an_alert() {
    let scene = Scene::new();
    let port = scene.upstream.https_addr().port();
    // Inspected, because the agent has a secret for this host, which the placeholder is not for.
    let host = format!("{API_V6}:{port}");
    scene.daemon.add_secret(
        "other",
        "sk-another-value-0123",
        &["--host", &host, "--header", "x-k: {secret}"],
    );
    let _ = scene.daemon.grant(&scene.outside, "other");
    let (own, foreign) = (&scene.outside_grant.placeholder, &scene.inside_grant.placeholder);
    let cut = format!("{}{own}{}", "x".repeat(16_370), "y".repeat(20_000));
    let chunked = ["-H", "Transfer-Encoding: chunked"];
    let cases: [(&str, String, &str, &[&str]); 6] = [
        ("plain", own.clone(), "placeholder_misplaced", &[]),
        (
            "json",
            format!(r#"{{"key":"{own}"}}"#),
            "placeholder_misplaced",
            &["-H", "Content-Type: application/json"],
        ),
        ("cut", cut.clone(), "placeholder_misplaced", &[]),
        ("chunked", cut, "placeholder_misplaced", &chunked),
        ("foreign", format!("k={foreign}"), "placeholder_foreign", &[]),
        ("both", format!("{own}{foreign}"), "placeholder_misplaced", &[]),
    ];
    for version in ["--http1.1", "--http2"] {
        for (what, body, code, args) in &cases {
            scene.upstream.clear();
            let path = format!("/echo/{what}{version}");
            let file = scene.daemon.home().dir().join("body");
            std::fs::write(&file, body).unwrap();
            let data = format!("@{}", file.display());
            let run =
                curl(&format!("https://{host}{path}")).args([version, "--data-binary", &data]).args(*args);
            let reply = scene.daemon.explicit(&scene.outside.token, run).outcome().reply();
            assert_eq!(reply.verdict(), 200, "{path}: {reply:?}");
            assert_eq!(
                scene.upstream.only_request().body,
                body.as_bytes(),
                "{path}: bodies are forwarded unchanged"
            );
            let record = alert(&scene, &path);
            let codes: Vec<_> = scene
                .daemon
                .audit()
                .iter()
                .filter(|r| r["path"] == path.as_str() && r["event"] == "alert")
                .map(|r| r["code"].clone())
                .collect();
            assert!(codes.iter().any(|found| found == code), "{path}: {codes:?}");
            assert_eq!(
                (&record["verdict"], &record["agent"], &record["host"]),
                (&"inject".into(), &"outside".into(), &API_V6.into()),
                "{record}"
            );
        }
    }
}

#[test]
fn own_or_invalid_placeholder_raises_no_alert() {
    let scene = Scene::new();
    let own = &scene.outside_grant.placeholder;
    let unknown = format!("onecli_ph_{}", "a".repeat(32));
    for (what, body) in [("its own host", own.as_str()), ("no agent's", &unknown), ("a part", &own[..41])] {
        let run = curl_with_key(&scene.url("/echo"), &["--data", body]);
        let reply = scene.run(Way::Explicit, run).reply();
        assert_eq!(reply.verdict(), 200, "{what}: {reply:?}");
    }
    let _ = scene.daemon.audit_until("the last outcome", |record| record["event"] == "outcome");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(alerts(&scene), 0, "{:#?}", scene.daemon.audit());
}

/// In base64, in hex, below three layers of percent-encoding, as the name of a header field: all are forwarded, with an
/// alert.
#[test]
fn disguised_placeholder_is_forwarded_with_an_alert() {
    let scene = Scene::new();
    allow(&scene, "/echo/**");
    let port = scene.upstream.http_addr().port();
    let own = &scene.outside_grant.placeholder;
    let base64 = data_encoding::BASE64.encode(format!("user:{own}").as_bytes());
    let thrice = own.bytes().fold(String::new(), |all, byte| format!("{all}%2525{byte:02x}"));
    let hex = data_encoding::HEXLOWER.encode(own.as_bytes());
    let json = format!(r#"{{"note":"{base64}"}}"#);
    let cases: [(&str, String, Vec<String>); 8] = [
        ("name", String::new(), vec!["-H".into(), format!("{own}: x")]),
        ("header", String::new(), vec!["-H".into(), format!("X-Any: {base64}")]),
        ("cookie", String::new(), vec!["-H".into(), format!("Cookie: a={base64}")]),
        ("query", format!("?a={}", base64.replace('=', "%3D")), Vec::new()),
        ("thrice", format!("?a={thrice}"), Vec::new()),
        ("body", String::new(), vec!["--data".into(), json]),
        ("body-hex", String::new(), vec!["--data".into(), hex]),
        ("body-thrice", String::new(), vec!["--data".into(), format!("a={thrice}")]),
    ];
    for (what, query, args) in &cases {
        scene.upstream.clear();
        let path = format!("/echo/{what}");
        let run = curl(&format!("http://{API}:{port}{path}{query}")).args(args);
        let reply = scene.daemon.explicit(&scene.outside.token, run).outcome().reply();
        assert_eq!(reply.verdict(), 200, "{path}: {reply:?}");
        let record = alert(&scene, &path);
        assert_eq!(record["code"], "placeholder_misplaced", "{record}");
    }
    // At its own host none of them is suspicious.
    let before = alerts(&scene);
    for args in [["-H", &format!("X-Any: {base64}")], ["--data", &base64]] {
        let reply = scene.run(Way::Explicit, curl_with_key(&scene.url("/echo"), &args)).reply();
        assert_eq!(reply.verdict(), 200, "{args:?}: {reply:?}");
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(alerts(&scene), before, "{:#?}", scene.daemon.audit());
}

/// Any number of placeholders, also within one body.
#[test]
fn alerts_about_bodies_are_folded() {
    let daemon = Daemon::builder().config("[audit]\nfold_refusals = true");
    let scene = Scene::of(daemon, Upstream::start(&[API, API_V6]), &["--bearer"]);
    let port = scene.upstream.http_addr().port();
    allow(&scene, "/echo");
    let body = scene.inside_grant.placeholder.repeat(1000);
    let url = format!("http://{API}:{port}/echo?[1-40]");
    let file = scene.daemon.home().dir().join("body");
    std::fs::write(&file, body).unwrap();
    let run = curl(&url).args(["--data-binary", &format!("@{}", file.display()), "--output", "/dev/null"]);
    scene.daemon.explicit(&scene.outside.token, run).outcome().ok("forty requests");
    let _ = alert(&scene, "/echo");
    std::thread::sleep(Duration::from_millis(500));
    let records = scene.daemon.audit().iter().filter(|record| record["event"] == "alert").count();
    assert!(records <= 2, "{records} alerts are recorded instead of one in ten seconds");
}

/// A WebSocket in plain text through a CONNECT, after its 101.
fn websocket(scene: &Scene) -> Socket {
    let authority = format!("{API}:{}", scene.upstream.http_addr().port());
    let mut stream = Socket::connect(scene.daemon.explicit_addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let token = &scene.outside.token;
    write!(
        stream,
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nProxy-Authorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200"));
    write!(
        stream,
        "GET /ws HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}

/// A client's frame, masked (RFC 6455 section 5.3).
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap()];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

#[test]
fn placeholder_in_a_websocket_message_is_forwarded_with_an_alert() {
    let scene = Scene::new();
    allow(&scene, "/ws");
    let own = scene.outside_grant.placeholder.as_bytes();
    let (start, rest) = own.split_at(17);
    let whole = masked(0x81, own);
    // In two frames of one message, with a ping between.
    let parts = [masked(0x01, start), masked(0x89, b"ping"), masked(0x80, rest)].concat();
    // In two messages: this is not a placeholder.
    let apart = [masked(0x81, start), masked(0x81, rest)].concat();
    for (what, frames, expected) in [("apart", apart, 0), ("whole", whole, 1), ("parts", parts, 2)] {
        let mut stream = websocket(&scene);
        for byte in frames.chunks(5) {
            stream.write_all(byte).unwrap();
            stream.flush().unwrap();
        }
        let mut echoed: Vec<u8> = Vec::new();
        let wanted: &[u8] = if expected == 0 { start } else { own };
        while !echoed.windows(wanted.len()).any(|window| window == wanted) {
            let mut some = [0; 256];
            let length = stream.read(&mut some).unwrap();
            assert!(length > 0, "{what}: the message is forwarded");
            echoed.extend(&some[..length]);
        }
        drop(stream);
        if expected == 1 {
            let record = alert(&scene, "/ws");
            assert_eq!(record["code"], "placeholder_misplaced", "{record}");
        }
        let count = onecli_tests::wait_for(Duration::from_secs(15), || {
            (alerts(&scene) >= expected).then(|| alerts(&scene))
        });
        assert_eq!(count, Some(expected), "{what}");
    }
}
