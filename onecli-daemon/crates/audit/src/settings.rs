//! The settings that a log is opened with.

use std::sync::Arc;

use onecli_model::{Clock, LogId};

use super::checkpoint::Signer;
use super::retention::Retention;

/// When a record counts as written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// After fdatasync(2) has returned. The record survives the end of the daemon and a power failure.
    #[default]
    Strict,
    /// After write(2) has returned. The record survives the end of the daemon, even by SIGKILL. A power failure or
    /// a kernel crash can lose the last second.
    Relaxed,
}

/// The settings that a log is opened with.
#[derive(Debug)]
pub struct Settings {
    /// The source of time.
    pub clock: Arc<dyn Clock>,
    /// The signer of checkpoints.
    pub signer: Signer,
    /// The id for a new log, if one must be started.
    pub fresh: LogId,
    /// The last known state of this log from a source other than its directory.
    pub known: Option<LastKnown>,
    /// When a record counts as written.
    pub durability: Durability,
    /// How much of the log is retained.
    pub retention: Retention,
    /// The threshold for [`space_is_scarce`](crate::AuditLog::space_is_scarce): free bytes on the log's file system.
    pub reserve: u64,
}

/// The state of a log according to a source other than its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastKnown {
    /// The id of the log.
    pub log: LogId,
    /// The last record known there: number and line.
    pub last: Option<(u64, String)>,
}

#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, reason = "a fixture")]
impl Settings {
    /// For tests: a fixed key and the host's clock.
    ///
    /// # Panics
    /// The fixed key is refused.
    pub fn for_tests() -> Settings {
        Settings {
            clock: Arc::new(onecli_sys::SystemClock),
            signer: Signer::from_seed(&[7; 32]).unwrap(),
            fresh: LogId(uuid::Uuid::from_u128(0xfe)),
            known: None,
            durability: Durability::Strict,
            retention: Retention::default(),
            reserve: 0,
        }
    }
}
