//! Commands that overlap, and the remains of a command whose launcher process was killed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use onecli_tests::cgroup::processes;
use onecli_tests::client::Run;
use onecli_tests::{need, wait_for};

use super::people::{ALICE, dir, file};
use super::{PERSON, Stage};

/// The uid of [`PERSON`].
const ID: u32 = 2;

/// Moves a directory with a set-user-ID file back and forth, until a file `stop` exists.
const MOVES: &str = "import os
open('ready', 'w').close()
while not os.path.exists('stop'):
    os.rename('one/a', 'two/a')
    os.rename('two/a', 'one/a')";

/// Tries to open that file for writing until it finds it, and prints the result.
const OPENS: &str = "import errno, os
while True:
    for path in ('one/a/su', 'two/a/su'):
        try:
            os.open(path, os.O_RDWR)
            print('open', flush=True)
            os._exit(0)
        except OSError as error:
            if error.errno != errno.ENOENT:
                print(error.strerror, flush=True)
                os._exit(0)";

impl Stage {
    /// A project with a set-user-ID file, in which a search takes a while.
    fn project_with_set_user_id_file(&self) -> PathBuf {
        let project = self.project();
        for name in ["one", "two", "one/a"] {
            dir(&project.join(name), ID);
        }
        for number in 0..2000 {
            for name in ["one", "two"] {
                fs::write(project.join(name).join(number.to_string()), "").unwrap();
            }
        }
        let su = project.join("one/a/su");
        file(&su, "original\n", ID);
        fs::set_permissions(&su, fs::Permissions::from_mode(0o4755)).unwrap();
        project
    }

    fn python_in(&self, project: &Path, script: &str) -> Run {
        self.run_as(PERSON, &["--dir", project.to_str().unwrap()], &["python3", "-c", script])
            .timeout(Duration::from_mins(2))
    }

    /// Starts commands while `moves` runs, and checks that none can write to the file.
    fn check_protected(&self, project: &Path, moves: Run) {
        let moving = moves.start();
        let ready = wait_for(Duration::from_secs(20), || project.join("ready").exists().then_some(()));
        assert!(ready.is_some(), "{:?}", moving.finish());
        let started: Vec<String> = (0..12)
            .map(|_| self.python_in(project, OPENS).outcome())
            .map(|outcome| outcome.ok("the command that opens it"))
            .collect();
        fs::write(project.join("stop"), "").unwrap();
        moving.finish().ok("the command that moves it");
        assert!(started.iter().all(|out| out == "Read-only file system\n"), "{started:#?}");
        for name in ["ready", "stop"] {
            fs::remove_file(project.join(name)).unwrap();
        }
    }
}

#[test]
fn set_user_id_file_that_another_command_moves_is_protected() {
    let Some(stage) = Stage::new() else { return };
    let project = stage.project_with_set_user_id_file();
    stage.check_protected(&project, stage.python_in(&project, MOVES));
    // Another agent with the same project, started by root.
    let _ = stage.scene.daemon.add_agent("other", &["--user", "lp"]);
    let command =
        ["run", "--agent", "other", "--dir", project.to_str().unwrap(), "--", "python3", "-c", MOVES];
    stage.check_protected(&project, stage.scene.daemon.home().cli(&command).timeout(Duration::from_mins(2)));
}

/// A repository of Alice without the directories that git creates from its template.
fn repository(stage: &Stage) -> Option<PathBuf> {
    if !need::program("git repositories", "git", "git") {
        return None;
    }
    stage.allow_alice();
    let project = stage.home_of("alice").join("project");
    dir(&project, ALICE);
    let (uid, script) = (ALICE.to_string(), "git init -q . && rm -rf .git/hooks .git/info");
    let made = Run::new("setpriv").args(["--reuid", &uid, "--clear-groups", "sh", "-c", script]);
    made.env("HOME", "/").cwd(&project).outcome().ok("git init");
    Some(project)
}

fn placeholders(project: &Path) -> Vec<&'static str> {
    ["hooks", "info"].into_iter().filter(|name| project.join(".git").join(name).exists()).collect()
}

#[test]
fn git_directories_stay_protected_when_another_command_ends() {
    let Some(stage) = Stage::new() else { return };
    let Some(project) = repository(&stage) else { return };
    let options = ["--dir", project.to_str().unwrap()];
    let first = stage.alice(&options, "touch one; while ! [ -e two ]; do sleep 0.1; done").start();
    assert!(wait_for(Duration::from_secs(20), || project.join("one").exists().then_some(())).is_some());
    let second = stage
        .alice(
            &options,
            "touch two; while ! [ -e three ]; do sleep 0.1; done; mkdir -p .git/hooks; echo evil > .git/hooks/pre-commit",
        )
        .start();
    first.finish().ok("the first");
    file(&project.join("three"), "", ALICE);
    let second = second.finish();
    assert!(second.err().contains("Read-only file system"), "{second:?}");
    // The next command removes the files that both needed.
    stage.alice(&options, "true").outcome().ok("the third");
    assert_eq!(placeholders(&project), [] as [&str; 0]);
}

