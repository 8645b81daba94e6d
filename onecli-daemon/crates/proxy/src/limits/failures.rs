//! Limits on guessing tokens.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use onecli_limits::{Buckets, Rate, WhenFull};
use onecli_model::Clock;

/// Number of addresses whose failures are stored, each in less than 100 bytes.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Wrong tokens that one address may present at once, and again in each minute.
const FAILURES: f64 = 20.0;

/// Blocks addresses that guess tokens.
#[derive(Debug)]
pub(crate) struct FailureLimits {
    clock: Arc<dyn Clock>,
    by_address: Buckets<IpAddr>,
}

impl FailureLimits {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> FailureLimits {
        let rate = Rate::new(FAILURES, Duration::from_mins(1));
        FailureLimits { clock, by_address: Buckets::new(rate, REMEMBERED, WhenFull::ForgetOldest) }
    }

    /// Returns whether this address has failed too often recently.
    pub(crate) fn is_blocked(&self, address: IpAddr) -> bool {
        self.by_address.is_used_up(self.clock.instant(), &address)
    }

    /// Counts a wrong token.
    pub(crate) fn failed(&self, address: IpAddr) {
        self.by_address.take(self.clock.instant(), &address);
    }
}

#[cfg(test)]
mod tests {
    use onecli_sys::SystemClock;

    use super::*;

    #[test]
    fn address_is_blocked_after_many_failures() {
        let limits = FailureLimits::new(Arc::new(SystemClock));
        let address = "127.0.0.1".parse().unwrap();
        for _ in 0..20 {
            assert!(!limits.is_blocked(address));
            limits.failed(address);
        }
        assert!(limits.is_blocked(address));
        assert!(!limits.is_blocked("127.0.0.2".parse().unwrap()));
    }
}
