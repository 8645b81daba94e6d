//! The daemon as its unit starts it: an unprivileged user without capabilities, and a helper with the needed rights.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use onecli_tests::daemon::Daemon;
use onecli_tests::need;
use onecli_tests::upstream::Upstream;

use crate::scene::{API, API_V6, Scene, VALUE, Way, curl_with_key};

fn scene() -> Option<Scene> {
    let part = "a daemon beside its helper";
    if !need::bpf(part) || !need::program(part, "systemd-socket-activate", "systemd") {
        return None;
    }
    Some(Scene::of(Daemon::builder().unprivileged(), Upstream::start(&[API, API_V6]), &["--bearer"]))
}

fn injected(scene: &Scene) {
    for way in [Way::Transparent, Way::Explicit] {
        scene.run(way, curl_with_key(&scene.url("/echo"), &[])).ok(&format!("{way:?}"));
        scene.injected_once(&format!("Bearer {VALUE}"));
    }
}

#[test]
fn unprivileged_daemon_injects_credentials() {
    let Some(mut scene) = scene() else { return };
    let status = std::fs::read_to_string(format!("/proc/{}/status", scene.daemon.pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{status}"));
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(!field("Uid:").contains(&"0".to_owned()), "{status}");
    for set in ["CapEff:", "CapPrm:", "CapBnd:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&field(set)[0], 16), Ok(0), "{set} {status}");
    }
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    injected(&scene);
    // Another daemon receives the same maps.
    scene.daemon.restart();
    injected(&scene);
    // The helper creates and removes agents' cgroups.
    let cgroup = scene.daemon.agent_cgroup(&scene.inside);
    assert!(cgroup.is_dir());
    scene.daemon.onecli(&["agent", "remove", &scene.inside.name]).ok("agent remove");
    assert!(!cgroup.exists());
}

/// Files that root restores belong to the daemon: the next start serves them.
#[test]
fn restore_by_root_creates_files_for_the_daemons_user() {
    let Some(mut scene) = scene() else { return };
    let backup = scene.daemon.home().dir().join("backup.db");
    let file = backup.to_str().unwrap().to_owned();
    scene.daemon.onecli(&["backup", &file]).ok("backup");
    assert_eq!(std::fs::metadata(&backup).unwrap().mode() & 0o7777, 0o600, "only root can read it");
    scene.daemon.onecli(&["secret", "remove", "api"]).ok("secret remove");
    scene.daemon.terminate();
    let config = scene.daemon.home().config_file();
    let args = ["restore", &file, "--config", config.to_str().unwrap()];
    let report = scene.daemon.home().cli(&args).timeout(Duration::from_mins(1)).outcome().ok("restore");
    assert!(report.contains("1 secrets"), "{report}");
    scene.daemon.restart();
    let shown = scene.daemon.onecli_json(&["secret", "show", "api"]);
    assert_eq!(shown["version"], 1, "{shown}");
}

#[test]
fn unprivileged_daemon_exits_when_its_helper_dies() {
    let Some(mut scene) = scene() else { return };
    scene.daemon.kill_helper();
    assert_eq!(scene.daemon.wait(Duration::from_secs(30)).code(), Some(1), "{}", scene.daemon.home().log());
    let denied = scene.run(Way::Transparent, curl_with_key(&scene.url("/echo"), &["--max-time", "5"]));
    assert!(!denied.status.success(), "{denied:?}");
}
