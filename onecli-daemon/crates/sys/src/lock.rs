//! Exclusive locks between processes.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// A file or directory that this process alone holds, by flock(2). It is released when this is dropped or the process
/// ends for any reason.
#[derive(Debug)]
pub struct ExclusiveLock {
    _held: Flock<File>,
}

/// The reason why the lock is not available.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds the lock. Includes its id, if the kernel reports it.
    #[error("another daemon{} uses it", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Held {
        /// The process.
        pid: Option<u32>,
    },
    /// flock(2) failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ExclusiveLock {
    /// Takes the lock, or fails at once.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(file: File) -> Result<ExclusiveLock, LockError> {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Ok(ExclusiveLock { _held: held }),
            Err((file, Errno::EWOULDBLOCK)) => Err(LockError::Held { pid: holder(&file) }),
            Err((_, errno)) => Err(LockError::Io(errno.into())),
        }
    }
}

/// Returns the pid of the holder from `/proc/locks` (proc(5)): `1: FLOCK  ADVISORY  WRITE 4711 00:1f:42 0 EOF`.
fn holder(file: &File) -> Option<u32> {
    let inode = file.metadata().ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, place, ..] = words.as_slice() else { return None };
        // The device is not compared: on some file systems, stat(2) and the lock table report it differently.
        (place.rsplit(':').next() == Some(inode.as_str())).then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_lock_fails_with_the_pid_of_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let open = || File::open(dir.path()).unwrap();
        let first = ExclusiveLock::take(open()).unwrap();
        match ExclusiveLock::take(open()) {
            Err(LockError::Held { pid }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        ExclusiveLock::take(open()).unwrap();
    }
}
