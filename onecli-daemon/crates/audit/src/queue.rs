//! The queue between the handles of the log and its writer.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{oneshot, watch};

use super::error::AuditError;
use super::fields::Record;

/// Proof that a decision's record is written. With strict durability it is on disk. With relaxed durability the
/// kernel has it, and it reaches the disk within about a second. Injection requires this proof.
#[derive(Debug)]
pub struct Durable {
    seq: u64,
}

impl Durable {
    pub(super) fn new(seq: u64) -> Durable {
        Durable { seq }
    }

    /// Sequence number of the record.
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) queued: AtomicUsize,
    pub(super) lost: AtomicU64,
    /// The reason why the last write failed, if it did.
    pub(super) fault: watch::Sender<Option<AuditError>>,
    pub(super) reserve: u64,
    pub(super) scarce: AtomicBool,
}

impl Shared {
    /// Checks whether the file system is running out of space.
    pub(super) fn check_free_space(&self, dir: &Path) {
        if let Ok(found) = nix::sys::statvfs::statvfs(dir) {
            let free = found.blocks_available() * found.fragment_size();
            self.scarce.store(free < self.reserve, Ordering::Relaxed);
        }
    }
}

type Ack<T> = oneshot::Sender<Result<T, AuditError>>;

#[derive(Debug)]
pub(super) enum Item {
    Decision(Box<Record>, Ack<Durable>),
    Outcome(Box<Record>),
    Flush(Ack<()>),
    Close(Ack<()>),
}
