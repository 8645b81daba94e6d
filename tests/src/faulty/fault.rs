//! Failure modes of the disk.

use std::time::Duration;

use fuser::Errno;

/// A failure mode of the disk. Reads still succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every change fails with EIO.
    Error,
    /// Every change fails with EROFS.
    ReadOnly,
    /// Every change fails with ENOSPC.
    Full,
    /// Writes succeed; fdatasync(2) and fsync(2) fail with EIO.
    Sync,
    /// Half of each write succeeds, then it fails with EIO. Every attempt to clean up also fails.
    Middle,
    /// Each sync takes this long.
    Slow(Duration),
}

impl Fault {
    /// The error of a change, if it fails.
    pub(super) fn of_change(self) -> Option<Errno> {
        match self {
            Fault::Error | Fault::Middle => Some(Errno::EIO),
            Fault::ReadOnly => Some(Errno::EROFS),
            Fault::Full => Some(Errno::ENOSPC),
            Fault::Sync | Fault::Slow(_) => None,
        }
    }
}
