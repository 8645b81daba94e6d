//! How much of the log each agent may cause, so that one agent's flood uses up its own part and nobody else's
//! (invariant 9).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::model::AgentId;

/// So many seconds' worth of records may come at once.
const BURST_SECONDS: f64 = 10.0;
/// The time that the bound on bytes is for.
const DAY_SECONDS: f64 = 86_400.0;
/// While the file system is running out, an agent may have caused one part in so many of the reserve.
const PARTS: u64 = 16;

/// What one agent may cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Records per second for long; ten times as many at once.
    pub rate: u32,
    /// Bytes in a day.
    pub bytes: u64,
    /// The space that is kept for the others, in bytes: while less is free, an agent that has caused more than a
    /// sixteenth of it in the last day has to wait.
    pub reserve: u64,
}

/// Which bound an agent has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaExceeded {
    /// [`QuotaLimits::rate`].
    Rate,
    /// [`QuotaLimits::bytes`].
    Bytes,
    /// [`QuotaLimits::reserve`].
    Reserve,
}

/// Counts for all agents: leaky buckets of records and of bytes.
#[derive(Debug)]
pub struct Quota {
    limits: QuotaLimits,
    used: Mutex<HashMap<AgentId, Used>>,
}

#[derive(Debug, Clone, Copy)]
struct Used {
    at: Instant,
    records: f64,
    bytes: f64,
}

impl Quota {
    /// Nobody has used anything.
    pub fn new(limits: QuotaLimits) -> Quota {
        Quota { limits, used: Mutex::default() }
    }

    /// Counts `records` of together about `bytes`, unless the agent has reached a bound.
    ///
    /// # Errors
    /// [`QuotaExceeded`]; nothing is counted then.
    pub fn take(
        &self,
        now: Instant,
        agent: AgentId,
        (records, bytes): (u32, u32),
        scarce: bool,
    ) -> Result<(), QuotaExceeded> {
        let QuotaLimits { rate, bytes: most, reserve } = self.limits;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let own = used.entry(agent).or_insert(Used { at: now, records: 0.0, bytes: 0.0 });
        let passed = now.saturating_duration_since(own.at).as_secs_f64();
        own.at = now;
        own.records = (own.records - passed * f64::from(rate)).max(0.0);
        own.bytes = (own.bytes - passed * float(most) / DAY_SECONDS).max(0.0);
        let (records, bytes) = (own.records + f64::from(records), own.bytes + f64::from(bytes));
        if records > f64::from(rate) * BURST_SECONDS {
            return Err(QuotaExceeded::Rate);
        }
        if bytes > float(most) {
            return Err(QuotaExceeded::Bytes);
        }
        if scarce && bytes > float(reserve / PARTS) {
            return Err(QuotaExceeded::Reserve);
        }
        (own.records, own.bytes) = (records, bytes);
        Ok(())
    }

    /// Forgets agents that have nothing left to count. To be called now and then.
    pub fn tidy(&self, now: Instant) {
        let rate = f64::from(self.limits.rate);
        let leak = float(self.limits.bytes) / DAY_SECONDS;
        self.used.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, used| {
            let passed = now.saturating_duration_since(used.at).as_secs_f64();
            used.records > passed * rate || used.bytes > passed * leak
        });
    }
}

#[expect(clippy::cast_precision_loss, reason = "a bound does not depend on the last of 53 bits")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn agent(number: u128) -> AgentId {
        AgentId(uuid::Uuid::from_u128(number))
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a point in time to reckon from")]
    fn a_flood_uses_up_its_own_part() {
        let start = Instant::now();
        let quota = Quota::new(QuotaLimits { rate: 10, bytes: 100_000, reserve: 16_000 });
        let taken = (0..1000).take_while(|_| quota.take(start, agent(1), (2, 10), false).is_ok()).count();
        assert_eq!(taken, 50, "ten seconds' worth");
        assert_eq!(quota.take(start, agent(1), (2, 10), false), Err(QuotaExceeded::Rate));
        assert_eq!(quota.take(start, agent(2), (2, 10), false), Ok(()), "another has its own");
        assert_eq!(quota.take(start + Duration::from_secs(1), agent(1), (2, 10), false), Ok(()));

        let later = start + Duration::from_secs(5);
        assert_eq!(quota.take(later, agent(3), (1, 100_001), false), Err(QuotaExceeded::Bytes));
        assert_eq!(quota.take(later, agent(3), (1, 2000), false), Ok(()));
        assert_eq!(quota.take(later, agent(3), (1, 1), true), Err(QuotaExceeded::Reserve));
        assert_eq!(quota.take(later, agent(4), (1, 900), true), Ok(()), "the reserve is for the others");
        quota.tidy(later + Duration::from_hours(1));
        assert_eq!(quota.used.lock().unwrap().len(), 0, "after an hour there is nothing left to count");
    }
}
