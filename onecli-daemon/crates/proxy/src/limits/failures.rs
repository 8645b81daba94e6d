//! Limits on guessing tokens.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use onecli_model::Clock;
use parking_lot::Mutex;

/// Number of addresses whose failures are stored, each in less than 100 bytes.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Wrong tokens that one address may present in each window.
const FAILURES: u32 = 20;
/// The length of that window.
const WINDOW: Duration = Duration::from_mins(1);

/// Blocks addresses that guess tokens.
#[derive(Debug)]
pub(crate) struct FailureLimits {
    clock: Arc<dyn Clock>,
    by_address: Mutex<LruCache<IpAddr, (Instant, u32)>>,
}

impl FailureLimits {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> FailureLimits {
        FailureLimits { clock, by_address: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    /// Returns whether this address has failed too often recently.
    pub(crate) fn is_blocked(&self, address: IpAddr) -> bool {
        let now = self.clock.instant();
        let mut by_address = self.by_address.lock();
        by_address
            .get(&address)
            .is_some_and(|(since, count)| now.duration_since(*since) < WINDOW && *count >= FAILURES)
    }

    /// Counts a wrong token.
    pub(crate) fn failed(&self, address: IpAddr) {
        let now = self.clock.instant();
        let mut by_address = self.by_address.lock();
        let entry = by_address.get_or_insert_mut(address, || (now, 0));
        if now.duration_since(entry.0) >= WINDOW {
            *entry = (now, 0);
        }
        entry.1 += 1;
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
        for _ in 0..FAILURES {
            assert!(!limits.is_blocked(address));
            limits.failed(address);
        }
        assert!(limits.is_blocked(address));
        assert!(!limits.is_blocked("127.0.0.2".parse().unwrap()));
    }
}
