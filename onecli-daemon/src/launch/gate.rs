//! A command's view of the files, kept by the launcher as long as the command runs.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use nix::unistd::Pid;

/// The child's end: it waits with what is the agent's until the launcher holds its view.
#[derive(Debug)]
pub(super) struct Gate(UnixStream);

/// Both ends.
pub(super) fn pair() -> std::io::Result<(UnixStream, Gate)> {
    UnixStream::pair().map(|(ours, theirs)| (ours, Gate(theirs)))
}

impl Gate {
    /// Reports that the view is complete, and waits for the launcher. One that ended holds nothing up.
    pub(super) fn pass(&self) {
        let mut gate = &self.0;
        let _ = gate.write(&[1]);
        let _ = gate.read(&mut [0]);
    }
}

/// The view of a command, once it is complete. While it is held the kernel takes no mount of it apart: an agent that leaves it
/// for a view of its own, and was the last one in it, would have directories open without the mounts below them.
pub(super) fn hold_view(command: Pid, mut gate: UnixStream) -> Option<File> {
    // The end of the stream: it has no view, or was not started.
    gate.read_exact(&mut [0]).ok()?;
    let view = File::open(format!("/proc/{command}/ns/mnt")).ok();
    let _ = gate.write(&[1]);
    view
}
