//! An agent's `/tmp` and `/var/tmp` are private and persist between its runs.

use std::fs;

use onecli_tests::client::Run;

use super::people::{ALICE, dir};
use super::{PERSON, ROBOT, Stage};

#[test]
fn temporary_files_are_private_persistent_and_removed_with_the_agent() {
    let Some(stage) = Stage::new() else { return };
    for place in ["/tmp", "/var/tmp"] {
        let hosts = tempfile::Builder::new().prefix("onecli-host-").tempfile_in(place).unwrap();
        let name = format!("{place}/onecli-agents-{}", std::process::id());
        let see = format!("ls {0}", hosts.path().display());
        let outside = Run::new("setpriv").args(["--reuid", ROBOT, "--clear-groups", "sh", "-c", &see]);
        outside.outcome().ok("the control");
        assert!(!stage.shell(&see).outcome().status.success(), "{place} is that of the host");
        stage.shell(&format!("echo kept > {name}; stat -c %a {place}")).outcome().ok("write");
        assert_eq!(stage.shell(&format!("cat {name}")).outcome().ok("kept"), "kept\n");
        assert!(!fs::exists(&name).unwrap(), "{name} is on the host");
    }
    // Another agent with the same user.
    let daemon = &stage.scene.daemon;
    let name = format!("/tmp/onecli-agents-{}", std::process::id());
    daemon.onecli(&["agent", "add", "second", "--user", "lp"]).ok("add");
    let other = daemon.onecli(&["run", "--agent", "second", "--no-dir", "--", "sh", "-c", "ls -A /tmp"]);
    assert_eq!(other.ok("the second agent"), "");

    let kept = || fs::read_dir(daemon.home().agents_dir().join(".state/agents")).unwrap().count();
    assert_eq!(kept(), 2);
    daemon.onecli(&["agent", "remove", "robot", "--kill"]).ok("remove");
    assert_eq!(kept(), 1, "files of the removed agent remain");
    daemon.onecli(&["agent", "add", "robot", "--user", ROBOT, "--runner", PERSON]).ok("add again");
    assert!(
        !stage.shell(&format!("cat {name}")).outcome().status.success(),
        "a new agent finds files of the old one"
    );
}

/// A link that the agent creates on the path to a project below /tmp cannot redirect root.
#[test]
fn link_in_the_agents_tmp_is_not_followed() {
    let Some(stage) = Stage::new() else { return };
    stage.allow_alice();
    let base = tempfile::Builder::new().prefix("onecli-link-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(base.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let project = base.path().join("project");
    dir(&project, ALICE);
    let target = stage.home_of("carol");
    let script = format!("ln -s {} {}", target.display(), base.path().display());
    stage.shell(&script).outcome().ok("the agent's link");
    let outcome = stage.alice(&["--dir", project.to_str().unwrap()], "touch x").outcome();
    assert_eq!(outcome.code(), Some(125), "{outcome:?}");
    assert!(outcome.err().contains("symbolic link that the agent made"), "{outcome:?}");
    assert!(!fs::exists(target.join("project")).unwrap(), "root followed the agent's link");
    stage.shell(&format!("rm {}", base.path().display())).outcome().ok("rm");
    stage.alice(&["--dir", project.to_str().unwrap()], "touch x").outcome().ok("without it");
}
