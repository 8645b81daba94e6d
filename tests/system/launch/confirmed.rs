//! The directory that the agent may use is the physical one, after the caller confirmed it.

use std::fs;
use std::path::Path;

use onecli_tests::client::{Outcome, Run};

use super::people::{ALICE, CAROL, dir, file};
use super::{Stage, owner};

fn refused(outcome: &Outcome, words: &[&str]) {
    assert_eq!(outcome.code(), Some(125), "{outcome:?}");
    for word in words {
        assert!(outcome.err().contains(word), "{word:?}: {outcome:?}");
    }
}

#[test]
fn new_directory_is_confirmed_once_per_user_and_agent() {
    let Some(stage) = Stage::new() else { return };
    stage.allow_alice();
    let project = stage.home_of("alice").join("src/project");
    for path in [&stage.home_of("alice").join("src"), &project, &project.join("sub")] {
        dir(path, ALICE);
    }
    let named = project.to_str().unwrap();
    let here = |path: &Path| stage.alice(&[], "pwd").cwd(path).env("PWD", path).outcome();
    refused(&here(&project), &["have not confirmed", &format!("--dir {named}")]);
    refused(
        &stage.alice(&["--dir", "project"], "pwd").cwd(project.parent().unwrap()).outcome(),
        &["have not confirmed"],
    );
    let outcome = stage.alice(&["--dir", named], "pwd").outcome();
    assert_eq!(outcome.ok("named"), format!("{named}\n"));
    assert!(outcome.err().contains(&format!("works in {named}")), "{outcome:?}");
    for path in [&project, &project.join("sub")] {
        let outcome = here(path);
        assert_eq!(outcome.ok("remembered"), format!("{}\n", path.display()));
        assert!(outcome.err().contains(&format!("works in {}", path.display())), "{outcome:?}");
    }
    refused(&here(project.parent().unwrap()), &["have not confirmed"]);
    // Another user, and another agent.
    let carols = stage.run_with_home(CAROL, &[], &["pwd"]).cwd(&project).outcome();
    assert!(!carols.err().contains("works in"), "{carols:?}");
    let daemon = &stage.scene.daemon;
    daemon.onecli(&["agent", "add", "second", "--user", "lp"]).ok("add");
    let second = daemon.home().cli(&["run", "--agent", "second", "--", "pwd"]).cwd(&project).outcome();
    refused(&second, &["have not confirmed"]);
}

/// The agent replaces a directory of its project by a link to a directory outside of its project.
#[test]
fn link_created_by_the_agent_shares_nothing() {
    let Some(stage) = Stage::new() else { return };
    stage.allow_alice();
    let home = stage.home_of("alice");
    let (mono, ssh, private) = (home.join("mono"), home.join(".ssh"), home.join("private"));
    for path in [&mono, &mono.join("api"), &ssh, &private] {
        dir(path, ALICE);
    }
    for place in [&ssh, &private] {
        file(&place.join("key"), "secret\n", ALICE);
    }
    let named = mono.to_str().unwrap();
    stage.alice(&["--dir", named], "cd api").outcome().ok("control: the directory itself is accepted");
    for target in [&ssh, &private] {
        let script = format!("rm -rf api; ln -s {} api; cat api/key", target.display());
        let out = stage.alice(&["--dir", named], &script).outcome();
        assert!(!out.out().contains("secret"), "{out:?}");
        assert_eq!(owner(&mono.join("api")).0, ALICE, "the link is on the disk and belongs to the caller");
        let link = mono.join("api");
        let physical = target.to_str().unwrap();
        // A shell after `cd api`.
        let there = |options: &[&str]| stage.alice(options, "cat key").cwd(&link).env("PWD", &link).outcome();
        refused(&there(&[]), &[physical]);
        refused(&there(&["--dir", "."]), &["symbolic link", physical]);
        refused(&there(&["--share", "."]), &["symbolic link", physical]);
        refused(
            &stage.alice(&["--dir", link.to_str().unwrap()], "cat key").outcome(),
            &["symbolic link", physical],
        );
        // A program that starts it there, and does not know of the link.
        refused(&stage.alice(&[], "cat key").cwd(&link).outcome(), &[physical]);
        refused(&stage.alice(&["--dir", "."], "cat key").cwd(&link).outcome(), &[physical]);
    }
    // If the caller names the physical directory, the agent gets it.
    let out = stage.alice(&["--dir", ssh.to_str().unwrap()], "cat key").outcome();
    assert_eq!(out.ok("named"), "secret\n");
    refused(&stage.alice(&[], "cat key").cwd(&ssh).outcome(), &["hidden directory"]);
    let share = ["--no-dir", "--share", ssh.to_str().unwrap()];
    assert_eq!(
        stage.alice(&share, &format!("cat {}/key", ssh.display())).outcome().ok("--share"),
        "secret\n"
    );
}

/// Root's links are part of the system: a host may have its homes elsewhere.
#[test]
fn links_owned_by_root_are_followed() {
    let Some(stage) = Stage::new() else { return };
    stage.allow_alice();
    let project = stage.home_of("alice").join("project");
    dir(&project, ALICE);
    let link = stage.scene.daemon.home().dir().join("homes");
    std::os::unix::fs::symlink(stage.scene.daemon.home().dir().join("people"), &link).unwrap();
    stage.alice(&["--dir", project.to_str().unwrap()], "pwd").outcome().ok("physical");
    let through = link.join("alice/project");
    for run in [
        stage.alice(&["--dir", through.to_str().unwrap()], "pwd"),
        stage.alice(&[], "pwd").cwd(&through).env("PWD", &through),
    ] {
        assert_eq!(run.outcome().ok("through root's link"), format!("{}\n", project.display()));
    }
}

/// On a terminal the caller is asked once.
#[test]
fn user_at_a_terminal_is_asked_to_confirm() {
    const AT_A_TERMINAL: &str = r#"
import os, pty, sys
answer, directory, command = sys.argv[1], sys.argv[2], sys.argv[3:]
pid, terminal = pty.fork()
if pid == 0:
    os.chdir(directory)
    os.execvp(command[0], command)
seen = b""
while True:
    try:
        data = os.read(terminal, 4096)
    except OSError:
        break
    if not data:
        break
    seen += data
    if b"[y/N]" in seen and answer:
        os.write(terminal, answer.encode() + b"\r")
        answer = ""
sys.stdout.write(seen.decode().replace("\r", ""))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;
    let Some(stage) = Stage::new() else { return };
    stage.allow_alice();
    let project = stage.home_of("alice").join("project");
    dir(&project, ALICE);
    let answer = |answer: &str| {
        let run = stage.alice(&[], "echo started");
        let person = Run::new("python3").args(["-c", AT_A_TERMINAL, answer]).arg(&project);
        person.arg(run.program()).args(run.arguments()).outcome()
    };
    for no in ["n", "\x03"] {
        let outcome = answer(no);
        assert_eq!(outcome.code(), Some(125), "{outcome:?}");
        assert!(
            outcome.out().contains(project.to_str().unwrap()) && !outcome.out().contains("started"),
            "{outcome:?}"
        );
    }
    assert!(answer("y").ok("yes").contains("started"));
    let again = answer("").ok("not asked again");
    assert!(again.contains("started") && !again.contains("[y/N]"), "{again}");
    let kept = stage.scene.daemon.home().agents_dir().join(".state");
    assert_eq!(owner(&kept).0, 0);
    assert_eq!(
        fs::metadata(&kept).map(|found| std::os::unix::fs::MetadataExt::mode(&found) & 0o777).unwrap(),
        0o700
    );
}
