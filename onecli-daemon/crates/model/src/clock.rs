//! Time as an argument, so that tests decide what time it is.

use std::time::Instant;

use jiff::Timestamp;

/// Where the daemon reads time from.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Wall-clock time, for records and expiry.
    fn now(&self) -> Timestamp;
    /// Monotonic time, for durations.
    fn instant(&self) -> Instant;
}
