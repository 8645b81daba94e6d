//! Waits for a command's end, and reports it to the client.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::super::gate::HeldView;
use super::super::watched::Watched;
use super::super::wire::{Event, Order, Wire};
use super::prepare::Running;

/// Signals that a client may pass on.
const PASSED_ON: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// Waits for the command's end, passes signals on, and tells the client what becomes of it.
pub(super) fn watch(wire: &Wire, mut running: Running) -> io::Result<()> {
    let command = running.pid;
    let mut changes = SigSet::empty();
    changes.add(Signal::SIGCHLD);
    changes.thread_block()?;
    let reaper = SignalFd::with_flags(&changes, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut client = Some(wire);
    loop {
        // Looked at first: it may have changed before anybody was watching.
        while let Some(event) = change(command)? {
            let ended = !matches!(event, Event::Stopped(_));
            if ended {
                report(client, running.leftovers.report());
                // With what was made for the command, which goes before the client reads that it has ended.
                let directories = std::mem::take(&mut running.directories);
                report(client, directories.iter().flat_map(Watched::end));
            }
            if let Some(wire) = client {
                let _ = wire.send(&event, &[]);
            }
            if ended {
                running.view.iter().for_each(HeldView::wait_for_processes);
                return Ok(());
            }
        }
        let mut waiting = vec![PollFd::new(reaper.as_fd(), PollFlags::POLLIN)];
        if let Some(wire) = client {
            waiting.push(PollFd::new(wire.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ordered = waiting.get(1).and_then(PollFd::any).unwrap_or(false);
        while reaper.read_signal()?.is_some() {}
        if let Some(wire) = client.filter(|_| ordered) {
            match wire.receive::<Order>() {
                Ok(Some((Order::Answer(_), _))) => {}
                Ok(Some((Order::Signal(number), _))) => {
                    if let Some(signal) = PASSED_ON.iter().find(|signal| **signal as i32 == number) {
                        let _ = killpg(command, *signal);
                    }
                }
                // The client is gone, or talks nonsense: the command loses its terminal, as by a hang-up.
                Ok(None) | Err(_) => {
                    let _ = killpg(command, Signal::SIGHUP);
                    let _ = killpg(command, Signal::SIGCONT);
                    client = None;
                }
            }
        }
    }
}

/// Tells of files that the agent should not have left or changed; the launcher's log, where the client is gone.
fn report(client: Option<&Wire>, lines: impl IntoIterator<Item = String>) {
    for line in lines {
        let sent = client.is_some_and(|wire| wire.send(&Event::Notice(line.clone()), &[]).is_ok());
        if !sent {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

/// What has become of the command since the last look.
fn change(command: Pid) -> io::Result<Option<Event>> {
    Ok(match waitpid(command, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED))? {
        WaitStatus::Exited(_, status) => Some(Event::Exited(status)),
        WaitStatus::Signaled(_, signal, _) => Some(Event::Killed(signal as i32)),
        WaitStatus::Stopped(_, signal) => Some(Event::Stopped(signal as i32)),
        _ => None,
    })
}
