//! Runs one command: nothing of ours reaches it, and it ends when its time is over.

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

use super::{LARGEST, RUNS_FOR};

/// Where programs of the host look for others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How often it is looked whether a command has ended that says nothing.
const LOOK: Duration = Duration::from_millis(20);

/// What a command finds in its environment, besides where programs are.
pub(super) struct Surroundings {
    /// Who it runs as.
    pub(super) user: String,
    /// That user's home directory.
    pub(super) home: PathBuf,
}

/// What the command prints, if it ends well. What it writes to standard error is nobody's: it may be the value.
///
/// It is killed, with its process group, when its time is over, when it prints too much, and when nobody reads `outcome` any
/// more; what it leaves behind in its group is killed in any case. What left the group is for who called this to end
/// ([`privilege::end_children`](onecli_sys::privilege::end_children)).
pub(super) fn run(
    command: &SourceCommand,
    surroundings: &Surroundings,
    outcome: &File,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let program = trusted::program(command.program().path())?;
    let mut child = Command::new(program)
        // Some programs are several, by the name they are called.
        .arg0(command.program().path())
        .args(command.arguments())
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .env("HOME", &surroundings.home)
        .env("USER", &surroundings.user)
        .env("LOGNAME", &surroundings.user)
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

/// Reads until the output ends, or the command has: something that it left behind may hold the output open.
fn read(
    mut stdout: ChildStdout,
    group: &Group,
    outcome: &File,
    end: Instant,
) -> Result<Zeroizing<Vec<u8>>, String> {
    fcntl(&stdout, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno| errno.to_string())?;
    // Never grown: a reallocation would leave a copy behind that nobody zeroes.
    let mut printed = Zeroizing::new(vec![0; LARGEST + 1]);
    let mut length = 0;
    loop {
        // Asked before the pipe is: what was printed before its end is in the pipe then.
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
                let mut told = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
                let patience = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
                let _ = poll(&mut told, patience);
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
    // The reader of a pipe is gone: POLLERR (poll(2)).
    if listens { Ok(()) } else { Err("nobody waits for it any more".to_owned()) }
}

/// A command and what it started, which end with this.
struct Group {
    child: Child,
    is_reaped: bool,
}

impl Group {
    /// Has the command ended? It is not reaped: until then nobody else gets its number.
    fn has_ended(&self) -> Result<bool, String> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.pid()), flags) {
            Ok(status) => Ok(status != WaitStatus::StillAlive),
            Err(errno) => Err(errno.to_string()),
        }
    }

    /// Kills what is left of it. Before it is reaped: afterwards its number may be another's.
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
