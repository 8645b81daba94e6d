//! Git works in an agent, and the agent cannot change its configuration and hooks.

use std::fs;
use std::os::unix::fs::{lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use onecli_tests::client::{Outcome, Run};
use onecli_tests::scripts::REPLACE_GIT_DIRECTORY;
use onecli_tests::{need, wait_for};

use super::Stage;
use super::people::{ALICE, GROUP, dir, file};

/// A project of Alice with a remote repository beside it.
pub(super) struct Project {
    pub(super) stage: Stage,
    pub(super) path: PathBuf,
    remote: PathBuf,
}

impl Project {
    pub(super) fn new() -> Option<Self> {
        if !need::program("git repositories", "git", "git") {
            return None;
        }
        let stage = Stage::new()?;
        stage.allow_alice();
        let home = stage.home_of("alice");
        let project = Self { path: home.join("project"), remote: home.join("remote.git"), stage };
        dir(&project.path, ALICE);
        dir(&project.remote, ALICE);
        Project::git(&project.remote, "git init -q --bare -b main");
        let setup = format!(
            "git init -q -b main; git remote add origin {}; echo 1 > file; git add file; git commit -qm one
             git push -q origin main main:feature; git fetch -q",
            project.remote.display()
        );
        Project::git(&project.path, &setup);
        Some(project)
    }

    /// Runs a script as Alice, outside of an agent.
    pub(super) fn git(directory: &Path, script: &str) -> String {
        let (uid, gid) = (ALICE.to_string(), GROUP.to_string());
        let run = Run::new("setpriv").args(["--reuid", &uid, "--regid", &gid, "--clear-groups", "sh", "-ec"]);
        named(run.arg(script)).cwd(directory).outcome().ok(script)
    }

    /// Runs a script in the agent, with the remote repository.
    pub(super) fn agent(&self, script: &str) -> Outcome {
        self.run(script).outcome()
    }

    pub(super) fn run(&self, script: &str) -> Run {
        let script = format!("{IDENTITY}{script}");
        let options = ["--dir", self.path.to_str().unwrap(), "--share-rw", self.remote.to_str().unwrap()];
        self.stage.alice(&options, &script)
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    pub(super) fn allow(&self, word: &str) {
        let args = ["agent", "set", &self.stage.robot.name, "--allow-git-config", word];
        self.stage.scene.daemon.onecli(&args).ok("agent set");
    }
}

const IDENTITY: &str =
    "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
    export GIT_CONFIG_GLOBAL=/dev/null; ";

fn named(run: Run) -> Run {
    let names = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
    let run = names.iter().fold(run, |run, name| run.env(name, "alice@host"));
    run.env("GIT_CONFIG_GLOBAL", "/dev/null")
}

#[test]
fn everyday_git_works_in_an_agent() {
    let Some(project) = Project::new() else { return };
    let files = || ["config", "hooks", "info"].map(|name| listing(&project.at(".git").join(name)));
    let before = files();
    let out = project.agent(
        "set -e
        git status --short; echo 2 >> file; git add -A; git commit -qm two; git switch -qc topic; echo 3 >> file
        git commit -qam three; git fetch -q; git push -q origin topic main; git switch -q main; git merge -q topic
        git pull -q --ff-only origin main; echo 4 >> file; git stash -q; git stash pop -q; git commit -qam four
        git rebase -q HEAD~1; git tag v1; git branch -q -D topic 2>/dev/null; git reset -q --hard HEAD~1
        git cherry-pick v1 >/dev/null; git worktree add -q tree; git -C tree status --short; git worktree remove tree
        git gc -q; git update-server-info; git log --oneline | wc -l",
    );
    assert_eq!(out.ok("git"), "4\n", "{out:?}");
    assert_eq!(files(), before);
    assert!(!out.err().contains("WARNING"), "{out:?}");
    assert_eq!(Project::git(&project.remote, "git log --oneline topic | wc -l"), "3\n");
    // Alice owns all files, and git accepts the repository.
    Project::git(&project.path, "git status --short; git fsck --strict 2>&1; [ -O .git/index ]");
    // The agent itself creates a clone.
    let out = project.agent(
        "set -e; git clone -q . copy; cd copy; git config user.name x; git commit -q --allow-empty -m x",
    );
    out.ok("clone");
    let line = format!("new git repository: {}", project.at("copy/.git").display());
    assert!(out.err().contains(&line), "{out:?}");
    let out = project.agent("git -C copy config user.name y");
    assert!(!out.status.success(), "the repository is protected like any other: {out:?}");
}

/// Names and contents of all files, for comparison.
fn listing(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(path) else {
        return vec![(path.to_owned(), fs::read(path).unwrap_or_default())];
    };
    let mut all: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(&path).unwrap_or_default()))
        // These files come from gc and update-server-info.
        .filter(|(path, _)| !path.ends_with("info/refs"))
        .collect();
    all.sort();
    all
}

