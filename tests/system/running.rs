//! Views of the running daemon: running agents, waiting approvals, rates, uses of secrets, and the reason why it does
//! not run.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use onecli_tests::client::{Run, curl};
use onecli_tests::daemon::Daemon;
use onecli_tests::upstream::Upstream;
use onecli_tests::{need, wait_for};
use serde_json::Value;

use crate::scene::{API, Scene, Way};

/// The only agent that `ps` shows, as soon as it fits.
fn shown(daemon: &Daemon, fits: impl Fn(&Value) -> bool) -> Value {
    let found = wait_for(Duration::from_secs(20), || {
        let running = daemon.onecli_json(&["ps"]);
        let one = running.as_array().filter(|list| list.len() == 1).map(|list| list[0].clone());
        one.filter(|one| fits(one))
    });
    found.unwrap_or_else(|| panic!("{}", daemon.onecli_json(&["ps"])))
}

/// Returns whether the line ends with a time within the last two minutes.
fn is_recent(line: &str) -> bool {
    line.ends_with(" seconds ago") || line.ends_with(" second ago") || line.ends_with("just now")
}

#[test]
fn ps_shows_processes_and_connections_of_agents() {
    if !need::bpf("ps") {
        return;
    }
    let scene = Scene::new();
    let daemon = &scene.daemon;
    assert_eq!(daemon.onecli_json(&["ps"]), serde_json::json!([]));
    let script = "import socket,sys,time\ns = socket.create_connection(('api.test', int(sys.argv[1])))\ntime.sleep(60)";
    let port = scene.upstream.https_addr().port().to_string();
    let run = Run::new("python3").args(["-c", script, &port]);
    let held = daemon.managed(&scene.inside, &run).start();
    let one = shown(daemon, |one| one["connections"] == 1);
    assert_eq!((&one["agent"], one["uids"].to_string()), (&"inside".into(), "[65534]".to_owned()), "{one}");
    assert!(one["processes"].as_u64().unwrap() >= 1, "{one}");
    assert!(one["since"].as_str().is_some_and(|time| time.contains('T') && time.ends_with('Z')), "{one}");
    let text = daemon.onecli(&["ps"]).ok("ps");
    let row = text.lines().nth(1).unwrap();
    assert!(
        row.starts_with("inside  nobody  ") && (row.ends_with(" ago") || row.ends_with("just now")),
        "{text}"
    );
    drop(held);
    let gone = wait_for(Duration::from_secs(10), || {
        (daemon.onecli_json(&["ps"]) == serde_json::json!([])).then_some(())
    });
    assert!(gone.is_some(), "{}", daemon.onecli_json(&["ps"]));
}

#[test]
fn secrets_show_their_last_use_across_restarts() {
    let mut scene = Scene::of(Daemon::builder().no_ebpf(), Upstream::start(&[API]), &["--bearer"]);
    let last_use = |scene: &Scene| scene.daemon.onecli_json(&["secret", "list"])[0]["last_used"].clone();
    assert_eq!(last_use(&scene), Value::Null);
    let text = scene.daemon.onecli(&["secret", "list"]).ok("secret list");
    assert!(text.lines().nth(1).unwrap().ends_with("  never"), "{text}");

    assert_eq!(scene.run(Way::Explicit, curl(&scene.url("/echo"))).reply().verdict(), 200);
    let used = wait_for(Duration::from_secs(10), || Some(last_use(&scene)).filter(|used| !used.is_null()));
    let used = used.expect("the use is recorded");
    assert!(used.as_str().is_some_and(|time| time.contains('T') && time.ends_with('Z')), "{used}");
    let text = scene.daemon.onecli(&["secret", "show", "api"]).ok("secret show");
    assert!(text.lines().any(|line| line.starts_with("last use") && is_recent(line)), "{text}");

    // A refused request is not a use.
    scene.daemon.onecli(&["secret", "disable", "api"]).ok("secret disable");
    let _ = scene.run(Way::Explicit, curl(&scene.url("/echo")));
    scene.daemon.restart();
    assert_eq!(last_use(&scene), used);
}

#[test]
fn status_shows_waiting_approvals_rates_and_meanings() {
    let scene = Scene::of(Daemon::builder().no_ebpf(), Upstream::start(&[API]), &["--bearer"]);
    let daemon = &scene.daemon;
    let status = || daemon.onecli_json(&["status"]);
    assert_eq!(status()["approvals_waiting"], 0);
    daemon.onecli(&["rule", "add", "approve", "--port", "*", "--method", "POST"]).ok("rule add");
    let post = curl(&scene.url("/echo")).args(["--data", "x"]);
    let waiting = daemon.explicit(&scene.outside.token, post).start();
    let seen = wait_for(Duration::from_secs(10), || (status()["approvals_waiting"] == 1).then_some(()));
    assert!(seen.is_some(), "{}", status());
    let text = daemon.onecli(&["status"]).ok("status");
    assert!(text.contains("1 ('onecli approval list' shows them)"), "{text}");
    drop(waiting);

    assert_eq!(scene.run(Way::Explicit, curl(&scene.url("/echo"))).reply().verdict(), 200);
    let rate = wait_for(Duration::from_secs(10), || {
        status()["rates"]["requests_injected"].as_f64().filter(|rate| *rate > 0.0)
    });
    assert!(rate.is_some_and(|rate| rate <= 1.0), "{rate:?}: {}", status());
    let text = daemon.onecli(&["status"]).ok("status");
    let injected = text.lines().find(|line| line.starts_with("requests_injected")).unwrap();
    assert!(injected.ends_with("requests forwarded with a credential"), "{text}");
}

#[test]
fn daemon_reports_a_failed_start_to_the_service_manager() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let heard = |run: Run, exit: i32| {
        let outcome = run.env("NOTIFY_SOCKET", &path).outcome();
        assert_eq!(outcome.code(), Some(exit), "{outcome:?}");
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).expect("a status");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if let Some(reason) = text.strip_prefix("STATUS=failed: ") {
                return reason.trim_end().to_owned();
            }
        }
    };
    let home = Daemon::builder().no_ebpf().config("nonsense = 1\n").prepare();
    let reason = heard(home.daemon(&[]), 78);
    assert!(reason.contains("nonsense") && reason.contains("config.toml"), "{reason}");

    let mut daemon = Daemon::builder().no_ebpf().start();
    let again = daemon.home().daemon(&[]);
    let reason = heard(again, 1);
    assert!(reason.contains("in use"), "{reason}");
    daemon.assert_healthy();
}

#[test]
fn check_config_reads_the_files_that_it_names() {
    let home =
        Daemon::builder().no_ebpf().config("[upstream]\nextra_ca_files = [\"/absent/ca.pem\"]\n").prepare();
    let checked = home.daemon(&["--check-config"]).outcome();
    assert_eq!(checked.code(), Some(78), "{checked:?}");
    assert!(checked.err().contains("/absent/ca.pem"), "{checked:?}");
}
