//! A disk that can be told to fail, and to lose power: a file system in user space (fuse(4)) that knows what was synced.
//!
//! It holds one directory of files, in memory. What was written and not yet synced is what a power failure takes; all
//! of it, or all but a part that ends in the middle of a write.

mod server;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fuser::{BackgroundSession, Config, Errno, MountOption};
use nix::mount::{MntFlags, umount2};

use server::{Server, State};

/// How a disk fails. Reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every change is answered with EIO.
    Error,
    /// Every change is answered with EROFS.
    ReadOnly,
    /// Every change is answered with ENOSPC.
    Full,
    /// Writes are taken, fdatasync(2) and fsync(2) are answered with EIO.
    Sync,
    /// Half of each write is taken, then EIO; and so is every attempt to clean up.
    Middle,
    /// Each sync takes so long.
    Slow(Duration),
}

/// A [`Fault`]-prone disk over a directory. Dropping it unmounts it, also under a process that still uses it.
pub struct FaultyDisk {
    dir: PathBuf,
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
}

impl FaultyDisk {
    /// Mounts an empty one over `dir`, for its owner alone; `None`, and noted, where this machine has no FUSE. Needs
    /// root: see [`crate::need::root`].
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

    /// Makes it fail from now on.
    pub fn fail(&self, fault: Fault) {
        self.with(|state| state.fault = Some(fault));
    }

    /// Ends that.
    pub fn heal(&self) {
        self.with(|state| state.fault = None);
    }

    /// Takes the power away: what was not synced is lost, but for a part of it that `chance` chooses, and nothing is written
    /// any more. Kill who uses it, then [`FaultyDisk::heal`].
    pub fn cut_power(&self, chance: u64) {
        self.with(|state| {
            state.fault = Some(Fault::Error);
            state.lose(chance);
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        self.heal();
        if let Err(e) = umount2(&self.dir, MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {e}", self.dir.display());
        }
        // It serves until the last file is closed: whoever has one open is ended after us.
        std::mem::forget(self.session.take());
    }
}

impl Fault {
    /// What a change is answered with.
    fn of_change(self) -> Option<Errno> {
        match self {
            Fault::Error | Fault::Middle => Some(Errno::EIO),
            Fault::ReadOnly => Some(Errno::EROFS),
            Fault::Full => Some(Errno::ENOSPC),
            Fault::Sync | Fault::Slow(_) => None,
        }
    }
}