#[test]
fn processes_left_by_a_killed_launcher_process_are_killed() {
    let Some(stage) = Stage::new() else { return };
    let Some(project) = repository(&stage) else { return };
    let options = ["--dir", project.to_str().unwrap()];
    let running = stage
        .alice(
            &options,
            "exec < /dev/null > /dev/null 2>&1; trap '' HUP; echo $PPID > pid; while :; do sleep 1; done",
        )
        .start();
    let pid = wait_for(Duration::from_secs(20), || {
        fs::read_to_string(project.join("pid")).ok().and_then(|pid| pid.trim().parse().ok())
    });
    kill(Pid::from_raw(pid.expect("its parent")), Signal::SIGKILL).unwrap();
    assert_eq!(running.finish().code(), Some(125));
    let cgroup = stage.scene.daemon.agent_cgroup(&stage.robot);
    assert_eq!(placeholders(&project), ["hooks", "info"]);
    assert!(!processes(&cgroup).is_empty(), "the command continues");
    let outcome = stage.alice(&options, "true").outcome();
    outcome.ok("the next command");
    assert!(outcome.err().contains("lost its launcher"), "{outcome:?}");
    assert_eq!(placeholders(&project), [] as [&str; 0]);
    let empty = || processes(&cgroup).is_empty().then_some(());
    assert!(wait_for(Duration::from_secs(5), empty).is_some(), "the command still runs");
    let left = fs::read_dir(stage.scene.daemon.home().agents_dir().join(".state/runs")).unwrap().count();
    assert_eq!(left, 0);
}

/// The launcher process holds the view only for processes of its own command.
#[test]
fn launcher_process_ends_with_its_command_while_another_runs() {
    let Some(stage) = Stage::new() else { return };
    let project = stage.project();
    let options = ["--dir", project.to_str().unwrap()];
    let long =
        stage.run_as(PERSON, &options, &["sh", "-c", "touch on; while ! [ -e off ]; do sleep 0.1; done"]);
    let long = long.start();
    assert!(wait_for(Duration::from_secs(20), || project.join("on").exists().then_some(())).is_some());
    let short = stage.run_as(PERSON, &options, &["sh", "-c", "echo $PPID"]).outcome().ok("the short one");
    let place = Path::new("/proc").join(short.trim()).join("cmdline");
    // A zombie has no arguments.
    let ended = || fs::read(&place).unwrap_or_default().is_empty().then_some(());
    assert!(wait_for(Duration::from_secs(5), ended).is_some(), "its launcher process waits");
    file(&project.join("off"), "", ID);
    long.finish().ok("the long one");
    let cgroup = stage.scene.daemon.agent_cgroup(&stage.robot);
    let empty = || fs::read_dir(&cgroup).unwrap().all(|entry| !entry.unwrap().path().is_dir()).then_some(());
    assert!(wait_for(Duration::from_secs(5), empty).is_some(), "cgroups of ended commands remain");
}

/// A process of an earlier command holds leases (`F_SETLEASE`, fcntl(2)) on files that the launcher reads.
#[test]
fn leases_of_an_earlier_command_do_not_delay_the_next() {
    let Some(stage) = Stage::new() else { return };
    let project = stage.project();
    let leases = "import fcntl, os, signal, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
files = []
for number in range(20):
    os.makedirs(f'{number}', exist_ok=True)
    file = os.open(f'{number}/package.json', os.O_CREAT | os.O_RDWR)
    os.write(file, b'{\"scripts\":{\"a\":\"b\"}}')
    files.append(file)
if os.fork():
    time.sleep(0.5)
    os._exit(0)
os.setsid()
null = os.open('/dev/null', os.O_RDWR)
for standard in range(3):
    os.dup2(null, standard)
for file in files:
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
open('ready', 'w').close()
time.sleep(30)";
    stage.python_in(&project, leases).outcome().ok("the leases");
    assert!(wait_for(Duration::from_secs(10), || project.join("ready").exists().then_some(())).is_some());
    let start = Instant::now();
    stage.python_in(&project, "").outcome().ok("the next");
    // lease-break-time is 45 seconds.
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}
