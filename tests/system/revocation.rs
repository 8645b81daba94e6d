//! What an operator takes back is gone: also from what runs, and from what is under way (invariant 11).

use std::path::Path;
use std::time::Duration;

use onecli_tests::client::Run;
use onecli_tests::{need, wait_for};

use crate::scene::{Scene, in_shell};

/// Where a process runs is who it is: one that outlives its agent must not be the next one.
#[test]
fn processes_of_a_removed_agent_are_nobody() {
    if !need::bpf("everything") {
        return;
    }
    let scene = Scene::new();
    let daemon = &scene.daemon;
    let sleeper = daemon.managed(&scene.inside, &in_shell(&Run::new("sleep").arg("60"), r#"exec "$@""#));
    let running = sleeper.start();
    let cgroup = daemon.onecli_json(&["agent", "show", "inside"])["cgroup"].as_str().unwrap().to_owned();
    until_populated(&daemon.home().agent_cgroup(&cgroup));
    let removed = daemon.onecli(&["agent", "remove", "inside"]);
    assert!(removed.code() == Some(1) && removed.err().contains("--kill"), "{removed:?}");

    daemon.onecli(&["agent", "remove", "inside", "--kill"]).ok("remove --kill");
    let outcome = running.finish();
    assert!(!outcome.status.success() && !outcome.timed_out, "the process was killed: {outcome:?}");
    let added = daemon.onecli(&["agent", "add", "other", "--user", "games", "--cgroup", &cgroup]);
    added.ok("the cgroup is free again");

    // A stranger in the cgroup of an agent to be.
    let directory = daemon.home().agent_cgroup("lurk.slice");
    std::fs::create_dir(&directory).unwrap();
    let enter = format!("echo $$ > {}/cgroup.procs; exec sleep 60", directory.display());
    let stranger = Run::new("sh").args(["-c", &enter]).start();
    until_populated(&directory);
    let add = ["agent", "add", "lurker", "--user", "lp", "--cgroup", "lurk.slice"];
    let added = daemon.onecli(&add);
    assert!(added.code() == Some(1) && added.err().contains("cgroup.kill"), "{added:?}");
    drop(stranger);
    let added = wait_for(Duration::from_secs(5), || {
        let added = daemon.onecli(&add);
        added.status.success().then_some(added)
    });
    assert!(added.is_some(), "the cgroup is empty now");
}

fn until_populated(cgroup: &Path) {
    let procs = cgroup.join("cgroup.procs");
    let entered = wait_for(Duration::from_secs(10), || {
        std::fs::read_to_string(&procs).is_ok_and(|pids| !pids.is_empty()).then_some(())
    });
    assert!(entered.is_some(), "a process is in {}", cgroup.display());
}
