//! The executor's side: accepts commands from the daemon only and runs a limited number at a time.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, Uid, User};
use onecli_model::{SourceCommand, error_chain};
use onecli_sys::privilege::{self, Channel};

use super::command::{self, ExecEnvironment};
use super::protocol::{FAILED, PRINTED, Request};
use crate::process::AppError;
use crate::process::peer::{check, owner};
use crate::process::service_manager as manager;

/// The maximum number of commands that run at a time.
const MOST: usize = 16;
/// The time that a connected daemon has to send its request.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time during which leftover processes of a command may still start others.
const LEFT_BEHIND: Duration = Duration::from_secs(2);

/// Switches to `user` and serves the daemon that forked this process until that daemon ends.
pub(super) fn child(daemon: &Channel, user: &User) {
    let begun = privilege::become_user(user.uid, user.gid).and_then(|()| privilege::filter_executor());
    if let Err(error) = begun {
        tracing::error!(error = error_chain(&error), "the executor process cannot start");
        return;
    }
    let mut pool = CommandPool::new(ExecEnvironment { user: user.name.clone(), home: user.dir.clone() });
    loop {
        match daemon.receive() {
            Ok(Some((message, descriptors))) => pool.take(&message, descriptors),
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "the executor process cannot receive requests from the daemon");
                break;
            }
        }
    }
    pool.end();
}

/// Serves daemons as a separate service with a user of its own, until it is killed.
pub(crate) fn service(daemon_cgroup: &std::path::Path) -> Result<(), AppError> {
    let own = Uid::effective();
    if own.is_root() {
        return Err(AppError::Executor(
            "it runs commands and must not run as root: set User= in its unit".to_owned(),
        ));
    }
    privilege::forbid_inspection()?;
    privilege::keep_capabilities(&[])?;
    let listener = match <[(String, OwnedFd); 1]>::try_from(privilege::inherited_sockets()) {
        Ok([(_, listener)]) => listener,
        Err(passed) => {
            let found = passed.len();
            return Err(AppError::Executor(format!(
                "it must be started by onecli-executor.socket, which passes one socket; it received {found}"
            )));
        }
    };
    let daemon_user = owner(&listener).map_err(AppError::Socket)?;
    if daemon_user == own.as_raw() {
        return Err(AppError::Executor(
            "its user is the daemon's, which can read the root key: set another User= in its unit".to_owned(),
        ));
    }
    let user = User::from_uid(own).ok().flatten();
    let (user, home) =
        user.map_or_else(|| (own.to_string(), PathBuf::from("/")), |user| (user.name, user.dir));
    let mut pool = CommandPool::new(ExecEnvironment { user, home });
    privilege::filter_executor()?;
    manager::ready("ready to run commands");
    loop {
        let daemon = Channel::accept(&listener).map_err(AppError::Socket)?;
        if let Err(reason) = check(&daemon, daemon_user, daemon_cgroup) {
            tracing::warn!(reason, "refused a process that is not the daemon");
            continue;
        }
        let asked = daemon.set_patience(PATIENCE).and_then(|()| daemon.receive());
        match asked {
            Ok(Some((message, descriptors))) => pool.take(&message, descriptors),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "cannot receive the request of a daemon"),
        }
    }
}

/// Processes that run one command each. Each process can find the leftover processes of its command, which a thread
/// could not. The output of a command is never in the memory of a process that runs another.
struct CommandPool {
    environment: ExecEnvironment,
    busy: Vec<Pid>,
}

impl CommandPool {
    fn new(environment: ExecEnvironment) -> CommandPool {
        CommandPool { environment, busy: Vec::with_capacity(MOST) }
    }

    /// Executes the request in a message and writes the outcome to the passed descriptor.
    fn take(&mut self, message: &[u8], mut descriptors: Vec<OwnedFd>) {
        let (Ok(request), Some(outcome), true) =
            (serde_json::from_slice::<Request>(message), descriptors.pop(), descriptors.is_empty())
        else {
            tracing::warn!("received a malformed request from the daemon");
            return;
        };
        self.busy.retain(|pid| !has_ended(*pid, Some(WaitPidFlag::WNOHANG)));
        if self.busy.len() >= MOST {
            let reason = format!("{MOST} other commands are running");
            tell(&File::from(outcome), FAILED, reason.as_bytes());
            return;
        }
        let environment = &self.environment;
        let begun = privilege::fork_off(c"onecli-runner", outcome, |outcome| {
            run_one(&request.command, environment, &File::from(outcome));
        });
        match begun {
            Ok(pid) => self.busy.push(pid),
            Err(error) => tracing::error!(error = error_chain(&error), "cannot start a command"),
        }
    }

    /// Waits until no command runs. A command is ended when its reader closes the pipe.
    fn end(&mut self) {
        self.busy.retain(|pid| !has_ended(*pid, None));
    }
}

/// Treats a process that cannot be waited for as ended.
fn has_ended(pid: Pid, flags: Option<WaitPidFlag>) -> bool {
    loop {
        match waitpid(pid, flags) {
            Err(Errno::EINTR) => {}
            status => return status != Ok(WaitStatus::StillAlive),
        }
    }
}

/// The main function of a process that runs one command.
fn run_one(command: &SourceCommand, environment: &ExecEnvironment, outcome: &File) {
    if let Err(error) = privilege::keep_apart() {
        tracing::warn!(%error, "cannot prevent a command from inspecting other processes");
    }
    if let Err(error) = privilege::adopt_orphans() {
        return tell(outcome, FAILED, format!("its child processes cannot be tracked: {error}").as_bytes());
    }
    let ended = command::run(command, environment, outcome);
    // Includes processes outside the command's process group and processes in a session of their own.
    if let Err(error) = privilege::end_children(LEFT_BEHIND) {
        tracing::error!(%error, "cannot end the processes that a command left behind");
    }
    match ended {
        Ok(printed) => tell(outcome, PRINTED, &printed),
        Err(reason) => tell(outcome, FAILED, reason.as_bytes()),
    }
}

/// Writes the outcome. Ignores a closed pipe.
fn tell(mut outcome: &File, kind: u8, what: &[u8]) {
    let _ = outcome.write_all(&[kind]).and_then(|()| outcome.write_all(what));
}
