//! A disk that can fail and lose power on request: a file system in user space (fuse(4)) that tracks synced data.
//!
//! It holds one directory of files, in memory. A power failure discards writes that are not synced yet: either all of
//! them, or all but a part that ends in the middle of a write.

mod fault;
mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{BackgroundSession, Config, MountOption};
use nix::mount::{MntFlags, umount2};
use parking_lot::Mutex;

pub use fault::Fault;
use server::{Server, State};

/// A disk with a [`Fault`], mounted over a directory. Drop unmounts it, even if a process still uses it.
pub struct FaultyDisk {
    dir: PathBuf,
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
}

impl FaultyDisk {
    /// Mounts an empty disk over `dir`, accessible to its owner alone. Returns `None` and notes it if this machine has
    /// no FUSE. Needs root: see [`crate::need::root`].
    #[must_use]
    pub fn over(dir: &Path) -> Option<Self> {
        let state = Arc::<Mutex<State>>::default();
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("faulty".to_owned()), MountOption::RW];
        match fuser::spawn_mount(Server { state: Arc::clone(&state) }, dir, &config) {
            Ok(session) => Some(Self { dir: dir.to_owned(), state, session: Some(session) }),
            Err(error) => {
                crate::need::note("a disk that fails", &format!("no file system in user space: {error}"));
                None
            }
        }
    }

    /// Makes the disk fail from now on.
    pub fn fail(&self, fault: Fault) {
        self.with(|state| state.fault = Some(fault));
    }

    /// Ends the fault.
    pub fn heal(&self) {
        self.with(|state| state.fault = None);
    }

    /// Cuts the power. Unsynced data is lost, except for a part that `chance` chooses, and all further writes are
    /// discarded. Kill the process that uses the disk, then call [`FaultyDisk::heal`].
    pub fn cut_power(&self, chance: u64) {
        self.with(|state| {
            state.fault = Some(Fault::Error);
            state.lose(chance);
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock())
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        self.heal();
        if let Err(e) = umount2(&self.dir, MntFlags::MNT_DETACH) {
            eprintln!("{} was not unmounted: {e}", self.dir.display());
        }
        // The session serves until the last file is closed. Processes with an open file are ended after this.
        std::mem::forget(self.session.take());
    }
}
