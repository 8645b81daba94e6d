//! The agent's view contains no home directories. `--share` adds directories that the caller may share.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use onecli_tests::client::{Outcome, Run};

use super::people::{ALICE, CAROL, dir, file};
use super::{ROBOT, Stage, owner};

fn refused(outcome: &Outcome, words: &str) {
    assert_eq!(outcome.code(), Some(125), "{outcome:?}");
    assert!(outcome.err().contains(words), "{words:?}: {outcome:?}");
}

#[test]
fn user_homes_are_hidden_and_system_directories_are_not() {
    let Some(stage) = Stage::new() else { return };
    let carols = stage.home_of("carol").join("file");
    // Control: the same user, outside of an agent.
    let outside = Run::new("setpriv").args(["--reuid", ROBOT, "--clear-groups", "cat"]).arg(&carols);
    assert_eq!(outside.outcome().ok("the control"), "of carol\n");
    for wrap in ["", "unshare --user --map-root-user --mount "] {
        for place in
            [carols.display().to_string(), stage.home_of("alice").display().to_string(), "/root".to_owned()]
        {
            let script = format!("{wrap}sh -c 'umount -l {place} 2>/dev/null; ls -A {place}'");
            let outcome = stage.shell(&script).outcome();
            assert!(!outcome.status.success() && outcome.out().is_empty(), "{script}: {outcome:?}");
        }
    }
    // `games`, `bin` and others have such homes.
    stage
        .shell("ls /usr/games /usr/bin/env /var/lib /etc/passwd /srv /opt >/dev/null")
        .outcome()
        .ok("the system");
}

#[test]
fn shares_are_read_only_by_default() {
    let Some(stage) = Stage::new() else { return };
    stage.allow_alice();
    let (tools, other) = (stage.home_of("alice").join(".tools"), stage.home_of("alice").join("other"));
    for place in [&tools, &other] {
        dir(place, ALICE);
        file(&place.join("x"), "text\n", ALICE);
        fs::set_permissions(place.join("x"), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let script = format!(
        "cd /; cat {0}/x; echo new > {0}/x; touch {0}/y; ls -A {1}; cat {1}/file",
        tools.display(),
        stage.home_of("alice").display()
    );
    let outcome = stage.alice(&["--no-dir", "--share", tools.to_str().unwrap()], &script).outcome();
    assert_eq!(outcome.out(), "text\n.tools\n", "{outcome:?}");
    assert!(outcome.err().contains("Read-only file system"), "{outcome:?}");
    let options = ["--no-dir", "--share-rw", tools.to_str().unwrap(), "--share", other.to_str().unwrap()];
    let script = format!("{script}; cat {}/x", other.display());
    let out = stage.alice(&options, &script).outcome();
    assert_eq!(out.out(), "text\n.tools\nother\ntext\n", "{out:?}");
    assert_eq!(fs::read_to_string(tools.join("x")).unwrap(), "new\n");
    assert_eq!(owner(&tools.join("y")).0, ALICE);
}

/// A shared directory that contains home directories shows none of them, unless the share names it.
#[test]
fn homes_below_a_shared_directory_stay_hidden() {
    let Some(stage) = Stage::new() else { return };
    stage.allow_alice();
    let (people, carols) = (stage.home_of("carol").parent().unwrap().to_owned(), stage.home_of("carol"));
    let beside = people.join("beside");
    file(&beside, "seen\n", ALICE);
    let script = format!("cd /; cat {}; cat {}/file; true", beside.display(), carols.display());
    let share = |options: &[&str]| {
        let options = [&["--no-dir"], options].concat();
        stage.alice(&options, &script).outcome().ok("cat")
    };
    assert_eq!(share(&["--share", people.to_str().unwrap()]), "seen\n");
    let both = ["--share", people.to_str().unwrap(), "--share", carols.to_str().unwrap()];
    assert_eq!(share(&both), "seen\nof carol\n");
}

#[test]
fn caller_may_share_only_accessible_directories() {
    let Some(stage) = Stage::new() else { return };
    stage.allow_alice();
    let carols = stage.home_of("carol").join("work");
    dir(&carols, CAROL);
    file(&carols.join("x"), "of carol\n", CAROL);
    let share = |option: &str, path: &Path| {
        let script = format!("cat {}/x", path.display());
        stage.alice(&["--no-dir", option, path.to_str().unwrap()], &script).outcome()
    };
    assert_eq!(share("--share", &carols).ok("a file readable by others"), "of carol\n");
    refused(&share("--share-rw", &carols), "you may not write");
    fs::set_permissions(&carols, fs::Permissions::from_mode(0o711)).unwrap();
    refused(&share("--share", &carols), "you may not read");
    // A link that the agent could have created, and directories where services of the host listen.
    let link = stage.home_of("alice").join("link");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(ALICE), None).unwrap();
    refused(&share("--share", &link), "only root's are followed");
    for place in ["/", "/run", "/var", "/proc", "/dev", "/sys/fs", "/tmp", "/var/lib"] {
        refused(&share("--share", Path::new(place)), "must not see");
    }
    let data = stage.scene.daemon.home().dir();
    refused(&share("--share", data), "must not see");
}

#[test]
fn command_in_a_hidden_home_is_reported_with_the_share_option() {
    let Some(stage) = Stage::new() else { return };
    stage.allow_alice();
    let (bin, real) = (stage.home_of("alice").join(".local/bin"), stage.home_of("alice").join("versions/1"));
    dir(&bin, ALICE);
    dir(&real, ALICE);
    file(&real.join("tool"), "#!/bin/sh\necho it runs\n", ALICE);
    fs::set_permissions(real.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(real.join("tool"), bin.join("tool")).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let (bin, real) = (bin.to_str().unwrap(), real.to_str().unwrap());
    let run = |options: &[&str]| {
        let options = [&["--no-dir"], options].concat();
        stage.run_with_home(ALICE, &options, &["tool"]).env("PATH", &path).outcome()
    };
    let outcome = run(&[]);
    assert_eq!(outcome.code(), Some(127), "{outcome:?}");
    assert!(outcome.err().contains(&format!("add --share {bin} --share {real}")), "{outcome:?}");
    assert_eq!(run(&["--share", bin, "--share", real]).ok("shared"), "it runs\n");
    let nowhere = stage.run_with_home(ALICE, &["--no-dir"], &["no-such-tool"]).outcome();
    assert!(!nowhere.err().contains("--share"), "{nowhere:?}");
}

#[test]
fn run_from_a_home_directory_requires_a_project_directory() {
    let Some(stage) = Stage::new() else { return };
    stage.allow_alice();
    for home in [stage.home_of("alice"), stage.home_of("carol")] {
        let outcome = stage.alice(&[], "pwd").cwd(&home).outcome();
        refused(&outcome, &format!("--dir {}", home.display()));
    }
    let home = stage.home_of("alice");
    let out =
        stage.alice(&["--dir", home.to_str().unwrap()], "pwd; cat file").cwd(&home).outcome().ok("named");
    assert_eq!(out, format!("{}\nof alice\n", home.display()));
    // Naming a directory for one run does not confirm the directories below it.
    let sub = home.join("sub");
    dir(&sub, ALICE);
    refused(&stage.alice(&[], "pwd").cwd(&sub).outcome(), "have not confirmed");
    stage.alice(&["--no-dir"], "true").cwd(&home).outcome().ok("--no-dir");
}
