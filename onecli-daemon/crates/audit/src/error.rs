//! Errors of the audit log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Errors of the audit log. The type is cloneable because one failed write is reported to many callers.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuditError {
    /// Another process has this log open for writing.
    #[error("the audit log {} is in use by another daemon", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The action that failed.
        action: &'static str,
        /// The error that the system returned.
        source: Arc<io::Error>,
    },
    /// The queue of unwritten records has reached its bound: the disk is too slow, or failing.
    #[error("{queued} audit records are waiting for the disk; requests are refused until they are written")]
    Overloaded {
        /// The number of queued records.
        queued: usize,
    },
    /// The disk did not finish a write in time. The queued records are still written later, but the daemon lets
    /// nothing through because of them.
    #[error("the disk of the audit log has not answered for {} seconds; requests are refused meanwhile", waited.as_secs())]
    Slow {
        /// How long the caller waited.
        waited: Duration,
    },
    /// The writer thread has ended.
    #[error("the audit log is closed")]
    Closed,
    /// A line that is not a record: it was edited, or it is damaged.
    #[error("{}, at byte {offset}: not an audit record: {reason}", path.display())]
    BadLine {
        /// The segment file.
        path: PathBuf,
        /// The offset at which the line begins.
        offset: u64,
        /// The reason.
        reason: String,
    },
}

impl AuditError {
    /// Wraps a system error with the file and the action that failed.
    pub(super) fn io(path: &Path, action: &'static str) -> impl Fn(io::Error) -> AuditError {
        move |source| AuditError::Io { path: path.to_owned(), action, source: Arc::new(source) }
    }
}
