//! An agent leaves commands in a project, which programs of the project's owner would run.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use onecli_tests::client::Outcome;
use onecli_tests::scripts::REPLACE_GIT_DIRECTORY;

use crate::stage::row::{Row, Trial};
use crate::stage::world::{World, reply};

const GETS: &str = "a program that runs as the owner of the project, unnoticed";
const CONTROL: &str = "with --allow-git-config the same command changes the file";
const NO_REPORT: &str = "an ordinary file is not reported";

pub(crate) const ROWS: &[Row] = &[
    Row::new("project/git-config", GETS, CONTROL, git_config).quick(),
    Row::new("project/git-hook", GETS, CONTROL, git_hook),
    Row::new("project/git-directory", GETS, CONTROL, git_directory),
    Row::new(
        "project/another-repository",
        GETS,
        "without the agent's repository nothing is reported",
        another_repository,
    ),
    Row::new("project/git-remotes", GETS, CONTROL, git_remotes),
    Row::new("project/interrupted-operation", GETS, NO_REPORT, interrupted_operation),
    Row::new("project/repository-in-git-directory", GETS, NO_REPORT, repository_in_git_directory),
    Row::new("project/named-script", GETS, NO_REPORT, named_script),
    Row::new("project/many-names", GETS, NO_REPORT, many_names),
    Row::new("project/editor-task", GETS, NO_REPORT, editor_task),
    Row::new("project/git-directory-from-another-namespace", GETS, NO_REPORT, from_another_namespace),
];

/// The agent's user, and the owner of the project. Both exist on every Debian.
const ROBOT: &str = "games";
const OWNER: u32 = 2;

struct Project {
    world: World,
    path: PathBuf,
}

impl Project {
    /// A repository as `git init` creates it. `None` without root, which is needed to start the agent.
    fn new(trial: &mut Trial) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            trial.not_run("starting an agent as root (needs root)");
            return None;
        }
        let world = World::new(|_, conn| reply(conn, "ok"));
        world.daemon.onecli(&["agent", "add", "robot", "--user", ROBOT]).ok("agent add");
        let path = world.daemon.home().dir().join("project");
        let project = Self { world, path };
        for directory in ["", ".git", ".git/objects", ".git/refs", ".git/hooks", ".git/info"] {
            fs::create_dir(project.at(directory)).expect("make the project");
        }
        fs::write(project.at(".git/HEAD"), "ref: refs/heads/main\n").expect("HEAD");
        let config = "[core]\n\tbare = false\n[filter \"x\"]\n\tclean = env A=1 sh run.sh\n";
        fs::write(project.at(".git/config"), config).expect("config");
        give(&project.path);
        Some(project)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    fn run(&self, script: &str) -> Outcome {
        let path = self.path.to_str().expect("UTF-8");
        let args = ["run", "--agent", "robot", "--dir", path, "--", "sh", "-c", script];
        self.world.daemon.home().cli(&args).outcome()
    }

    fn allow(&self, word: &str) {
        let args = ["agent", "set", "robot", "--allow-git-config", word];
        self.world.daemon.onecli(&args).ok("agent set");
    }

    /// Tries `script`, which works if `path` then contains `evil`. A result that is not reported also counts as an
    /// attack that works.
    fn attempt(&self, trial: &mut Trial, script: &str, path: &str) {
        let out = self.run(script);
        let left = self.is_evil(path);
        let reported = out.err().contains(self.at(path).to_str().expect("UTF-8"));
        trial.attempt(format!("{script}: changed {left}, reported {reported}"), left);
    }

    fn is_evil(&self, path: &str) -> bool {
        fs::read_to_string(self.at(path)).is_ok_and(|text| text.contains("evil"))
    }
}

/// Gives everything below `path` to the owner.
fn give(path: &Path) {
    chown(path, Some(OWNER), Some(OWNER)).expect("chown");
    if let Ok(entries) = fs::read_dir(path) {
        entries.flatten().for_each(|entry| give(&entry.path()));
    }
}

/// Runs the scripts without the flag, and with it as a control.
fn with_and_without_the_flag(trial: &mut Trial, scripts: &[&str], path: &str) {
    let Some(project) = Project::new(trial) else { return };
    for script in scripts {
        project.attempt(trial, script, path);
    }
    project.allow("yes");
    let out = project.run(scripts[0]);
    trial.control(CONTROL, out.status.success() && project.is_evil(path));
    trial.control("the result is reported", out.err().contains("WARNING"));
}

