//! `onecli doctor` reports each problem with its fix, whether or not the daemon runs.

use onecli_tests::client::Run;
use onecli_tests::daemon::Daemon;
use onecli_tests::{bins, need};
use serde_json::Value;

use crate::scene::Scene;

/// The checks without a self-test, which would be recorded.
pub(crate) fn look(daemon: &Daemon) -> Vec<Value> {
    ask(daemon, &[], "--no-self-test").0
}

/// The checks by name, and the exit code.
fn doctor(daemon: &Daemon, wrapper: &[&str]) -> (Vec<Value>, Option<i32>) {
    ask(daemon, wrapper, "")
}

fn ask(daemon: &Daemon, wrapper: &[&str], option: &str) -> (Vec<Value>, Option<i32>) {
    let command = format!(
        "exec {} --json --socket {} doctor {option} --config {}",
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

/// The names of the checks with this status.
fn named<'c>(checks: &'c [Value], status: &str) -> Vec<&'c str> {
    let alike = checks.iter().filter(|check| check["status"] == status);
    alike.map(|check| check["name"].as_str().unwrap()).collect()
}

#[test]
fn doctor_reports_problems_with_the_daemon_up_and_down() {
    if !need::bpf("everything") {
        return;
    }
    let mut scene = Scene::new();
    let (checks, code) = doctor(&scene.daemon, &[]);
    assert_eq!((named(&checks, "fail"), code), (vec![], Some(0)), "{checks:#?}");
    for name in [
        "daemon",
        "redirect",
        "store",
        "audit log",
        "CA",
        "kernel",
        "agents root",
        "program connect4",
        "CA bundle",
        "agent clients",
        "self-test explicit",
        "self-test TLS",
        "self-test transparent",
    ] {
        assert!(named(&checks, "ok").contains(&name), "{name}: {checks:#?}");
    }
    assert!(checks.iter().any(|check| check["name"] == "clock"), "{checks:#?}");
    let text = scene.daemon.onecli(&["doctor"]).ok("doctor");
    assert!(text.lines().any(|line| line.starts_with("OK    program connect4")), "{text}");

    // The daemon is down, and the programs are still attached.
    scene.daemon.kill();
    let (checks, code) = doctor(&scene.daemon, &[]);
    assert_eq!((named(&checks, "fail"), code), (vec!["daemon"], Some(1)), "{checks:#?}");
    assert!(named(&checks, "ok").contains(&"program connect4"), "{checks:#?}");
    // After `--detach` they are not.
    let _ = scene.daemon.home().daemon(&["--detach"]).outcome().ok("--detach");
    let (checks, _) = doctor(&scene.daemon, &[]);
    assert!(named(&checks, "fail").contains(&"program egress"), "{checks:#?}");
    scene.daemon.restart();
    let (checks, code) = doctor(&scene.daemon, &[]);
    assert_eq!((named(&checks, "fail"), code), (vec![], Some(0)), "{checks:#?}");

    // This process sees no cgroup2.
    let (checks, code) =
        doctor(&scene.daemon, &["unshare", "-m", "sh", "-c", "umount -R /sys/fs/cgroup; eval \"$0\""]);
    let missing = vec!["cgroup2", "self-test transparent"];
    assert_eq!((named(&checks, "fail"), code), (missing, Some(1)), "{checks:#?}");

    // Without root it reports that, and does not fail for what it cannot check.
    let (checks, code) = doctor(&scene.daemon, &["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c"]);
    assert_eq!(code, Some(0), "{checks:#?}");
    assert!(named(&checks, "warn").contains(&"capabilities"), "{checks:#?}");
    assert!(named(&checks, "warn").contains(&"daemon"), "{checks:#?}");
}

