//! A private terminal of the command, which carries all of its input and output.

use std::time::Duration;

use onecli_tests::client::Run;
use onecli_tests::need;

use super::{PERSON, Stage};

/// A user at a terminal: runs a program on one, follows the given steps, and prints the result.
const PERSON_AT_A_TERMINAL: &str = r#"
import fcntl, json, os, pty, select, signal, struct, sys, termios, time

def size(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

steps, command = json.loads(sys.argv[1]), sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    size(0, 31, 97)
    # A shell with job control in between, as in practice: it takes the terminal back when the job stops.
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i", "-c", 'set -m; trap : INT; echo "client $BASHPID"; "$@"; echo "status $?"; stty -a | grep -o -- "-\\?icanon"; jobs; fg >/dev/null 2>&1; echo "status $?"', "sh"] + command)
seen = b""
def until(text, limit=LIMIT):
    global seen
    end = time.time() + limit
    while text.encode() not in seen:
        left = end - time.time()
        if left <= 0:
            print(json.dumps({"missing": text, "seen": seen.decode(errors="replace")}))
            os.kill(pid, signal.SIGKILL)
            sys.exit(1)
        if select.select([terminal], [], [], left)[0]:
            try:
                seen += os.read(terminal, 4096)
            except OSError:
                seen += b"<hung up>"
for what, value in steps:
    if what == "see":
        until(value)
        seen = seen[seen.index(value.encode()) + len(value):]
    elif what == "type":
        os.write(terminal, value.encode())
    elif what == "size":
        size(terminal, *value)
    elif what == "pause":
        time.sleep(value)
    elif what == "kill":
        # The client: the leader of the terminal's foreground group.
        os.kill(os.tcgetpgrp(terminal), value)
print("done")
"#;

impl Stage {
    /// Runs `script` on a terminal, with `steps` in JSON.
    fn at_a_terminal(&self, script: &str, steps: &str) {
        self.on_a_terminal(&[], script, steps, 15);
    }

    /// Like `at_a_terminal`, with options of `onecli run`, for programs that need up to `limit` seconds per step.
    pub(super) fn on_a_terminal(&self, options: &[&str], script: &str, steps: &str, limit: u64) {
        let run = self.run_as(PERSON, options, &["sh", "-c", script]);
        let person = Run::new("python3")
            .args(["-c", &PERSON_AT_A_TERMINAL.replace("LIMIT", &limit.to_string()), steps])
            .arg(run.program())
            .args(run.arguments())
            .env("TERM", "xterm")
            .timeout(Duration::from_secs(2 * limit));
        assert_eq!(person.outcome().ok(script), "done\n", "{script}");
    }
}

fn able() -> Option<Stage> {
    if need::program("everything", "bash", "bash") { Stage::new() } else { None }
}

#[test]
fn command_has_its_own_terminal() {
    let Some(stage) = able() else { return };
    // The terminal belongs to the agent and has the size of the user's terminal. Echo, line editing and end of input
    // are separate.
    stage.at_a_terminal(
        "stty size; stat -c %U $(tty); [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo three; read x; echo got $x; cat; echo end",
        r#"[["see", "31 97"], ["see", "games"], ["see", "three"], ["type", "hallo\r"], ["see", "got hallo"],
            ["type", "line\r"], ["see", "line\r\nline"], ["type", "\u0004"], ["see", "end"], ["see", "status 0"], ["see", "icanon"]]"#,
    );
}

#[test]
fn window_size_changes_are_forwarded() {
    let Some(stage) = able() else { return };
    stage.at_a_terminal(
        "trap 'stty size' WINCH; echo ready; while ! [ -e /run/user/5/stop ]; do sleep 0.1; done",
        r#"[["see", "ready"], ["size", [40, 120]], ["see", "40 120"], ["size", [7, 20]], ["see", "7 20"], ["type", "\u0003"], ["see", "status 130"]]"#,
    );
}

#[test]
fn control_c_goes_to_the_command() {
    let Some(stage) = able() else { return };
    stage.at_a_terminal(
        "trap 'echo; echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done",
        r#"[["see", "ready"], ["type", "\u0003"], ["see", "caught"], ["see", "status 5"], ["see", "icanon"]]"#,
    );
    // Uncaught signals: the shell sees the same as for the command itself.
    stage.at_a_terminal(
        "echo ready; exec sleep 60",
        r#"[["see", "ready"], ["type", "\u0003"], ["see", "status 130"]]"#,
    );
}

#[test]
fn jobs_stop_and_continue() {
    let Some(stage) = able() else { return };
    // Ctrl-Z: the user's shell regains its terminal with the previous settings, and fg continues the command.
    stage.at_a_terminal(
        "echo ready; read x; echo got $x; exit 9",
        r#"[["see", "ready"], ["type", "\u001a"], ["see", "topped"], ["see", "status 148"], ["see", "icanon"], ["see", "topped"],
            ["type", "word\r"], ["see", "got word"], ["see", "status 9"]]"#,
    );
    // Jobs within it, controlled by a shell in it.
    stage.at_a_terminal(
        "bash --norc --noprofile -i",
        r#"[["see", "$ "], ["type", "echo go-$((1+1)); sleep 60\r"], ["see", "go-2"], ["pause", 0.3], ["type", "\u001a"], ["see", "topped"], ["type", "kill %1; fg; echo a-$((1+1))-b\r"],
            ["see", "a-2-b"], ["type", "exit 4\r"], ["see", "status 4"]]"#,
    );
}

/// A killed client cannot restore the terminal; it is restored nevertheless.
#[test]
fn killed_client_leaves_the_terminal_usable() {
    let Some(stage) = able() else { return };
    stage.at_a_terminal(
        "echo ready; exec sleep 60",
        r#"[["see", "ready"], ["kill", 9], ["see", "status 137"], ["see", "icanon"]]"#,
    );
}

/// An agent can make the launcher's process group the foreground group of its terminal, because that process leads the
/// session.
#[test]
fn control_c_does_not_end_the_launchers_process() {
    let Some(stage) = able() else { return };
    stage.at_a_terminal(
        r#"exec python3 -c "
import os, signal, time
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
os.tcsetpgrp(0, os.getsid(0))
print('ready', flush=True)
time.sleep(2)
os.tcsetpgrp(0, os.getpid())
print('still here', flush=True)
os._exit(7)""#,
        r#"[["see", "ready"], ["type", "\u0003\u001c\u001a"], ["see", "still here"], ["see", "status 7"], ["see", "icanon"]]"#,
    );
}

/// SIGSTOP stops the client as Ctrl-Z does if a shell can continue it.
#[test]
fn command_that_stops_itself_stops_its_job() {
    let Some(stage) = able() else { return };
    stage.at_a_terminal(
        "echo ready; kill -STOP $$; echo continued; exit 9",
        r#"[["see", "ready"], ["see", "topped"], ["see", "status 148"], ["see", "icanon"], ["see", "continued"], ["see", "status 9"]]"#,
    );
}
