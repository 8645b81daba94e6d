//! Values that are stored, rotated or fetched while a stream runs: the stream continues, and the values are masked in
//! it.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use onecli_tests::canary::Canary;
use onecli_tests::client::{Outcome, Running, curl, patient_curl};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::upstream::Upstream;
use onecli_tests::wait_for;
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::scene::{API, API_V6, Scene, VALUE, in_shell, plain_websocket};

const FIRST: &str = "first-8c1f0A94d7e2b6f35a";
const FURTHER: &str = "further-2b7E90c4f1d8a63e";
const ROTATED: &str = "rotated-d40a7C5e9b12f86c";
const OF_FILE: &str = "file-one-91e3F6a8c0d5b274";
const LATER_OF_FILE: &str = "file-two-5fA2b8c6d9e07134";
/// A stream ends within a second of the response to the command that revokes its permission.
const SOON: Duration = Duration::from_secs(1);

/// A stream of events that an agent reads.
struct Stream {
    running: Running,
    output: NamedTempFile,
}

impl Stream {
    /// Starts to read `path`, and returns when the first event has arrived.
    fn open(daemon: &Daemon, upstream: &Upstream, agent: &Agent, (path, args): (&str, &[&str])) -> Stream {
        let output = NamedTempFile::new().unwrap();
        let fetch = patient_curl(&upstream.https_url(API, path)).arg("--no-buffer").args(args);
        let run = in_shell(&fetch, &format!(r#"exec "$@" > {}"#, output.path().display()));
        let stream = Stream { running: daemon.explicit(&agent.token, run).start(), output };
        stream.wait_for("hello");
        stream
    }

    fn read(&self) -> String {
        std::fs::read_to_string(self.output.path()).unwrap()
    }

    /// Waits for an event with this text.
    fn wait_for(&self, text: &str) {
        let event = format!("data: {text}\n\n");
        let came = wait_for(Duration::from_secs(10), || self.read().contains(&event).then_some(()));
        assert!(came.is_some(), "no event '{text}' arrived: {}", self.read());
    }

    /// Checks that it ends within a second of `since`, in the middle of the body. Returns the bytes read.
    fn ends(self, since: Instant) -> String {
        let Stream { running, output } = self;
        let outcome: Outcome = running.finish();
        assert!(since.elapsed() < SOON, "it continued for {:?}", since.elapsed());
        assert!(outcome.code() != Some(0) && !outcome.timed_out, "{outcome:?}");
        std::fs::read_to_string(output.path()).unwrap()
    }
}

/// Makes the upstream send this text on every stream, without the daemon.
fn say(upstream: &Upstream, text: &str) {
    let resolve = format!("{API}:{}:127.0.0.1", upstream.https_addr().port());
    let run = curl(&upstream.https_url(API, "/say")).trusting(upstream.ca_file());
    run.args(["--resolve", &resolve, "--data-raw", text]).outcome().ok("say");
}

fn mask(value: &str) -> String {
    "*".repeat(value.len())
}

fn rotate(daemon: &Daemon, secret: &str, value: &str) {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(&file, value).unwrap();
    let path = file.path().to_str().unwrap();
    daemon.onecli(&["secret", "rotate", secret, "--value-file", path]).ok("rotate");
}

/// An agent without a grant that may read this path of the host.
fn reader(daemon: &Daemon, name: &str, port: u16, path: &str) -> Agent {
    let agent = daemon.add_agent(name, &["--factors", "token"]);
    let port = port.to_string();
    let rule = ["rule", "add", "allow", "--agent", name, "--host", API, "--port", &port, "--path", path];
    daemon.onecli(&rule).ok("rule add");
    agent
}

fn outcome_of(daemon: &Daemon, agent: &str) -> Value {
    daemon.audit_until("the stream's end", |r| r["event"] == "outcome" && r["agent"] == agent)
}

#[test]
fn values_stored_during_a_stream_are_masked() {
    let upstream = Upstream::start(&[API]);
    let daemon = Daemon::builder().upstream(&upstream).start();
    let port = upstream.https_addr().port();
    let host = format!("{API}:{port}");
    let user = daemon.add_agent("user", &["--factors", "token"]);
    let use_it = |path: &str| {
        daemon.explicit(&user.token, curl(&upstream.https_url(API, path))).outcome().ok("a request with it");
    };
    let names = ["http1", "http2"];
    let streams: Vec<Stream> = names
        .iter()
        .zip(["--http1.1", "--http2"])
        .map(|(name, version)| {
            Stream::open(&daemon, &upstream, &reader(&daemon, name, port, "/hear"), ("/hear", &[version]))
        })
        .collect();
    let masked = |value: &str| {
        say(&upstream, &format!("it is {value}!"));
        for stream in &streams {
            stream.wait_for(&format!("it is {}!", mask(value)));
        }
    };
    daemon.add_secret("first", FIRST, &["--host", &host, "--bearer"]);
    masked(FIRST);
    daemon.add_secret("further", FURTHER, &["--host", &host, "--bearer", "--path", "/bytes/1"]);
    let _ = daemon.grant(&user, "further");
    use_it("/bytes/1");
    masked(FURTHER);
    rotate(&daemon, "first", ROTATED);
    masked(ROTATED);
    // The upstream may have stored it.
    say(&upstream, &format!("it was {FIRST}"));
    for stream in &streams {
        stream.wait_for(&format!("it was {}", mask(FIRST)));
    }

    let file = daemon.home().dir().join("external");
    std::fs::write(&file, OF_FILE).unwrap();
    let path = file.display().to_string();
    let add = ["secret", "add", "file", "--host", &host, "--bearer", "--file", &path, "--path", "/bytes/2"];
    daemon.onecli(&add).ok("secret add");
    let _ = daemon.grant(&user, "file");
    for value in [OF_FILE, LATER_OF_FILE] {
        std::fs::write(&file, value).unwrap();
        use_it("/bytes/2");
        masked(value);
    }
    for (name, stream) in names.iter().zip(streams) {
        daemon.onecli(&["agent", "disable", name]).ok("disable");
        let read = stream.ends(Instant::now());
        for value in [FIRST, FURTHER, ROTATED, OF_FILE, LATER_OF_FILE] {
            Canary::new(value).assert_absent(name, read.as_bytes());
        }
        let ended = outcome_of(&daemon, name);
        assert_eq!((&ended["code"], &ended["scrub_hits"]), (&"revoked".into(), &6.into()), "{ended}");
    }
}

/// A rotation, and a grant of a secret that would now take precedence, revoke nothing. The ungrant does.
#[test]
fn injected_stream_continues_until_its_grant_is_revoked() {
    for version in ["--http1.1", "--http2"] {
        let scene = Scene::new();
        let (daemon, upstream) = (&scene.daemon, &scene.upstream);
        let key = format!("Authorization: Bearer {}", scene.outside_grant.placeholder);
        let args = [version, "-H", &key];
        let stream = Stream::open(daemon, upstream, &scene.outside, ("/hear", &args));
        scene.injected_once(&format!("Bearer {VALUE}"));
        let masked = |value: &str| {
            say(upstream, &format!("it is {value}!"));
            stream.wait_for(&format!("it is {}!", mask(value)));
        };
        rotate(daemon, "api", ROTATED);
        masked(ROTATED);
        masked(VALUE);
        let returned = |secret: &str| {
            let is_it = |r: &&Value| r["code"] == "secret_returned" && r["secret"] == secret;
            daemon.audit().iter().filter(is_it).count()
        };
        let host = format!("{API}:{}", upstream.https_addr().port());
        daemon.add_secret("narrow", FURTHER, &["--host", &host, "--bearer", "--path", "/hear"]);
        let _ = daemon.grant(&scene.outside, "narrow");
        masked(FURTHER);
        // An agent may send its own values. The other value was not part of the request.
        let alert = daemon.audit_until("the alert", |r| r["code"] == "secret_returned");
        assert_eq!((&alert["secret"], returned("api")), (&"narrow".into(), 0), "{alert}");
        daemon.onecli(&["ungrant", "outside", "api"]).ok("ungrant");
        let read = stream.ends(Instant::now());
        for value in [VALUE, ROTATED, FURTHER] {
            Canary::new(value).assert_absent(version, read.as_bytes());
        }
        let ended = outcome_of(daemon, "outside");
        assert_eq!((&ended["code"], &ended["scrub_hits"]), (&"revoked".into(), &3.into()), "{ended}");
    }
}

#[test]
fn values_stored_while_a_websocket_is_open_are_masked() {
    let upstream = Upstream::start(&[API, API_V6]);
    let daemon = Daemon::builder().upstream(&upstream).start();
    let port = upstream.http_addr().port();
    let host = format!("{API}:{port}");
    let agent = reader(&daemon, "reader", port, "/ws");
    let mut socket = plain_websocket(&daemon, &agent.token, &host);
    let mut echo = |text: &str| {
        let length = u8::try_from(text.len()).unwrap();
        // A masked text frame; the reply is unmasked (RFC 6455 section 5.2).
        socket.write_all(&[&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()).unwrap();
        let mut frame = vec![0; 2 + text.len()];
        socket.read_exact(&mut frame).unwrap();
        assert_eq!(frame[..2], [0x81, length]);
        String::from_utf8(frame.split_off(2)).unwrap()
    };
    assert_eq!(echo("hello"), "hello");
    daemon.add_secret("first", FIRST, &["--host", &host, "--bearer", "--allow-plaintext"]);
    assert_eq!(echo(FIRST), mask(FIRST));
    daemon.add_secret("further", FURTHER, &["--host", &host, "--bearer", "--path", "/n/*"]);
    assert_eq!(echo(FURTHER), mask(FURTHER));
    rotate(&daemon, "further", ROTATED);
    assert_eq!(echo(ROTATED), mask(ROTATED));
    assert_eq!(echo(FURTHER), mask(FURTHER), "the replaced value");
    daemon.onecli(&["agent", "disable", "reader"]).ok("disable");
    let ended = outcome_of(&daemon, "reader");
    assert_eq!((&ended["code"], &ended["scrub_hits"]), (&"revoked".into(), &4.into()), "{ended}");
}

/// An encoded stream that passes is not decoded from its middle on.
#[test]
fn unsearchable_stream_ends_when_a_secret_is_stored() {
    for (coding, version) in [("x-pack", "--http1.1"), ("gzip", "--http2")] {
        let upstream = Upstream::start(&[API]);
        let daemon = Daemon::builder().upstream(&upstream).start();
        let port = upstream.https_addr().port();
        let agent = reader(&daemon, "reader", port, "/hear");
        let path = format!("/hear?coding={coding}");
        let stream = Stream::open(&daemon, &upstream, &agent, (&path, &[version]));
        daemon.add_secret("else", FURTHER, &["--host", "else.test", "--bearer"]);
        say(&upstream, "another host's secret");
        stream.wait_for("another host's secret");
        daemon.add_secret("first", FIRST, &["--host", &format!("{API}:{port}"), "--bearer"]);
        // It is silent, and ends nevertheless.
        stream.ends(Instant::now());
        let ended = outcome_of(&daemon, "reader");
        assert_eq!((&ended["code"], &ended["status"]), (&"revoked".into(), &200.into()), "{ended}");
    }
}
