//! A directory of the user, in which the agent works.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, chown};

use super::{PERSON, Stage, owner};

const ID: u32 = 2;

/// A closed directory of the user, with a project and a private file in it.
struct Home(tempfile::TempDir);

impl Home {
    /// On the disk, or on the tmpfs that every Linux has.
    fn below(parent: &str) -> Self {
        let home = Self(tempfile::Builder::new().prefix("onecli-home-").tempdir_in(parent).unwrap());
        for sub in ["project", "project/src", "private"] {
            fs::create_dir(home.path().join(sub)).unwrap();
        }
        fs::write(home.path().join("project/src/main"), "old").unwrap();
        fs::write(home.path().join("private/key"), "secret").unwrap();
        for path in ["", "project", "project/src", "project/src/main", "private", "private/key"] {
            chown(&home.path().join(path), Some(Uid::from_raw(ID)), Some(Gid::from_raw(ID))).unwrap();
        }
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(home.path().join("project/src/main"), fs::Permissions::from_mode(0o600)).unwrap();
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn project(&self) -> PathBuf {
        self.path().join("project")
    }
}

#[test]
fn files_created_by_the_agent_belong_to_the_user() {
    let Some(stage) = Stage::new() else { return };
    for kind in ["/tmp", "/dev/shm"] {
        let home = Home::below(kind);
        let project = home.project();
        let script = r#"
            set -e
            pwd; id -un; ls -lnd src | cut -d' ' -f3,4
            [ "$(cat src/main)" = old ]
            echo new > src/main; mkdir made; echo text > made/file; mv src/main src/moved; chmod 750 made
            ls -A ..; ls -A ../private 2>/dev/null || echo no private"#;
        let named = project.to_str().unwrap();
        stage.run_as(PERSON, &["--dir", named], &["true"]).outcome().ok("confirming it");
        let out = stage.shell(script).cwd(&project).outcome().ok(kind);
        let expected = format!("{}\ngames\n5 60\nproject\nno private\n", project.display());
        assert_eq!(out, expected, "{kind}");
        for path in ["made", "made/file", "src/moved"] {
            assert_eq!(owner(&project.join(path)), (ID, ID), "{kind}: {path}");
        }
        assert_eq!(fs::read_to_string(project.join("src/moved")).unwrap(), "new\n");
        // By name from another directory, and not at all.
        let named = stage.run_as(PERSON, &["--dir", named], &["cat", "made/file"]);
        assert_eq!(named.outcome().ok("--dir"), "text\n");
        let plain = stage.run_as(PERSON, &["--no-dir"], &["cat", "made/file"]).cwd(&project).outcome();
        assert!(plain.err().contains("cannot enter the current directory"), "{plain:?}");
    }
}

#[test]
fn directories_beyond_the_project_are_refused() {
    let Some(stage) = Stage::new() else { return };
    let home = Home::below("/tmp");
    let refused = |dir: &Path, words: &str| {
        let outcome = stage.run_as(PERSON, &["--dir", dir.to_str().unwrap()], &["id"]).outcome();
        assert_eq!(outcome.code(), Some(125), "{outcome:?}");
        assert!(outcome.err().contains(words), "{outcome:?}");
    };
    // Directories of others: of root and of another user.
    refused(Path::new("/etc"), "/etc does not belong to you");
    let others = tempfile::tempdir().unwrap();
    fs::set_permissions(others.path(), fs::Permissions::from_mode(0o777)).unwrap();
    chown(others.path(), Some(Uid::from_raw(6)), None).unwrap();
    refused(others.path(), "does not belong to you");
    refused(&home.path().join("nowhere"), "No such file");
    // The user's home itself, if it is only the working directory. bin's home is /bin, which root owns, so the agent's
    // files stay root's.
    let out = stage.shell("pwd; touch /bin/onecli-test 2>/dev/null || echo read-only").cwd("/bin").outcome();
    assert!(out.ok("/bin").ends_with("read-only\n"));
    // A link that the agent puts into a path has no effect: the directory that the user opened is mapped.
    std::os::unix::fs::symlink("/etc", home.project().join("link")).unwrap();
    let project = home.project();
    let script = "touch link/onecli-test 2>/dev/null || echo no";
    let out = stage.run_as(PERSON, &["--dir", project.to_str().unwrap()], &["sh", "-c", script]).outcome();
    assert_eq!(out.ok("a link"), "no\n");
}

/// Root's own runs too, as with sudo: the project belongs to its owner.
#[test]
fn root_runs_an_agent_in_another_users_project() {
    let Some(stage) = Stage::new() else { return };
    let home = Home::below("/tmp");
    let daemon = &stage.scene.daemon;
    let (project, script) = (home.project(), "umask; echo x > by-root; id -un");
    let run = ["run", "--agent", "robot", "--dir", project.to_str().unwrap(), "--", "sh", "-c", script];
    let out = daemon.home().cli(&run).outcome().ok("run");
    assert!(out.ends_with("games\n"), "{out}");
    assert_eq!(owner(&home.project().join("by-root")), (ID, ID));
}
