//! Runs one command, isolated from the daemon's environment and limited in time.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use onecli_model::{Clock as _, SourceCommand};
use onecli_sys::{SystemClock, trusted};
use zeroize::Zeroizing;

use super::protocol::{LARGEST, RUNS_FOR};

/// The search path for programs that the command starts.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The interval at which a silent command is checked for its end.
const LOOK: Duration = Duration::from_millis(20);

/// The environment of a command, besides the search path.
pub(super) struct ExecEnvironment {
    /// The user that it runs as.
    pub(super) user: String,
    /// That user's home directory.
    pub(super) home: PathBuf,
}

/// Returns the output of the command if it succeeds. Standard error is discarded, because it may contain the value.
///
/// Kills the command and its process group in three cases: the time limit passes, the output is too large, or the
/// reader of `outcome` is gone. Leftover processes in its group are killed in any case. The caller ends processes
/// that left the group ([`privilege::end_children`](onecli_sys::privilege::end_children)).
pub(super) fn run(
    command: &SourceCommand,
    environment: &ExecEnvironment,
    outcome: &File,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let program = trusted::program(command.program().path())?;
    let mut child = Command::new(program)
        // Some programs select their function by the name under which they are called.
        .arg0(command.program().path())
        .args(command.arguments())
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .env("HOME", &environment.home)
        .env("USER", &environment.user)
        .env("LOGNAME", &environment.user)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("it cannot be executed: {error}"))?;
    let stdout = child.stdout.take();
    let mut group = Group { child, is_reaped: false };
    let Some(stdout) = stdout else { return Err("its output cannot be read".to_owned()) };
    let end = SystemClock.instant() + RUNS_FOR;
    let printed = read(stdout, &group, outcome, end)?;
    while !group.has_ended()? {
        in_time(end, outcome)?;
        std::thread::sleep(LOOK);
    }
    let status = group.end().map_err(|error| error.to_string())?;
    if status.success() { Ok(printed) } else { Err(format!("it ended with {status}")) }
}

/// Reads until the output ends or the command does. A leftover process may hold the output open.
fn read(
    mut stdout: ChildStdout,
    group: &Group,
    outcome: &File,
    end: Instant,
) -> Result<Zeroizing<Vec<u8>>, String> {
    fcntl(&stdout, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno| errno.to_string())?;
    // Fixed size: a reallocation would leave a copy in memory that is never zeroed.
    let mut printed = Zeroizing::new(vec![0; LARGEST + 1]);
    let mut length = 0;
    loop {
        // Query the process before reading the pipe: all output from before its end is then in the pipe.
        let ended = group.has_ended()?;
        match stdout.read(&mut printed[length..]) {
            Ok(0) if length > LARGEST => return Err(format!("it printed more than {LARGEST} bytes")),
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if ended {
                    break;
                }
                in_time(end, outcome)?;
                let mut readable = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
                let patience = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
                let _ = poll(&mut readable, patience);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("its output cannot be read: {error}")),
        }
    }
    printed.truncate(length);
    Ok(printed)
}

fn in_time(end: Instant, outcome: &File) -> Result<(), String> {
    if SystemClock.instant() >= end {
        return Err(format!("it did not end within {RUNS_FOR:?}"));
    }
    let mut listener = [PollFd::new(outcome.as_fd(), PollFlags::empty())];
    let listens = poll(&mut listener, PollTimeout::ZERO).is_ok_and(|changed| changed == 0);
    // POLLERR: the reader of the pipe is gone (poll(2)).
    if listens { Ok(()) } else { Err("the daemon no longer waits for its output".to_owned()) }
}

/// A command and the processes it started. Dropping this ends them.
struct Group {
    child: Child,
    is_reaped: bool,
}

impl Group {
    /// Returns whether the command has ended. Does not reap it, so that no other process receives its pid.
    fn has_ended(&self) -> Result<bool, String> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.pid()), flags) {
            Ok(status) => Ok(status != WaitStatus::StillAlive),
            Err(errno) => Err(errno.to_string()),
        }
    }

    /// Kills the remaining processes of the group. This happens before the command is reaped, because its pid may be
    /// reused afterwards.
    fn end(&mut self) -> io::Result<ExitStatus> {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        self.is_reaped = true;
        self.child.wait()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.is_reaped {
            let _ = self.end();
        }
    }
}