fn git_config(trial: &mut Trial) {
    let scripts = [
        "echo '[core] fsmonitor=evil' >> .git/config",
        "echo evil > .git/config.lock; mv -f .git/config.lock .git/config",
        "rm -f .git/config; echo evil > .git/config",
        "unshare --user --map-root-user --mount sh -c 'umount .git/config; umount -l .git; mount -o remount,rw,bind .git/config; echo evil > .git/config'",
        "ln -f .git/config other; echo evil > other",
    ];
    with_and_without_the_flag(trial, &scripts, ".git/config");
}

fn git_hook(trial: &mut Trial) {
    let scripts = [
        "echo evil > .git/hooks/pre-commit",
        "mv .git/hooks .git/old; mkdir .git/hooks; echo evil > .git/hooks/pre-commit",
        "mkdir h; echo evil > h/pre-commit; mv -T h .git/hooks",
    ];
    with_and_without_the_flag(trial, &scripts, ".git/hooks/pre-commit");
}

fn git_directory(trial: &mut Trial) {
    let scripts = [
        "mv .git old && cp -r old .git && echo evil >> .git/config",
        "cp -r .git new; echo evil >> new/config; mv -T --exchange new .git",
        "rm -rf .git; mkdir .git; echo evil > .git/config",
    ];
    with_and_without_the_flag(trial, &scripts, ".git/config");
}

/// Runs `script`, whose result must be reported with the name of `path`.
fn must_be_reported(trial: &mut Trial, ordinary: &str, script: &str, path: &str) {
    let Some(project) = Project::new(trial) else { return };
    let out = project.run(ordinary);
    trial.control(ordinary, out.status.success() && !out.err().contains("WARNING"));
    let out = project.run(script);
    trial.control(format!("{script} works"), out.status.success());
    let reported =
        out.err().contains("WARNING") && out.err().contains(project.at(path).to_str().expect("UTF-8"));
    trial.attempt(format!("{path} unreported"), !reported);
}

fn another_repository(trial: &mut Trial) {
    let script = "mkdir src; cp -r .git src/.git; echo '[core] fsmonitor=evil' >> src/.git/config";
    must_be_reported(trial, "mkdir -p src2/objects src2/refs", script, "src/.git");
}

fn git_remotes(trial: &mut Trial) {
    let scripts = [
        "mkdir -p .git/remotes; echo evil > .git/remotes/origin",
        "mv .git/remotes x; mkdir .git/remotes; echo evil > .git/remotes/origin",
        "mkdir x; echo evil > x/origin; mv -T --exchange x .git/remotes",
    ];
    with_and_without_the_flag(trial, &scripts, ".git/remotes/origin");
}

fn interrupted_operation(trial: &mut Trial) {
    let script = "mkdir .git/sequencer; echo strategy=x/../evil > .git/sequencer/opts";
    must_be_reported(trial, "echo text > .git/COMMIT_EDITMSG", script, ".git/sequencer");
}

fn repository_in_git_directory(trial: &mut Trial) {
    let script =
        "cd .git/objects; mkdir -p aa/ev/objects aa/ev/refs; cp ../HEAD aa/ev; echo evil > aa/ev/config";
    let ordinary = "mkdir .git/objects/aa; echo text > .git/objects/aa/bb";
    must_be_reported(trial, ordinary, script, ".git/objects/aa/ev");
}

fn named_script(trial: &mut Trial) {
    must_be_reported(trial, "echo text > other.sh", "echo evil > run.sh", "run.sh");
}

fn many_names(trial: &mut Trial) {
    let script = "for n in $(seq 200); do mkdir a$n; echo x > a$n/.envrc; echo '{' > a$n/package.json; done
        mkdir z .git/sequencer; echo evil > z/.gdbinit; echo strategy=evil > .git/sequencer/opts";
    must_be_reported(trial, "echo text > file", script, "z/.gdbinit");
    must_be_reported(trial, "echo text > file", script, ".git/sequencer");
}

fn editor_task(trial: &mut Trial) {
    let script = "mkdir -p .vscode; echo evil > .vscode/tasks.json";
    must_be_reported(trial, "echo text > tasks.json", script, ".vscode/tasks.json");
}

fn from_another_namespace(trial: &mut Trial) {
    let script = format!("python3 -c '{REPLACE_GIT_DIRECTORY}' . evil");
    must_be_reported(trial, "echo text > file", &script, ".git/config");
}
