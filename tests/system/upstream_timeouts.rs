//! Upstreams that keep an agent waiting: each wait has a time limit, a message and a record. Active streams may take
//! long.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::socket::{Backlog, listen};
use onecli_tests::client::{Reply, Run, curl};
use onecli_tests::daemon::Daemon;
use onecli_tests::upstream::Upstream;
use serde_json::Value;

use crate::scene::{API, API_V6, Scene, VALUE, Way, curl_with_key};

/// Every time limit. Events here happen either at once or never.
const LIMIT: Duration = Duration::from_secs(1);
/// The time limit for the daemon to notice on a busy machine.
const SOON: Duration = Duration::from_secs(8);
const CONFIG: &str = "[upstream]\nconnect_timeout = \"1s\"\nhead_timeout = \"1s\"\nidle_timeout = \"1s\"\n";

fn scene() -> Scene {
    Scene::of(Daemon::builder().config(CONFIG), Upstream::start(&[API, API_V6]), &["--bearer"])
}

/// Checks the 504 of an upstream that timed out, in the response and the audit log. Returns the message.
fn assert_timeout_error(daemon: &Daemon, what: &str, event: &str, reply: &Reply, took: Duration) -> String {
    assert_eq!(reply.verdict(), 504, "{what}: {reply:?}");
    assert!(took >= LIMIT && took < SOON, "{what}: {took:?}");
    assert_eq!(reply.header("x-onecli-error"), Some("upstream_timeout"), "{what}: {reply:?}");
    let failure = &reply.json()["error"];
    assert!(failure["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{what}: {failure}");
    let id = &failure["request_id"];
    let record = daemon.audit_until(what, |r| r["request_id"] == *id && r["event"] == event);
    assert_eq!((&record["code"], &record["status"]), (&"upstream_timeout".into(), &504.into()), "{record}");
    failure["message"].as_str().unwrap().to_owned()
}

#[test]
fn response_that_never_begins_times_out() {
    let scene = scene();
    for version in ["--http1.1", "--http2"] {
        let started = Instant::now();
        let reply = scene.run(Way::Explicit, curl_with_key(&scene.url("/slow/60000"), &[version])).reply();
        let message = assert_timeout_error(&scene.daemon, version, "outcome", &reply, started.elapsed());
        assert!(message.contains("within 1s"), "{message}");
        let hint = reply.json()["error"]["hint"].to_string();
        assert!(hint.contains("head_timeout"), "{hint}");
        // The credential had been sent: that is recorded too.
        let id = reply.json()["error"]["request_id"].clone();
        let of_request = |r: &Value| r["request_id"] == id && r["event"] == "decision";
        let decision = scene.daemon.audit_until("the decision", of_request);
        assert_eq!(decision["verdict"], "inject", "{decision}");
    }
}

#[test]
fn response_that_stalls_in_the_middle_times_out() {
    let scene = scene();
    for version in ["--http1.1", "--http2"] {
        let started = Instant::now();
        let url = scene.url("/sse?n=2&ms=60000");
        let outcome = scene.run(Way::Explicit, curl_with_key(&url, &["--no-buffer", version]));
        assert!(started.elapsed() >= LIMIT && started.elapsed() < SOON, "{version}: {outcome:?}");
        // Truncated, and not presented as complete.
        assert!(outcome.code() != Some(0) && !outcome.timed_out, "{version}: {outcome:?}");
        assert!(outcome.out().contains("data: event 0"), "{version}: {outcome:?}");
        let record = scene.daemon.audit_until(version, |r| r["event"] == "outcome");
        assert_eq!(
            (&record["code"], &record["status"]),
            (&"upstream_timeout".into(), &200.into()),
            "{record}"
        );
        assert!(record["bytes_out"].as_u64() > Some(0), "{record}");
    }
}

/// Streams that make progress, in either direction, outlive every time limit.
#[test]
fn active_streams_outlive_every_time_limit() {
    let scene = scene();
    for version in ["--http1.1", "--http2"] {
        let started = Instant::now();
        let url = scene.url("/sse?n=6&ms=500");
        let reply = scene.run(Way::Explicit, curl_with_key(&url, &["--no-buffer", version])).reply();
        assert_eq!((reply.verdict(), reply.exit), (200, Some(0)), "{version}: {reply:?}");
        assert!(reply.text().contains("data: event 5"), "{version}: {reply:?}");
        assert!(started.elapsed() > 2 * LIMIT, "{version}: {:?}", started.elapsed());

        // With and without a Content-Length.
        for upload in [&["--data-binary", "@-"][..], &["--upload-file", "-", "--request", "POST"]] {
            let started = Instant::now();
            let curl = curl(&scene.url("/upload")).args(["--limit-rate", "100k", version]).args(upload);
            let send = r#"head -c 300000 /dev/zero | "$@" -H "Authorization: Bearer $API_KEY""#;
            let run = Run::new("sh").args(["-c", send, "sh"]).arg(curl.program()).args(curl.arguments());
            let reply = scene.run(Way::Explicit, run).reply();
            assert_eq!(reply.verdict(), 200, "{version} {upload:?}: {reply:?}");
            assert_eq!(reply.json()["bytes"], 300_000, "{version} {upload:?}");
            assert!(started.elapsed() > 2 * LIMIT, "{version} {upload:?}: {:?}", started.elapsed());
        }
    }
}

/// One that accepts no connection, and one that accepts it without a TLS handshake.
#[test]
fn unreachable_upstream_times_out() {
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    listen(&full, Backlog::new(0).unwrap()).unwrap();
    let full_address = full.local_addr().unwrap();
    // Unaccepted connections fill its queue, so further ones get no reply.
    let connect = || TcpStream::connect_timeout(&full_address, Duration::from_millis(300));
    let waiting: Vec<_> = std::iter::from_fn(|| connect().ok()).take(64).collect();
    assert!(waiting.len() < 64, "the queue never fills");
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();

    let upstream = Upstream::start(&[API]);
    let daemon = Daemon::builder().upstream(&upstream).config(CONFIG).start();
    let agent = daemon.add_agent("outside", &["--factors", "token"]);
    let check = |name: &str, address: SocketAddr, words: &str| {
        let host = format!("{API}:{}", address.port());
        daemon.add_secret(name, VALUE, &["--host", &host, "--bearer"]);
        let _ = daemon.grant(&agent, name);
        let started = Instant::now();
        let reply = daemon.explicit(&agent.token, curl(&format!("https://{host}/"))).outcome().reply();
        let message = assert_timeout_error(&daemon, name, "decision", &reply, started.elapsed());
        assert!(message.contains(words), "{name}: {message}");
    };
    check("full", full_address, "connecting");
    check("mute", mute.local_addr().unwrap(), "handshake");
}