/// The self-test sends a credential both ways and leaves nothing behind. Obstacles are reported.
#[test]
fn self_test_is_end_to_end_and_leaves_nothing() {
    if !need::bpf("everything") {
        return;
    }
    let scene = Scene::new();
    let daemon = &scene.daemon;
    let stands = || ["agent", "secret", "rule"].map(|what| daemon.onecli_json(&[what, "list"]));
    let cgroups = || {
        let root = daemon.home().agents_root().unwrap();
        let entries = std::fs::read_dir(root).unwrap().flatten();
        entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name()).collect::<Vec<_>>()
    };
    let before = (stands(), cgroups());
    let self_tests = |checks: &[Value], status: &str| -> Vec<String> {
        let names = named(checks, status).into_iter().filter(|name| name.starts_with("self-test"));
        names.map(str::to_owned).collect()
    };
    let (checks, code) = doctor(daemon, &[]);
    assert_eq!(code, Some(0), "{checks:#?}");
    assert_eq!(
        self_tests(&checks, "ok"),
        ["self-test explicit", "self-test TLS", "self-test transparent"],
        "{checks:#?}"
    );
    assert_eq!((stands(), cgroups()), before, "the self-test left something behind");
    // The log shows both ways, one of them identified by the kernel.
    let records: Vec<Value> = daemon
        .audit()
        .into_iter()
        .filter(|record| record["agent"].as_str().is_some_and(|name| name.starts_with("doctor-self-test-")))
        .collect();
    for (mode, path) in [("explicit", "/explicit"), ("transparent", "/transparent")] {
        let injected = records.iter().any(|record| {
            record["event"] == "decision"
                && record["verdict"] == "inject"
                && record["mode"] == mode
                && record["path"] == path
                && record["cgroup"].is_string() == (mode == "transparent")
        });
        assert!(injected, "{mode}: {records:#?}");
    }
    assert!(
        records.iter().any(|record| record["code"] == "upstream_tls" || record["status"] == 502),
        "{records:#?}"
    );

    // The next run removes the agent of a killed self-test.
    daemon.onecli(&["agent", "add", "doctor-self-test-4194305", "--factors", "token"]).ok("agent add");
    let _ = doctor(daemon, &[]);
    assert_eq!((stands(), cgroups()), before);

    // A rule that forbids the request is not a failure of the daemon.
    daemon.onecli(&["rule", "add", "deny", "--host", "127.0.0.1"]).ok("rule add");
    let (checks, code) = doctor(daemon, &[]);
    assert_eq!((code, self_tests(&checks, "warn")), (Some(0), vec!["self-test".to_owned()]), "{checks:#?}");

    // A user with read access gets the report and adds nothing.
    let reader = doctor(daemon, &["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c"]).0;
    assert_eq!(self_tests(&reader, "ok"), Vec::<String>::new(), "{reader:#?}");

    let text = daemon.onecli(&["doctor", "--no-self-test"]).ok("doctor");
    assert!(!text.contains("self-test"), "{text}");
}

/// Without eBPF only the explicit way is tested. Behind an upstream proxy none is tested, and no failure is reported.
#[test]
fn self_test_covers_only_the_available_ways() {
    let of = |config: &str| {
        let daemon = Daemon::builder().no_ebpf().config(config).start();
        let (checks, code) = doctor(&daemon, &[]);
        assert_eq!(code, Some(0), "{checks:#?}");
        let tests = checks.iter().filter(|check| check["name"].as_str().unwrap().starts_with("self-test"));
        let line_of = |check: &Value| {
            format!("{}: {}", check["name"].as_str().unwrap(), check["status"].as_str().unwrap())
        };
        tests.map(line_of).collect::<Vec<_>>()
    };
    let explicit = ["self-test explicit: ok", "self-test TLS: ok"];
    assert_eq!(of(""), explicit);
    let proxy = "[upstream]\nproxy = \"http://127.0.0.1:9\"\n";
    assert_eq!(of(proxy), ["self-test: warn"]);
    assert_eq!(of(&format!("{proxy}no_proxy = [\"127.0.0.0/8\"]\n")), explicit);
}
