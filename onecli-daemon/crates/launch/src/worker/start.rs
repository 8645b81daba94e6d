//! The command's process: a child of the worker, which becomes the command.
#![allow(unsafe_code, reason = "fork(2), and leaving the child without unwinding")]

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, Pid, fork, setpgid, setsid, tcsetpgrp};

use super::launch::Launch;
use crate::directories::handover::mapped;
use crate::error::LaunchError;
use crate::process::terminal::control;
use crate::protocol::wire::{LauncherMessage, LauncherSocket, Request};
use crate::running::freeze::FrozenProcesses;
use crate::running::gate::{self, Gate, HeldView};
use crate::view::project::Directory;

/// Signals that the worker ignores. It leads the session of the command's terminal. An agent can make the worker's
/// process group the terminal's foreground group (tcsetpgrp(3)), and then the kernel sends it the signals of typed
/// keys.
const IGNORED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGPIPE,
];

/// The command's open files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files<'f> {
    /// Standard input, output and error of the client.
    pub(super) standard: &'f [OwnedFd; 3],
    /// The terminal that replaces those of them that are terminals.
    pub(super) terminal: Option<&'f OwnedFd>,
}

pub(super) fn start(
    socket: &LauncherSocket,
    request: &Request,
    launch: Launch,
    directories: &[Directory],
    files: Files<'_>,
    frozen: FrozenProcesses,
) -> io::Result<(Pid, Option<HeldView>)> {
    // A new session: the command's terminal belongs to no other session, and signals that stop the command do not stop
    // its parent.
    setsid()?;
    if let Some(inner) = files.terminal {
        control(inner)?;
    }
    for signal in IGNORED {
        set(signal, SigHandler::SigIgn)?;
    }
    let (ours, theirs) = gate::pair()?;
    let cgroup = launch.cgroup.clone();
    // SAFETY: the launcher has one thread, so the child finds every lock as this thread left it.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(ours);
            let code = become_command(socket, request, launch, directories, files, frozen, &theirs);
            // SAFETY: ends the process without running cleanup that it shares with its parent.
            unsafe { libc::_exit(i32::from(code)) }
        }
        ForkResult::Parent { child } => {
            drop((theirs, frozen));
            // Both processes call it, because either may come first. The child may have become the command, or have
            // ended.
            let _ = setpgid(child, child);
            if let Some(inner) = files.terminal {
                let _ = tcsetpgrp(inner, child);
            }
            Ok((child, HeldView::of(child, ours, cgroup.as_deref())))
        }
    }
}

/// Returns only if the command was not started, after reporting that to the client.
fn become_command(
    socket: &LauncherSocket,
    request: &Request,
    launch: Launch,
    directories: &[Directory],
    files: Files<'_>,
    frozen: FrozenProcesses,
    gate: &Gate,
) -> u8 {
    let tell = |event: &LauncherMessage| {
        let _ = socket.send(event, &[]);
    };
    let mut notice = |text: &str| tell(&LauncherMessage::Notice(text.to_owned()));
    let started = (|| {
        let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
        if let Some(inner) = files.terminal {
            let _ = tcsetpgrp(inner, nix::unistd::getpid());
        }
        let system = |step| move |source: io::Error| LaunchError::Confine { step, source };
        for signal in IGNORED {
            set(signal, SigHandler::SigDfl).map_err(system("sigaction"))?;
        }
        let standards = [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO];
        let places = standards.into_iter().zip(request.terminals);
        for ((number, is_terminal), standard) in places.zip(files.standard) {
            let from = match files.terminal {
                Some(inner) if is_terminal => inner,
                _ => standard,
            };
            // SAFETY: takes two descriptors that are open, and closes a standard one that nothing here owns.
            if unsafe { libc::dup2(from.as_raw_fd(), number) } < 0 {
                return Err(system("dup2")(io::Error::last_os_error()));
            }
        }
        umask(Mode::from_bits_truncate(request.umask));
        let directories = mapped(directories, &launch.user, &mut notice)?;
        // A file that is moved from now on is detected as another file when it is mounted.
        drop(frozen);
        launch.exec(directories, &|| gate.pass(), &mut notice)
    })();
    match started {
        Ok(never) => match never {},
        Err(error) => {
            let code = error.exit_code();
            tell(&LauncherMessage::Failed { code, message: error.to_string() });
            code
        }
    }
}

/// Resets a signal to its default action for this process.
pub fn default_action(signal: Signal) {
    // SIGKILL has no other action.
    let _ = set(signal, SigHandler::SigDfl);
}

fn set(signal: Signal, handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: neither handler runs code of this program.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}
