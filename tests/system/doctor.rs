//! `onecli doctor`: what is wrong is told with what to do about it, with the daemon up and down.

use onecli_tests::client::Run;
use onecli_tests::daemon::Daemon;
use onecli_tests::{bins, need};
use serde_json::Value;

use crate::scene::Scene;

/// The checks by name, and the exit code.
pub(crate) fn doctor(daemon: &Daemon, wrapper: &[&str]) -> (Vec<Value>, Option<i32>) {
    let command = format!(
        "exec {} --json --socket {} doctor --config {}",
        bins::path("onecli").display(),
        daemon.home().dir().join("admin.sock").display(),
        daemon.home().config_file().display(),
    );
    let run = match wrapper {
        [] => Run::new("sh").args(["-c", &command]),
        [program, arguments @ ..] => Run::new(program).args(arguments).arg(&command),
    };
    let outcome = run.outcome();
    let checks =
        serde_json::from_str::<Vec<Value>>(&outcome.out()).unwrap_or_else(|e| panic!("{e}: {outcome:?}"));
    for check in &checks {
        assert!(check["name"].is_string() && check["detail"].is_string(), "{check}");
        assert_eq!(check["fix"].is_null(), check["status"] == "ok", "{check}");
    }
    (checks, outcome.code())
}

/// Names of the checks that are `status`.
fn named<'c>(checks: &'c [Value], status: &str) -> Vec<&'c str> {
    let alike = checks.iter().filter(|check| check["status"] == status);
    alike.map(|check| check["name"].as_str().unwrap()).collect()
}

#[test]
fn doctor_sees_what_is_wrong_with_the_daemon_up_and_down() {
    if !need::bpf("everything") {
        return;
    }
    let mut scene = Scene::new();
    let (checks, code) = doctor(&scene.daemon, &[]);
    assert_eq!((named(&checks, "fail"), code), (vec![], Some(0)), "{checks:#?}");
    for name in ["daemon", "redirect", "store", "audit log", "kernel", "agents root", "program connect4"] {
        assert!(named(&checks, "ok").contains(&name), "{name}: {checks:#?}");
    }
    let text = scene.daemon.onecli(&["doctor"]).ok("doctor");
    assert!(text.lines().any(|line| line.starts_with("OK    program connect4")), "{text}");

    // Down, the programs are attached all the same.
    scene.daemon.kill();
    let (checks, code) = doctor(&scene.daemon, &[]);
    assert_eq!((named(&checks, "fail"), code), (vec!["daemon"], Some(1)), "{checks:#?}");
    assert!(named(&checks, "ok").contains(&"program connect4"), "{checks:#?}");
    // And detached, they are not.
    let _ = scene.daemon.home().daemon(&["--detach"]).outcome().ok("--detach");
    let (checks, _) = doctor(&scene.daemon, &[]);
    assert!(named(&checks, "fail").contains(&"program egress"), "{checks:#?}");
    scene.daemon.restart();
    let (checks, code) = doctor(&scene.daemon, &[]);
    assert_eq!((named(&checks, "fail"), code), (vec![], Some(0)), "{checks:#?}");

    // No cgroup2 where this process looks.
    let (checks, code) =
        doctor(&scene.daemon, &["unshare", "-m", "sh", "-c", "umount -R /sys/fs/cgroup; eval \"$0\""]);
    assert_eq!((named(&checks, "fail"), code), (vec!["cgroup2"], Some(1)), "{checks:#?}");

    // Not root: it says so, and fails nothing that it cannot see.
    let (checks, code) = doctor(&scene.daemon, &["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c"]);
    assert_eq!(code, Some(0), "{checks:#?}");
    assert!(named(&checks, "warn").contains(&"capabilities"), "{checks:#?}");
    assert!(named(&checks, "warn").contains(&"daemon"), "{checks:#?}");
}
