//! `approval watch` and `approval show`: waiting requests as they arrive and end, and their content.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use onecli_tests::bins;
use onecli_tests::client::{Running, curl};
use onecli_tests::daemon::Daemon;
use onecli_tests::upstream::Upstream;
use serde_json::Value;

use crate::scene::{API, API_V6, Scene, VALUE};

/// The time limit for a line to be printed.
const PATIENCE: Duration = Duration::from_secs(20);

/// `onecli approval watch`, read while it runs.
struct Watching {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Watching {
    fn start(daemon: &Daemon, json: bool) -> Watching {
        let mut command = Command::new(bins::path("onecli"));
        command.arg("--socket").arg(daemon.home().socket()).args(json.then_some("--json"));
        command.args(["approval", "watch"]).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = lines(child.stdout.take().unwrap());
        let errors = lines_of_errors(&mut child);
        Watching { child, lines, errors }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }

    fn event(&self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

fn lines_of_errors(child: &mut Child) -> Receiver<String> {
    lines(child.stderr.take().unwrap())
}

fn post(scene: &Scene, path: &str, args: &[&str]) -> Running {
    let header = format!("Authorization: Bearer {}", scene.outside_grant.placeholder);
    let run = curl(&scene.url(path)).args(["-H", &header]).args(args);
    scene.daemon.explicit(&scene.outside.token, run).start()
}

fn scene(timeout: &str) -> Scene {
    let builder = Daemon::builder().config(&format!("policy.approval_timeout = '{timeout}'"));
    let scene = Scene::of(builder, Upstream::start(&[API, API_V6]), &["--bearer"]);
    scene.daemon.onecli(&["rule", "add", "approve", "--port", "*", "--method", "POST"]).ok("rule");
    scene
}

#[test]
fn watch_prints_each_request_and_its_end() {
    let scene = scene("60s");
    let daemon = &scene.daemon;
    // A request that already waits is printed as well.
    let first = post(&scene, "/echo", &["--data", "1"]);
    onecli_tests::wait_for(PATIENCE, || {
        (daemon.onecli_json(&["approval", "list"]) != serde_json::json!([])).then_some(())
    });
    let (json, people) = (Watching::start(daemon, true), Watching::start(daemon, false));
    let waits = json.event();
    assert_eq!((&waits["event"], &waits["path"]), (&"waiting".into(), &"/echo".into()), "{waits}");
    assert_eq!(json.event(), serde_json::json!({"event": "ready"}));
    let id = waits["id"].as_str().unwrap();
    assert!(people.line().starts_with(&format!("{id} is pending, and is refused in ")));
    daemon.onecli(&["approval", "allow", id]).ok("allow");
    assert_eq!(json.event(), serde_json::json!({"event": "ended", "id": id, "outcome": "allowed", "uid": 0}));
    let outcome_line = people.line();
    assert!(
        outcome_line.starts_with(&format!("{id} is allowed by uid 0: agent 'outside', POST ")),
        "{outcome_line}"
    );
    assert_eq!(first.finish().reply().verdict(), 200);

    let ended = |running: Running, end: &dyn Fn(&str)| {
        let id = json.event()["id"].as_str().unwrap().to_owned();
        end(&id);
        let event = json.event();
        assert_eq!(event["id"], *id, "{event}");
        drop(running);
        event["outcome"].as_str().unwrap().to_owned()
    };
    let denied = ended(post(&scene, "/echo", &["--data", "2"]), &|id| {
        daemon.onecli(&["approval", "deny", id]).ok("deny");
    });
    assert_eq!(denied, "denied");
    let revoked = ended(post(&scene, "/echo", &["--data", "3"]), &|_| {
        daemon.onecli(&["ungrant", "outside", "api"]).ok("ungrant");
    });
    assert_eq!(revoked, "revoked");
    daemon.onecli(&["grant", "outside", "api"]).ok("grant");
    let gone = post(&scene, "/echo", &["--max-time", "2", "--data", "4"]);
    assert_eq!(ended(gone, &|_| {}), "withdrawn");
}

#[test]
fn unanswered_request_ends_as_timed_out() {
    let scene = scene("2s");
    let watching = Watching::start(&scene.daemon, true);
    assert_eq!(watching.event()["event"], "ready");
    let unanswered = post(&scene, "/echo", &["--data", "1"]);
    let id = watching.event()["id"].clone();
    let event = watching.event();
    assert_eq!((&event["id"], &event["outcome"]), (&id, &"timed_out".into()), "{event}");
    assert_eq!(unanswered.finish().reply().verdict(), 403);
}

#[test]
fn watch_survives_a_restart_of_the_daemon() {
    let mut scene = scene("60s");
    let watching = Watching::start(&scene.daemon, true);
    assert_eq!(watching.event()["event"], "ready");
    let held = post(&scene, "/echo", &["--data", "1"]);
    let id = watching.event()["id"].clone();
    scene.daemon.kill();
    let error = watching.errors.recv_timeout(PATIENCE).expect("a message");
    assert!(error.contains("lost the connection to the daemon"), "{error}");
    drop(held);
    scene.daemon.restart();
    let error = watching.errors.recv_timeout(PATIENCE).expect("a message");
    assert!(error.contains("reconnected"), "{error}");
    let event = watching.event();
    assert_eq!((&event["id"], &event["outcome"]), (&id, &"daemon_stopped".into()), "{event}");
    assert_eq!(watching.event()["event"], "ready");
    let next = post(&scene, "/echo", &["--data", "2"]);
    assert_eq!(watching.event()["event"], "waiting");
    drop(next);
    // `approval watch` fails without a daemon.
    drop(watching);
    scene.daemon.kill();
    let outcome = scene.daemon.onecli(&["approval", "watch"]);
    assert_eq!(outcome.code(), Some(3), "{outcome:?}");
}

#[test]
fn show_prints_the_whole_request_without_the_value() {
    let scene = scene("60s");
    let daemon = &scene.daemon;
    let watching = Watching::start(daemon, true);
    assert_eq!(watching.event()["event"], "ready");
    let next = || watching.event()["id"].as_str().unwrap().to_owned();

    let body = r#"{"amount":10,"note":"x"}"#;
    let options = ["--data", body, "-H", "content-type: application/json", "-H", "x-api-key: sk-of-my-own"];
    let held = post(&scene, "/transfer?to=7", &options);
    let id = next();
    let shown = daemon.onecli_json(&["approval", "show", &id]);
    let of = |name: &str| {
        let mut headers = shown["headers"].as_array().unwrap().iter();
        headers
            .find(|header| header["name"] == name)
            .map(|header| header["value"].as_str().unwrap().to_owned())
    };
    assert_eq!(of("content-type").as_deref(), Some("application/json"));
    assert_eq!(of("x-api-key").as_deref(), Some("[12 bytes]"));
    assert_eq!(of("authorization"), Some(format!("[7 bytes]{}", scene.outside_grant.placeholder)));
    assert_eq!((&shown["body"]["text"], &shown["body"]["bytes"]), (&body.into(), &24.into()), "{shown}");
    let text = daemon.onecli(&["approval", "show", &id]).ok("approval show");
    let line = |text: &str, line: &str| assert!(text.lines().any(|one| one == line), "{line}: {text}");
    line(&text, &format!("  | {body}"));
    line(&text, "  | x-api-key: [12 bytes]");
    for value in [VALUE, "sk-of-my-own"] {
        assert!(!text.contains(value) && !shown.to_string().contains(value), "{text}");
    }
    // The approval applies to this digest.
    daemon.onecli(&["approval", "allow", &id]).ok("allow");
    assert_eq!(held.finish().code(), Some(0));
    let record = daemon.audit_until("the answer", |record| record["code"] == "approval_allowed");
    assert_eq!(record["approval_digest"], shown["digest"], "{record}");
    assert_eq!(watching.event()["outcome"], "allowed");
    let gone = daemon.onecli(&["approval", "show", &id]);
    assert!(gone.code() == Some(1) && gone.err().contains(&id), "{gone:?}");

    // Text from an agent cannot control the terminal or imitate a line of the command.
    let evil = scene.daemon.home().dir().join("evil");
    let binary = "fine\nnext: onecli approval allow ffffffffff\r\u{1b}[2J\u{202e}";
    std::fs::write(&evil, binary).unwrap();
    let held = post(&scene, "/evil", &["--data-binary", &format!("@{}", evil.display())]);
    let text = daemon.onecli(&["approval", "show", &next()]).ok("approval show");
    assert!(text.contains(&format!("body: {} bytes, binary, SHA-256 ", binary.len())), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    drop(held);
    assert_eq!(watching.event()["outcome"], "withdrawn");
    std::fs::write(&evil, "fine\nnext: onecli approval allow ffffffffff\n\u{202e}digest  00").unwrap();
    let held = post(&scene, "/evil", &["--data-binary", &format!("@{}", evil.display())]);
    let text = daemon.onecli(&["approval", "show", &next()]).ok("approval show");
    line(&text, "  | next: onecli approval allow ffffffffff");
    line(&text, "  | \\u{202e}digest  00");
    drop(held);
    assert_eq!(watching.event()["outcome"], "withdrawn");

    // The digest does not cover a streamed body, and the command reports that.
    let held = post(&scene, "/stream", &["--data", "x", "-H", "transfer-encoding: chunked"]);
    let text = daemon.onecli(&["approval", "show", &next()]).ok("approval show");
    line(&text, "body: streams; it is not shown, and the digest does not cover it");
    drop(held);
}
