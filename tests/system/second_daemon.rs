//! A second daemon does not affect the running one.

use std::time::Duration;

use onecli_tests::client::Run;
use onecli_tests::{cgroup, need};

use crate::scene::{Scene, VALUE, Way, curl_with_key};

fn serves(scene: &Scene, way: Way) {
    let reply = scene.run(way, curl_with_key(&scene.url("/echo"), &[])).reply();
    assert_eq!(reply.verdict(), 200, "{reply:?}");
    scene.injected_once(&format!("Bearer {VALUE}"));
}

/// Starts a second daemon with `args` and the configuration of the first. It must exit and name the first.
fn is_refused(scene: &Scene, args: &[&str]) {
    let outcome = scene.daemon.home().daemon(args).timeout(Duration::from_secs(15)).outcome();
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    let named = format!("another daemon (pid {})", scene.daemon.pid());
    assert!(outcome.err().contains(&named), "{outcome:?}");
}

#[test]
fn data_directory_is_locked_by_one_daemon() {
    let mut scene = Scene::new();
    let other = tempfile::tempdir().unwrap();
    let socket = other.path().join("admin.sock");
    is_refused(&scene, &["--no-ebpf", "--listen", "127.0.0.1:0", "--admin-socket", socket.to_str().unwrap()]);
    serves(&scene, Way::Explicit);
    scene.daemon.restart();
    serves(&scene, Way::Explicit);
}

#[test]
fn kernel_part_is_claimed_by_one_daemon() {
    if !need::bpf("everything") {
        return;
    }
    let mut scene = Scene::new();
    serves(&scene, Way::Transparent);
    let other = tempfile::tempdir().unwrap();
    let data = other.path().join("data");
    let socket = other.path().join("admin.sock");
    let (data, socket) = (data.to_str().unwrap(), socket.to_str().unwrap());
    is_refused(&scene, &["--data-dir", data, "--admin-socket", socket, "--listen", "127.0.0.1:0"]);
    serves(&scene, Way::Transparent);
    // A killed daemon leaves nothing locked.
    scene.daemon.restart();
    serves(&scene, Way::Transparent);
}

#[test]
fn status_reports_a_removed_redirect() {
    if !need::bpf("everything") {
        return;
    }
    let scene = Scene::new();
    assert!(scene.daemon.onecli_json(&["status"])["transparent_fault"].is_null());
    let _ = scene.daemon.home().daemon(&["--detach"]).outcome().ok("--detach");
    let status = scene.daemon.onecli_json(&["status"]);
    let fault = status["transparent_fault"].as_str().unwrap_or_default();
    assert!(fault.contains("no longer attached"), "{status:#}");
}

/// Without its cgroup there is no enforcement, and the serving process may not attach programs. A restart by the
/// service manager does.
#[test]
fn removed_agents_root_is_created_and_enforced_again() {
    if !need::bpf("everything") {
        return;
    }
    let mut scene = Scene::new();
    for made_again in [false, true] {
        serves(&scene, Way::Transparent);
        let root = scene.daemon.home().agents_root().unwrap();
        cgroup::remove_tree(&root).unwrap();
        if made_again {
            std::fs::create_dir(&root).unwrap();
        }
        // Whether or not the daemon has noticed: no command starts there.
        let started = scene.run(Way::Transparent, Run::new("true"));
        assert!(matches!(started.code(), Some(125..=127)), "{started:?}");
        assert_eq!(scene.daemon.wait(Duration::from_secs(20)).code(), Some(1));
        let log = std::fs::read_to_string(scene.daemon.home().dir().join("daemon.log")).unwrap();
        let warning = if made_again { "was removed and created again" } else { "was removed;" };
        assert!(log.contains(warning), "{log}");
        scene.daemon.restart();
        serves(&scene, Way::Transparent);
    }
}
