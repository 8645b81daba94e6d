//! A command's view of the files, which the launcher holds as long as a process of the command may use it.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::process::cgroup::{self, path_in_hierarchy, unified_path};

/// Interval at which the launcher checks a cgroup without an event, in milliseconds.
const LOOK_EVERY: u16 = 10_000;

/// The child's end. The child waits with the agent's directories until the launcher holds its view.
#[derive(Debug)]
pub(crate) struct Gate(UnixStream);

/// Creates both ends.
pub(crate) fn pair() -> std::io::Result<(UnixStream, Gate)> {
    UnixStream::pair().map(|(ours, theirs)| (ours, Gate(theirs)))
}

impl Gate {
    /// Reports that the view is complete, and waits for the launcher. If the launcher has exited, the child continues.
    pub(crate) fn pass(&self) {
        let mut gate = &self.0;
        let _ = gate.write(&[1]);
        let _ = gate.read(&mut [0]);
    }
}

/// The view of a command. While it is held, the kernel does not dissolve its mounts. Otherwise a process could leave
/// the view for one of its own with a directory open, and would reach the files below it without the mounts that
/// protect them.
#[derive(Debug)]
pub(crate) struct HeldView {
    _view: File,
    /// The cgroup of the command's processes, if known.
    cgroup: Option<PathBuf>,
}

impl HeldView {
    /// Returns the view of `command`, once it is complete. `agent` is the directory of the agent's cgroup.
    pub(crate) fn of(command: Pid, mut gate: UnixStream, agent: Option<&Path>) -> Option<HeldView> {
        // At the end of the stream the command has no view, or was not started.
        gate.read_exact(&mut [0]).ok()?;
        let view = File::open(format!("/proc/{command}/ns/mnt")).ok();
        let cgroup = agent.map(|agent| own_cgroup(command, agent).unwrap_or_else(|| agent.to_owned()));
        let _ = gate.write(&[1]);
        view.map(|view| HeldView { _view: view, cgroup })
    }

    /// Waits until the cgroup has no process, because each may have a directory of the view open. Then removes it.
    pub(crate) fn wait_for_processes(&self) {
        let Some(cgroup) = &self.cgroup else { return };
        wait_until_empty(cgroup);
        cgroup::remove(cgroup);
    }

    /// The cgroup of the command's processes, if known.
    pub(crate) fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref()
    }
}

fn wait_until_empty(cgroup: &Path) {
    let Ok(mut events) = File::open(cgroup.join("cgroup.events")) else { return };
    loop {
        // The kernel reports changes since the file was last read as POLLPRI (cgroups(7)).
        if !is_populated(&mut events) {
            return;
        }
        let _ = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], PollTimeout::from(LOOK_EVERY));
    }
}

/// Returns the command's own cgroup, which is below the agent's if systemd makes scopes.
fn own_cgroup(command: Pid, agent: &Path) -> Option<PathBuf> {
    let memberships = fs::read_to_string(format!("/proc/{command}/cgroup")).ok()?;
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let below =
        Path::new(unified_path(&memberships)?).strip_prefix(path_in_hierarchy(&mountinfo, agent)?).ok()?;
    Some(agent.join(below))
}

/// Reads a `cgroup.events` file. If it cannot be read, the cgroup was removed.
fn is_populated(events: &mut File) -> bool {
    let mut text = String::new();
    events.seek(SeekFrom::Start(0)).is_ok()
        && events.read_to_string(&mut text).is_ok()
        && text.lines().any(|line| line == "populated 1")
}
