//! Why a record is not on the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What can go wrong in the audit log. Cloneable, because one failed write answers many callers.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuditError {
    /// Another process writes this log.
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
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// More records are waiting than memory is meant to hold: the disk is too slow, or failing.
    #[error("{queued} audit records are waiting for the disk; nothing is let through until they are written")]
    Overloaded {
        /// How many are waiting.
        queued: usize,
    },
    /// The disk takes longer than anybody should wait. What waits is written when it is done, but nothing is let through
    /// on its account.
    #[error("the disk of the audit log has not answered for {} seconds; nothing is let through meanwhile", waited.as_secs())]
    Slow {
        /// How long was waited.
        waited: Duration,
    },
    /// The writer has ended.
    #[error("the audit log is closed")]
    Closed,
    /// A line that is no record: edited, or damaged.
    #[error("{}, at byte {offset}: not an audit record: {reason}", path.display())]
    BadLine {
        /// The segment file.
        path: PathBuf,
        /// Where the line begins.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
}

impl AuditError {
    /// Wraps the system's answer with the file and what was tried.
    pub(super) fn io(path: &Path, action: &'static str) -> impl Fn(io::Error) -> AuditError {
        move |source| AuditError::Io { path: path.to_owned(), action, source: Arc::new(source) }
    }
}
