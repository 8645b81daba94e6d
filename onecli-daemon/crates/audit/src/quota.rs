//! The audit quota of each agent, so that a flood from one agent uses only that agent's part of the log (invariant
//! 9). Bytes are counted on disk, where each record is stored twice: in the log's file and in the database.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use onecli_limits::{Bucket, Rate};
use onecli_model::AgentId;
use parking_lot::Mutex;

/// The burst: records for this many seconds may arrive at once.
const BURST: Duration = Duration::from_secs(10);
/// The period of the bound on bytes.
const DAY: Duration = Duration::from_hours(24);
/// The divisor of the reserve. While the file system is running out of space, an agent may use one such part of the
/// reserve, and one more each day.
const PARTS: u64 = 16;
/// The disk space of a record, in lines: the line itself, and its row with its entries in six indexes. In SQLite
/// the row takes 1.4 (long lines) to 1.75 (short lines) times the line.
const ON_DISK: u64 = 3;

/// The bounds for one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Sustained records per second; ten times as many at once.
    pub rate: u32,
    /// Bytes on disk in a day.
    pub bytes: u64,
    /// The space reserved for the other agents, in bytes. While less is free, an agent may use a sixteenth of it,
    /// minus its earlier use, and regains a sixteenth each day.
    pub reserve: u64,
}

/// The bound that an agent has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaExceeded {
    /// [`QuotaLimits::rate`].
    Rate,
    /// [`QuotaLimits::bytes`].
    Bytes,
    /// [`QuotaLimits::reserve`].
    Reserve,
}

/// Counters for all agents: leaky buckets of records and of bytes.
#[derive(Debug)]
pub struct Quota {
    limits: QuotaLimits,
    used: Mutex<HashMap<AgentId, Used>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Used {
    records: Bucket,
    bytes: Bucket,
    /// The agent's use of its part of the reserve.
    reserve: Bucket,
}

impl Quota {
    /// Creates a quota in which no agent has used anything.
    pub fn new(limits: QuotaLimits) -> Quota {
        Quota { limits, used: Mutex::default() }
    }

    /// Counts `records` whose lines together have this many bytes, unless the agent has reached a bound.
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
        let bytes = on_disk(line_bytes);
        let mut used = self.used.lock();
        let own = used.entry(agent).or_default();
        if !own.records.fits(now, &self.limits.records(), f64::from(records)) {
            return Err(QuotaExceeded::Rate);
        }
        if !own.bytes.fits(now, &self.limits.bytes(), bytes) {
            return Err(QuotaExceeded::Bytes);
        }
        if scarce && !own.reserve.fits(now, &self.limits.reserve(), bytes) {
            return Err(QuotaExceeded::Reserve);
        }
        own.charge(now, &self.limits, records, bytes);
        Ok(())
    }

    /// Counts records that are written in any case, such as a summary of suppressed refusals. The count is capped, so
    /// the agent waits no longer than for a full bucket.
    pub fn charge(&self, now: Instant, agent: AgentId, (records, line_bytes): (u32, u64)) {
        self.used.lock().entry(agent).or_default().charge(now, &self.limits, records, on_disk(line_bytes));
    }

    /// Forgets agents whose counters have returned to zero. Call it periodically.
    pub fn tidy(&self, now: Instant) {
        self.used.lock().retain(|_, used| {
            used.records.used(now, &self.limits.records()) > 0.0
                || used.bytes.used(now, &self.limits.bytes()) > 0.0
                || used.reserve.used(now, &self.limits.reserve()) > 0.0
        });
    }
}

impl QuotaLimits {
    fn records(&self) -> Rate {
        Rate::new(f64::from(self.rate) * BURST.as_secs_f64(), BURST)
    }

    fn bytes(&self) -> Rate {
        Rate::new(float(self.bytes), DAY)
    }

    /// The part of the reserve for one agent.
    fn reserve(&self) -> Rate {
        Rate::new(float(self.reserve / PARTS), DAY)
    }
}

impl Used {
    fn charge(&mut self, now: Instant, limits: &QuotaLimits, records: u32, bytes: f64) {
        self.records.charge(now, &limits.records(), f64::from(records));
        self.bytes.charge(now, &limits.bytes(), bytes);
        self.reserve.charge(now, &limits.reserve(), bytes);
    }
}

/// The disk space of lines of this many bytes.
fn on_disk(line_bytes: u64) -> f64 {
    float(line_bytes.saturating_mul(ON_DISK))
}

#[expect(clippy::cast_precision_loss, reason = "a bound does not depend on the last of 53 bits")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(number: u128) -> AgentId {
        AgentId(uuid::Uuid::from_u128(number))
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an arbitrary start time")]
    fn flood_uses_only_the_agents_own_quota() {
        let start = Instant::now();
        let quota = Quota::new(QuotaLimits { rate: 10, bytes: 300_000, reserve: 48_000 });
        let taken = (0..1000).take_while(|_| quota.take(start, agent(1), (2, 10), false).is_ok()).count();
        assert_eq!(taken, 50, "ten seconds' worth");
        assert_eq!(quota.take(start, agent(1), (2, 10), false), Err(QuotaExceeded::Rate));
        assert_eq!(quota.take(start, agent(2), (2, 10), false), Ok(()), "another agent has its own");
        assert_eq!(quota.take(start + Duration::from_secs(1), agent(1), (2, 10), false), Ok(()));

        let later = start + Duration::from_secs(5);
        assert_eq!(quota.take(later, agent(3), (1, 100_001), false), Err(QuotaExceeded::Bytes));
        assert_eq!(quota.take(later, agent(3), (1, 2000), false), Ok(()));
        assert_eq!(quota.take(later, agent(3), (1, 1), true), Err(QuotaExceeded::Reserve));
        assert_eq!(
            quota.take(later, agent(4), (1, 900), true),
            Ok(()),
            "the reserve is for the other agents"
        );
        quota.charge(later, agent(5), (1, 1_000_000));
        assert_eq!(
            quota.take(later, agent(5), (1, 1), false),
            Err(QuotaExceeded::Bytes),
            "the charged record counts"
        );
        let an_hour_later = later + Duration::from_hours(1);
        assert_eq!(quota.take(an_hour_later, agent(5), (1, 1), false), Ok(()));
        quota.tidy(later + Duration::from_hours(23));
        assert!(quota.used.lock().contains_key(&agent(3)), "its use of the reserve is remembered");
        quota.tidy(later + Duration::from_hours(26));
        assert_eq!(quota.used.lock().len(), 0, "there is nothing left to count");
    }

    /// Uses the numbers of the default configuration. An agent writes steadily, at exactly the rate that its daily
    /// bound allows. It must not use up the reserve, hour by hour, while the disk is nearly full.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "an arbitrary start time")]
    fn the_reserve_outlasts_a_steady_flood() {
        const MIB: u64 = 1 << 20;
        let start = Instant::now();
        let quota = Quota::new(QuotaLimits { rate: 5000, bytes: 4 << 30, reserve: 256 * MIB });
        let line = 1000;
        // One agent began before the disk filled up, the other only afterwards.
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
        assert!(one <= 17 * MIB, "its part was used up before, and is restored within a day: {one}");
        assert!(two <= 33 * MIB, "its part, and the amount restored within a day: {two}");
        let now = start + Duration::from_hours(25);
        for other in 3..=10 {
            assert_eq!(quota.take(now, agent(other), (1, line), true), Ok(()), "no other agent is refused");
        }
    }
}