/// The README lists each of these under the commands that need the flag.
#[test]
fn commands_that_write_git_configuration_need_the_flag() {
    let Some(project) = Project::new() else { return };
    let commands = [
        "git config core.fsmonitor ./evil",
        "git remote add other ../remote.git",
        "git remote set-url origin ../other.git",
        "git branch -u origin/main; grep -q merge .git/config",
        "git push -q -u origin main; grep -q merge .git/config",
        "git switch -q feature; grep -q merge .git/config",
        "git sparse-checkout set x",
        "git init -q",
        "ln -s ../../hook .git/hooks/post-commit",
        "echo '* filter=x' > .git/info/attributes",
        "mv .git old",
        "rm -rf .git/hooks",
        "mv .git/info .git/other",
    ];
    let backup = project.path.with_file_name("backup");
    let restore = || {
        Project::git(
            &project.path,
            &format!("rm -rf {0}/.git {0}/old; cp -a {1} {0}/.git", project.path.display(), backup.display()),
        );
    };
    Project::git(&project.path, &format!("cp -a .git {}", backup.display()));
    let files = || {
        [project.at(".git/config"), project.at(".git/hooks"), project.at(".git/info")]
            .map(|path| listing(&path))
    };
    let before = files();
    for command in commands {
        let out = project.agent(command);
        assert!(!out.status.success(), "{command}: {out:?}");
        assert_eq!(files(), before, "{command}");
        assert!(!out.err().contains("WARNING"), "{command}: {out:?}");
        assert!(!project.at(".git/info/attributes").exists(), "{command}: a placeholder is left");
        restore();
    }
    project.allow("yes");
    for command in commands {
        let out = project.agent(command);
        out.ok(command);
        assert!(out.err().contains("may change the configuration"), "{command}: {out:?}");
        let harmless = ["sparse", "init", "mv .git/info", "rm -rf"].iter().any(|word| command.contains(word));
        assert!(harmless || out.err().contains("WARNING"), "{command}: {out:?}");
        restore();
    }
    project.allow("no");
    assert!(!project.agent(commands[0]).status.success());
}

/// The last process of its command, which holds the project open and enters a new mount namespace.
const SURVIVOR: &str = r#"
import ctypes, os, time
project = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
if os.fork():
    time.sleep(1)
    os._exit(0)
os.setsid()
# CLONE_NEWUSER | CLONE_NEWNS
if ctypes.CDLL(None).unshare(0x10020000):
    os._exit(1)
null = os.open("/dev/null", os.O_RDWR)
for standard in range(3):
    os.dup2(null, standard)
log = os.open("survivor", os.O_CREAT | os.O_WRONLY, dir_fd=project)
time.sleep(3)
for path, flags in [(".git/config", os.O_RDWR), (".git/hooks/evil", os.O_CREAT | os.O_RDWR)]:
    try:
        os.close(os.open(path, flags, dir_fd=project))
        os.write(log, b"open\n")
    except OSError as error:
        os.write(log, error.strerror.encode() + b"\n")
os.write(log, b"end\n")
"#;

#[test]
fn view_outlives_its_command_while_a_process_uses_it() {
    let Some(project) = Project::new() else { return };
    file(&project.at("survivor.py"), SURVIVOR, ALICE);
    project.agent("python3 survivor.py").ok("the command");
    let said = wait_for(Duration::from_secs(20), || {
        fs::read_to_string(project.at("survivor")).ok().filter(|said| said.ends_with("end\n"))
    });
    assert_eq!(said.as_deref(), Some("Read-only file system\nRead-only file system\nend\n"));
    assert!(!project.at(".git/hooks/evil").exists());
}

