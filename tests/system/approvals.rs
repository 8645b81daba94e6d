//! Operator approval: requested, granted, denied, too late.

use std::time::Duration;

use onecli_tests::client::{Outcome, Running, curl};
use onecli_tests::daemon::Daemon;
use onecli_tests::wait_for;
use serde_json::Value;

use crate::scene::{Scene, VALUE};

/// The only waiting request.
fn waiting(daemon: &Daemon) -> Value {
    let found = wait_for(Duration::from_secs(10), || {
        let list = daemon.onecli_json(&["approval", "list"]);
        list.as_array().filter(|list| list.len() == 1).map(|list| list[0].clone())
    });
    found.expect("a request waits")
}

pub(crate) fn assert_no_pending_approval(daemon: &Daemon) {
    let none = wait_for(Duration::from_secs(5), || {
        (daemon.onecli_json(&["approval", "list"]) == serde_json::json!([])).then_some(())
    });
    assert!(none.is_some(), "no request waits");
}

#[test]
fn approval_is_allowed_or_denied_by_the_operator() {
    let scene = Scene::new();
    let daemon = &scene.daemon;
    let rule =
        daemon.onecli_json(&["rule", "add", "approve", "--port", "*", "--method", "POST"])["id"].to_string();
    let post = || {
        let run = curl(&scene.url("/echo?x=1")).args(["--data", "hello"]);
        daemon.explicit(&scene.outside.token, run).start()
    };
    let answer = |running: Running, answer: &str| -> (Outcome, Value) {
        let asked = waiting(daemon);
        assert_eq!(scene.upstream.request_count(), 0, "no request is sent before the approval");
        daemon.onecli(&["approval", answer, asked["id"].as_str().unwrap()]).ok(answer);
        (running.finish(), asked)
    };
    let get = daemon.explicit(&scene.outside.token, curl(&scene.url("/echo"))).outcome().reply();
    assert_eq!(get.verdict(), 200, "{get:?}");
    scene.upstream.clear();

    let (allowed, asked) = answer(post(), "allow");
    assert_eq!(allowed.reply().verdict(), 200, "{allowed:?}");
    let seen = scene.injected_once(&format!("Bearer {VALUE}"));
    assert_eq!(seen.method, "POST");
    let shown = ["agent", "method", "path", "query", "secrets"].map(|field| asked[field].to_string());
    assert_eq!(shown, [r#""outside""#, r#""POST""#, r#""/echo""#, r#""x=1""#, r#"["api"]"#]);
    assert_eq!(asked["digest"].as_str().map(str::len), Some(64));
    assert_eq!((seen.body.as_slice(), &asked["body_bytes"]), (&b"hello"[..], &5.into()));
    let id = asked["id"].as_str().unwrap();
    let steps: Vec<Value> = daemon.audit().into_iter().filter(|r| r["approval"] == id).collect();
    let event_codes: Vec<String> = steps
        .iter()
        .map(|r| format!("{} {}", r["event"].as_str().unwrap(), r["code"].as_str().unwrap_or("-")))
        .collect();
    let expected = ["approval approval_requested", "approval approval_allowed", "decision -"];
    assert_eq!(event_codes[..3], expected, "{steps:#?}");
    assert_eq!(steps[1]["approval_uid"], nix::unistd::geteuid().as_raw(), "{steps:#?}");
    assert_eq!(steps[1]["approval_digest"], asked["digest"]);

    let (denied, _) = answer(post(), "deny");
    let reply = denied.reply();
    assert_eq!(
        (reply.verdict(), reply.header("x-onecli-error")),
        (403, Some("approval_denied")),
        "{reply:?}"
    );
    let record =
        daemon.audit_until("the denial", |r| r["event"] == "decision" && r["code"] == "approval_denied");
    assert_eq!(record["rule"], format!("approve {rule}"), "{record}");

    // The approval applies to this body, if the body fits into memory.
    let digest = |body: &[&str]| {
        let run = curl(&scene.url("/upload?x=1")).args(body).args(["-H", "content-type: text/plain"]);
        let (done, asked) = answer(daemon.explicit(&scene.outside.token, run).start(), "allow");
        let sent = done.reply().json()["bytes"].as_u64();
        scene.upstream.clear();
        (asked["digest"].as_str().unwrap().to_owned(), asked["body_bytes"].as_u64(), sent)
    };
    let [one, again, other] = ["amount=10", "amount=10", "amount=99"].map(|body| digest(&["--data", body]));
    assert_eq!((&one, one.1, one.2), (&again, Some(9), Some(9)));
    assert!(one.0 != other.0 && other.1 == Some(9), "{one:?} {other:?}");
    let chunked = digest(&["--data", "amount=10", "-H", "transfer-encoding: chunked"]);
    assert_eq!((chunked.1, chunked.2), (None, Some(9)));
    let large = "x".repeat(64 * 1024 + 1);
    let large = digest(&["--data", &large]);
    assert_eq!((large.1, large.2), (None, Some(64 * 1024 + 1)));

    // The daemon stops waiting for a client that disconnects.
    let held = post();
    let asked = waiting(daemon);
    drop(held);
    assert_no_pending_approval(daemon);
    let late = daemon.onecli(&["approval", "allow", asked["id"].as_str().unwrap()]);
    assert_eq!(late.code(), Some(1), "{late:?}");

    // The policy at the time of the approval decides, whatever the operator answers.
    let held = post();
    let asked = waiting(daemon);
    daemon.onecli(&["ungrant", "outside", "api"]).ok("ungrant");
    let reply = held.finish().reply();
    assert_eq!(reply.verdict(), 403, "{reply:?}");
    let late = daemon.onecli(&["approval", "allow", asked["id"].as_str().unwrap()]);
    assert_eq!(late.code(), Some(1), "{late:?}");
    assert_eq!(scene.upstream.request_count(), 0);
}
