//! Waits for a command's end, and reports it to the client.

use std::io;
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::children::{Change, MAX_AT_ONCE, change};
use super::report::report;
use super::running::Running;
use crate::protocol::wire::{ClientMessage, LauncherMessage, LauncherSocket, PASSED_ON};
use crate::running::freeze::FrozenProcesses;
use crate::running::gate::HeldView;
use crate::running::watched_directory::WatchedDirectory;

/// Waits for the command's end, passes signals on, and reports to the client. `summary` returns the agent's refused
/// requests, and is called at the end.
pub(super) fn watch(
    socket: &LauncherSocket,
    mut running: Running,
    summary: &dyn Fn() -> Option<String>,
) -> io::Result<()> {
    let command = running.pid;
    let mut changes = SigSet::empty();
    changes.add(Signal::SIGCHLD);
    changes.thread_block()?;
    let reaper = SignalFd::with_flags(&changes, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut client = Some(socket);
    loop {
        // Checked first: the command may have changed before the signals were watched.
        let mut patience = PollTimeout::ZERO;
        for _ in 0..MAX_AT_ONCE {
            match change(command)? {
                Change::None => {
                    patience = PollTimeout::NONE;
                    break;
                }
                Change::Other => {}
                Change::Command(event @ LauncherMessage::Stopped(_)) => tell(client, &event),
                Change::Command(event) => {
                    report_changes(client, &mut running);
                    if client.is_some() {
                        report(client, summary());
                    }
                    tell(client, &event);
                    running.view.iter().for_each(HeldView::wait_for_processes);
                    running.run.end();
                    return Ok(());
                }
            }
        }
        let mut waiting = vec![PollFd::new(reaper.as_fd(), PollFlags::POLLIN)];
        if let Some(socket) = client {
            waiting.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut waiting, patience) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ordered = waiting.get(1).and_then(PollFd::any).unwrap_or(false);
        while reaper.read_signal()?.is_some() {}
        client = client.filter(|socket| !ordered || obey(socket, command));
    }
}

/// Executes the client's next order. Returns false if the client is gone, or sends an invalid order. The command then
/// loses its terminal, as after a hang-up.
fn obey(socket: &LauncherSocket, command: Pid) -> bool {
    match socket.receive::<ClientMessage>() {
        Ok(Some((ClientMessage::Answer(_), _))) => true,
        Ok(Some((ClientMessage::Signal(number), _))) => {
            if let Some(signal) = PASSED_ON.iter().find(|signal| **signal as i32 == number) {
                let _ = killpg(command, *signal);
            }
            true
        }
        Ok(None) | Err(_) => {
            let _ = killpg(command, Signal::SIGHUP);
            let _ = killpg(command, Signal::SIGCONT);
            false
        }
    }
}

fn tell(client: Option<&LauncherSocket>, event: &LauncherMessage) {
    if let Some(socket) = client {
        let _ = socket.send(event, &[]);
    }
}

/// Compares the directories with their earlier state. The placeholders are removed before the client receives the
/// command's end.
fn report_changes(client: Option<&LauncherSocket>, running: &mut Running) {
    // The remaining processes cannot hide files from the search.
    let others = running.run.others().map_err(|error| error.to_string());
    let frozen = others.and_then(|others| FrozenProcesses::of(&running.run.record, &others));
    let unheld = frozen.as_ref().err();
    report(client, unheld.map(|error| format!("the list of changed files may be incomplete: {error}")));
    report(client, running.leftovers.report());
    let mut directories = std::mem::take(&mut running.directories);
    report(client, directories.iter().flat_map(WatchedDirectory::end));
    drop(frozen);
    if running.run.needs_placeholders() {
        directories.iter_mut().for_each(WatchedDirectory::keep_placeholders);
        running.run.leave_placeholders();
    }
}