/// Changes that the kernel allows in spite of the mounts are reported.
#[test]
fn files_that_other_programs_execute_are_reported() {
    let Some(project) = Project::new() else { return };
    file(&project.at("package.json"), r#"{"scripts":{"test":"true"}}"#, ALICE);
    let attempts = [
        ("echo evil > .envrc", "new: {}/.envrc"),
        ("mkdir .vscode; echo '{}' > .vscode/tasks.json", "new: {}/.vscode/tasks.json"),
        (r#"echo '{"scripts":{"test":"evil"}}' > package.json"#, "changed: {}/package.json"),
        ("echo evil > .git/commondir", "new: {}/.git/commondir"),
        (
            "mkdir src; git init -q src; git -C src config core.fsmonitor evil",
            "new git repository: {}/src/.git",
        ),
        ("mkdir lib; cd lib; git init -q --bare; echo x >> config", "new git repository: {}/lib"),
        ("printf 'gitdir: src' > x; mkdir y; mv x y/.git", "new: {}/y/.git"),
        ("mkdir \"$(printf 'a\\nb')\"; cd a*; echo x > .envrc", "new: {}/a\\nb/.envrc"),
    ];
    for (script, line) in attempts {
        let out = project.agent(script);
        out.ok(script);
        let line = line.replace("{}", project.path.to_str().unwrap());
        assert!(out.err().contains("WARNING") && out.err().contains(&line), "{script}: {out:?}");
        if script.contains("commondir") {
            fs::remove_file(project.at(".git/commondir")).unwrap();
        }
    }
    let out = project.agent("echo text > src/main.rs; cat package.json");
    assert!(out.status.success() && !out.err().contains("WARNING"), "{out:?}");
    // It renames a mount point from a mount namespace in which it is none.
    let path = project.path.display();
    let config = r#""$(printf '[core]\n\tfsmonitor = evil\n')""#;
    let out =
        project.agent(&format!("python3 -c '{REPLACE_GIT_DIRECTORY}' {path} {config} && ls -d .git-old"));
    if out.status.success() {
        assert!(out.err().contains(&format!("changed: {}/.git/config", project.path.display())), "{out:?}");
    }
    println!("renamed from another mount namespace: {}", out.status.success());
}

/// A directory stays open while the first mount namespace ends. The launcher holds the namespace, so the mounts below
/// it remain.
#[test]
fn view_without_processes_retains_its_mounts() {
    const KEEP: &str = r#"
import ctypes, os, sys
project = os.open(sys.argv[1], os.O_RDONLY)
assert ctypes.CDLL(None).unshare(0x10020000) == 0
file = os.open(".git/config", os.O_WRONLY | os.O_APPEND, dir_fd=project)
os.write(file, b"[core]\n\tfsmonitor = evil\n")
"#;
    let Some(project) = Project::new() else { return };
    let before = fs::read(project.at(".git/config")).unwrap();
    let path = project.path.display();
    let out = project.agent(&format!("exec python3 -c '{KEEP}' {path}"));
    assert!(out.err().contains("Read-only file system"), "{out:?}");
    assert_eq!(fs::read(project.at(".git/config")).unwrap(), before);
}

/// Remains of an agent's earlier run: links, missing files, pointers to other directories.
#[test]
fn unusual_git_directories_are_protected_or_reported() {
    let Some(project) = Project::new() else { return };
    let evil = "echo evil > .git/hooks/pre-commit; echo x > .git/config; true";
    // Missing directories and files are not created, and nothing remains.
    for name in ["hooks", "info", "config"] {
        let _ = fs::remove_dir_all(project.at(".git").join(name));
    }
    fs::remove_file(project.at(".git/config")).unwrap();
    let out = project.agent(evil);
    assert!(!out.err().contains("WARNING"), "{out:?}");
    for name in ["hooks", "info", "config"] {
        assert!(!project.at(".git").join(name).exists(), "{name}: {out:?}");
    }
    // Links out of the project, and within it.
    let outside = project.stage.home_of("alice").join("outside");
    dir(&outside, ALICE);
    for (target, link) in [(outside.as_path(), ".git/hooks"), (Path::new("../shared-config"), ".git/config")]
    {
        symlink(target, project.at(link)).unwrap();
        lchown(project.at(link), Some(ALICE), Some(GROUP)).unwrap();
    }
    file(&project.at("shared-config"), "", ALICE);
    let out = project.agent(evil);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "root created something there: {out:?}");
    assert!(out.err().contains("cannot protect") && out.err().contains("symbolic link"), "{out:?}");
    assert!(out.err().contains(&format!("changed: {}", project.at(".git/config").display())), "{out:?}");
    // A submodule: `.git` is a file, and its git directory is inside that of the parent repository.
    let module = project.at(".git/modules/a/b");
    fs::create_dir_all(&module).unwrap();
    for sub in ["../..", "..", "", "objects", "refs", "hooks", "info"] {
        dir(&module.join(sub), ALICE);
    }
    for (path, text) in [("HEAD", "ref: refs/heads/main\n"), ("config", "[core]\n")] {
        file(&module.join(path), text, ALICE);
    }
    dir(&project.at("sub"), ALICE);
    file(&project.at("sub/.git"), "gitdir: ../.git/modules/a/b\n", ALICE);
    for script in [
        "echo x > sub/.git",
        "mv sub/.git x",
        "echo x > .git/modules/a/b/config",
        "echo x > .git/modules/a/b/hooks/h",
        "mv .git/modules/a .git/modules/x",
        "mv .git/modules .git/x",
        "mv -T .git x",
    ] {
        let out = project.agent(script);
        assert!(!out.status.success() && !out.err().contains("WARNING"), "{script}: {out:?}");
    }
}
