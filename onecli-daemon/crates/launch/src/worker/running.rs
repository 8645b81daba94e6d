//! A command that runs.

use nix::unistd::Pid;

use crate::running::gate::HeldView;
use crate::running::leftovers::Leftovers;
use crate::running::records::Run;
use crate::running::watched_directory::WatchedDirectory;

/// A running command, and the state that is compared when it ends.
pub(super) struct Running {
    pub(super) pid: Pid,
    pub(super) view: Option<HeldView>,
    pub(super) directories: Vec<WatchedDirectory>,
    pub(super) leftovers: Leftovers,
    pub(super) run: Run,
}
