//! Request counts for limits, for each agent over all its connections. Counts survive a change of policy, but not a
//! restart.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onecli_model::{AgentId, Rule, RuleId};
use parking_lot::Mutex;

/// The parts that a window is counted in. A request leaves the count at most one part after its window.
const PARTS: usize = 60;
/// The number of counts at which those of ended windows are dropped. There is at most one for each rule and agent.
const TIDY_AT: usize = 4096;

/// The counts of every limit for every agent. No interval as long as a limit's window contains more requests than
/// the limit allows.
#[derive(Debug)]
pub struct Limits {
    origin: Instant,
    counts: Mutex<HashMap<(RuleId, AgentId), Window>>,
}

/// A limit that is exhausted.
#[derive(Debug, Clone)]
pub struct Exceeded {
    /// The limit.
    pub rule: Arc<Rule>,
    /// The time until one more request is allowed, if no other comes first.
    pub retry_after: Duration,
}

/// The counts of a window's parts, as a ring.
#[derive(Debug, Clone)]
struct Window {
    /// The length of one part.
    part: Duration,
    /// The part that was counted in last, from the origin.
    last: u128,
    /// One part more than a window has, because the oldest may still overlap the window.
    counts: [u32; PARTS + 1],
}

impl Window {
    fn new(window: Duration) -> Window {
        let parts = u32::try_from(PARTS).unwrap_or(u32::MAX);
        Window { part: window / parts, last: 0, counts: [0; PARTS + 1] }
    }

    /// The part that contains `now`.
    fn part_of(&self, now: Duration) -> u128 {
        now.as_nanos() / self.part.as_nanos().max(1)
    }

    /// Forgets the parts that have ended. The clock is monotonic.
    fn turn(&mut self, now: Duration) {
        let part = self.part_of(now);
        let over = part.saturating_sub(self.last);
        for ahead in 1..=over.min(PARTS as u128 + 1) {
            self.counts[slot(self.last + ahead)] = 0;
        }
        self.last = self.last.max(part);
    }

    fn total(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// The time until fewer than `most` are counted.
    fn room_in(&self, now: Duration, most: u32) -> Duration {
        let mut total = self.total();
        let oldest = self.last.saturating_sub(PARTS as u128);
        for part in oldest..=self.last {
            total -= u64::from(self.counts[slot(part)]);
            if total < u64::from(most) {
                let free = part + PARTS as u128 + 1;
                let at = self.part.saturating_mul(u32::try_from(free).unwrap_or(u32::MAX));
                return at.saturating_sub(now);
            }
        }
        self.part
    }
}

fn slot(part: u128) -> usize {
    (part % (PARTS as u128 + 1)) as usize
}

impl Limits {
    /// Creates empty counts; `now` is the origin.
    pub fn new(now: Instant) -> Limits {
        Limits { origin: now, counts: Mutex::default() }
    }

    /// Counts one request of `agent` for each of `rules`, or for none of them if one is exhausted.
    ///
    /// # Errors
    /// [`Exceeded`], of the limit with the longest wait.
    pub fn take(&self, now: Instant, agent: AgentId, rules: &[Arc<Rule>]) -> Result<(), Exceeded> {
        if rules.is_empty() {
            return Ok(());
        }
        let now = now.saturating_duration_since(self.origin);
        let mut counts = self.counts.lock();
        if counts.len() >= TIDY_AT {
            counts.retain(|_, window| {
                window.turn(now);
                window.total() > 0
            });
        }
        let mut exceeded: Option<Exceeded> = None;
        for rule in rules {
            let Some(rate) = rule.terms.rate() else { continue };
            let window = counts.entry((rule.id, agent)).or_insert_with(|| Window::new(rate.window()));
            window.turn(now);
            if window.total() >= u64::from(rate.count()) {
                let retry_after = window.room_in(now, rate.count());
                if exceeded.as_ref().is_none_or(|longest| longest.retry_after < retry_after) {
                    exceeded = Some(Exceeded { rule: Arc::clone(rule), retry_after });
                }
            }
        }
        if let Some(exceeded) = exceeded {
            return Err(exceeded);
        }
        for rule in rules {
            if let Some(window) = counts.get_mut(&(rule.id, agent)) {
                window.counts[slot(window.last)] += 1;
            }
        }
        Ok(())
    }
}
