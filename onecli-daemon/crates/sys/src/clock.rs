//! The host's clocks.

use std::time::Instant;

use jiff::Timestamp;
use onecli_model::Clock;

/// Wall-clock and monotonic time (`clock_gettime(2)`).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[expect(clippy::disallowed_methods, reason = "the only place that reads the host's clocks")]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}
