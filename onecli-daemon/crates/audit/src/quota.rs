//! How much of the log each agent may cause, so that one agent's flood uses up its own part and nobody else's
//! (invariant 9). Bytes are those on the disk, where each record lies twice: in the log's file and in the database.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use onecli_model::AgentId;

/// So many seconds' worth of records may come at once.
const BURST_SECONDS: f64 = 10.0;
/// The time that the bound on bytes is for.
const DAY_SECONDS: f64 = 86_400.0;
/// While the file system is running out, an agent may have caused one part in so many of the reserve, and in a day one
/// more.
const PARTS: u64 = 16;
/// What a line takes on the disk, in lines: itself, and its row with its entries in six indexes, which takes 1.4 (long
/// lines) to 1.75 (short ones) of it in SQLite.
const ON_DISK: u64 = 3;

/// What one agent may cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Records per second for long; ten times as many at once.
    pub rate: u32,
    /// Bytes on the disk in a day.
    pub bytes: u64,
    /// The space that is kept for the others, in bytes: while less is free, an agent has a sixteenth of it, less what it
    /// caused before, and gets back a sixteenth in a day.
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
    /// Of its part of the reserve, never more than that.
    reserve: f64,
}

impl Quota {
    /// Nobody has used anything.
    pub fn new(limits: QuotaLimits) -> Quota {
        Quota { limits, used: Mutex::default() }
    }

    /// Counts `records` whose lines together have so many bytes, unless the agent has reached a bound.
    ///
    /// # Errors
    /// [`QuotaExceeded`]; nothing is counted then.
    pub fn take(
        &self,
        now: Instant,
        agent: AgentId,
        (records, line_bytes): (u32, u64),
        scarce: bool,
    ) -> Result<(), QuotaExceeded> {
        self.update(now, agent, |own, limits| {
            let counted = own.with(records, line_bytes);
            if counted.records > f64::from(limits.rate) * BURST_SECONDS {
                return Err(QuotaExceeded::Rate);
            }
            if counted.bytes > float(limits.bytes) {
                return Err(QuotaExceeded::Bytes);
            }
            if scarce && counted.reserve > limits.part() {
                return Err(QuotaExceeded::Reserve);
            }
            *own = counted;
            Ok(())
        })
    }

    /// Counts what is written in any case, such as a count of refusals that were not.
    pub fn charge(&self, now: Instant, agent: AgentId, (records, line_bytes): (u32, u64)) {
        self.update(now, agent, |own, limits| {
            let counted = own.with(records, line_bytes);
            // It waits for what it may have at once, not for longer.
            own.records = counted.records.min(f64::from(limits.rate) * BURST_SECONDS);
            own.bytes = counted.bytes.min(float(limits.bytes));
            own.reserve = counted.reserve;
        });
    }

    fn update<T>(
        &self,
        now: Instant,
        agent: AgentId,
        change: impl FnOnce(&mut Used, &QuotaLimits) -> T,
    ) -> T {
        let limits = &self.limits;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let own = used.entry(agent).or_insert(Used { at: now, records: 0.0, bytes: 0.0, reserve: 0.0 });
        own.leak(now, limits);
        let result = change(own, limits);
        own.reserve = own.reserve.min(limits.part());
        result
    }

    /// Forgets agents that have nothing left to count. To be called now and then.
    pub fn tidy(&self, now: Instant) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, used| {
            used.leak(now, &self.limits);
            used.records > 0.0 || used.bytes > 0.0 || used.reserve > 0.0
        });
    }
}

impl QuotaLimits {
    /// One agent's part of the reserve.
    fn part(&self) -> f64 {
        float(self.reserve / PARTS)
    }
}

impl Used {
    fn leak(&mut self, now: Instant, limits: &QuotaLimits) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.records = (self.records - passed * f64::from(limits.rate)).max(0.0);
        self.bytes = (self.bytes - passed * float(limits.bytes) / DAY_SECONDS).max(0.0);
        self.reserve = (self.reserve - passed * limits.part() / DAY_SECONDS).max(0.0);
    }

    fn with(&self, records: u32, line_bytes: u64) -> Used {
        let bytes = float(line_bytes.saturating_mul(ON_DISK));
        Used {
            at: self.at,
            records: self.records + f64::from(records),
            bytes: self.bytes + bytes,
            reserve: self.reserve + bytes,
        }
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
        let quota = Quota::new(QuotaLimits { rate: 10, bytes: 300_000, reserve: 48_000 });
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
        quota.charge(later, agent(5), (1, 1_000_000));
        assert_eq!(quota.take(later, agent(5), (1, 1), false), Err(QuotaExceeded::Bytes), "it was written");
        let an_hour_later = later + Duration::from_hours(1);
        assert_eq!(quota.take(an_hour_later, agent(5), (1, 1), false), Ok(()));
        quota.tidy(later + Duration::from_hours(23));
        assert!(quota.used.lock().unwrap().contains_key(&agent(3)), "what it had of the reserve");
        quota.tidy(later + Duration::from_hours(26));
        assert_eq!(quota.used.lock().unwrap().len(), 0, "there is nothing left to count");
    }

    /// With the numbers of the default configuration: an agent that writes steadily, at just the rate that its day allows,
    /// does not eat up the reserve, hour by hour, while the disk is nearly full.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a point in time to reckon from")]
    fn the_reserve_outlasts_a_steady_flood() {
        const MIB: u64 = 1 << 20;
        let start = Instant::now();
        let quota = Quota::new(QuotaLimits { rate: 5000, bytes: 4 << 30, reserve: 256 * MIB });
        let line = 1000;
        // It was at it before the disk filled up, and one began only then.
        let flood = |agent_number: u128, from: u64, hours: u64, scarce: bool| -> u64 {
            let seconds = from * 3600..(from + hours) * 3600;
            let taken = seconds.flat_map(|second| std::iter::repeat_n(second, 17)).filter(|second| {
                let now = start + Duration::from_secs(*second);
                quota.take(now, agent(agent_number), (1, line), scarce).is_ok()
            });
            taken.count() as u64 * line * ON_DISK
        };
        assert!(flood(1, 0, 1, false) > 150 * MIB, "there is room");
        let (one, two) = (flood(1, 1, 24, true), flood(2, 1, 24, true));
        assert!(one <= 17 * MIB, "its part was used up before, and comes back in a day: {one}");
        assert!(two <= 33 * MIB, "its part, and what comes back in a day: {two}");
        let now = start + Duration::from_hours(25);
        for other in 3..=10 {
            assert_eq!(quota.take(now, agent(other), (1, line), true), Ok(()), "nobody else is refused");
        }
    }
}
