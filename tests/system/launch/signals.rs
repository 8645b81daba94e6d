//! A command ends and stops correctly, whatever it does to the launcher process that waits for it.

use std::path::PathBuf;
use std::time::Duration;

use onecli_tests::client::Run;
use onecli_tests::need;

use super::people::dir;
use super::{PERSON, Stage};

/// The uid of [`PERSON`].
const ID: u32 = 2;

impl Stage {
    /// A project of the user.
    pub(super) fn project(&self) -> PathBuf {
        let path = self.scene.daemon.home().dir().join("project");
        dir(&path, ID);
        path
    }

    fn run_in_project(&self, command: &[&str]) -> Run {
        let project = self.project();
        self.run_as(PERSON, &["--dir", project.to_str().unwrap()], command).timeout(Duration::from_secs(20))
    }
}

/// `PTRACE_TRACEME` makes the launcher process the tracer of the program.
#[test]
fn program_that_asks_to_be_traced_runs_to_its_end() {
    let Some(stage) = Stage::new() else { return };
    let first = "import ctypes, os; assert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0; os.execvp('sh', ['sh', '-c', 'echo on; exit 5'])";
    let outcome = stage.run_in_project(&["python3", "-c", first]).outcome();
    assert_eq!((outcome.code(), outcome.out()), (Some(5), "on\n".to_owned()), "{outcome:?}");
    let signalled = "import ctypes, os, signal
assert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0
signal.signal(signal.SIGUSR1, lambda *_: os._exit(6))
os.kill(os.getpid(), signal.SIGUSR1)";
    let outcome = stage.run_in_project(&["python3", "-c", signalled]).outcome();
    assert_eq!(outcome.code(), Some(6), "{outcome:?}");
}

/// The kernel reports the end of a process after its tracer has waited for its threads.
#[test]
fn thread_that_asks_to_be_traced_does_not_delay_the_end() {
    let Some(stage) = Stage::new() else { return };
    let thread = "import ctypes, os, threading, time
def traced():
    assert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0
    time.sleep(60)
threading.Thread(target=traced).start()
time.sleep(0.3)
os._exit(3)";
    let outcome = stage.run_in_project(&["python3", "-c", thread]).outcome();
    assert_eq!(outcome.code(), Some(3), "{outcome:?}");
}

/// clone(2) with `CLONE_PARENT` gives the launcher process more children than the command.
#[test]
fn siblings_of_the_command_are_not_mistaken_for_it() {
    let Some(stage) = Stage::new() else { return };
    let siblings = "import ctypes, os, time
number = {'x86_64': 56, 'aarch64': 220, 'riscv64': 220}[os.uname().machine]
for _ in range(200):
    # CLONE_PARENT | SIGCHLD
    if ctypes.CDLL(None).syscall(number, 0x8011, 0, 0, 0, 0) == 0:
        os._exit(9)
time.sleep(1)
print(open(f'/proc/{os.getppid()}/task/{os.getppid()}/children').read().split() == [str(os.getpid())])";
    let outcome = stage.run_in_project(&["python3", "-c", siblings]).outcome();
    assert_eq!(outcome.ok("siblings"), "True\n", "the launcher process reaps them: {outcome:?}");
}

#[test]
fn command_that_a_real_time_signal_ends_is_reported_like_any_other() {
    let Some(stage) = Stage::new() else { return };
    let outcome = stage.run_in_project(&["bash", "-c", "echo evil > .envrc; kill -40 $$"]).outcome();
    assert_eq!(outcome.code(), Some(128 + 40), "{outcome:?}");
    assert!(outcome.err().contains("new: ") && outcome.err().contains(".envrc"), "{outcome:?}");
}

/// No shell would continue the client: its process group has none (`setsid`).
#[test]
fn command_that_stops_does_not_stop_a_client_without_a_shell() {
    let Some(stage) = Stage::new() else { return };
    if !need::program("everything", "setsid", "util-linux") {
        return;
    }
    for signal in ["STOP", "TSTP", "TTIN", "TTOU"] {
        let script = format!("(sleep 1; kill -CONT $$) & kill -{signal} $$; echo continued; wait");
        let run = stage.run_in_project(&["bash", "-c", &script]);
        let run = Run::new("setsid")
            .arg("--wait")
            .arg(run.program())
            .args(run.arguments())
            .timeout(Duration::from_secs(20));
        assert_eq!(run.outcome().ok(signal), "continued\n");
    }
}
