//! One token bucket.

use std::time::{Duration, Instant};

/// How often something may happen: up to `burst` at once, and as much again in each `period`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// The size of the bucket.
    pub burst: f64,
    /// The time in which an empty bucket becomes full.
    pub period: Duration,
}

impl Rate {
    /// `burst` events at once, and as many in each `period`.
    pub const fn new(burst: f64, period: Duration) -> Rate {
        Rate { burst, period }
    }
}

/// What one key has used of its bucket. It starts with nothing used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    used: f64,
    /// The time of the last change; `None` before the first.
    at: Option<Instant>,
}

impl Bucket {
    /// What is used at `now`, after the time that has passed. The clock is monotonic.
    pub fn used(&mut self, now: Instant, rate: &Rate) -> f64 {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.used = (self.used - rate.burst * passed.as_secs_f64() / rate.period.as_secs_f64()).max(0.0);
        self.at = Some(now);
        self.used
    }

    /// Returns whether `amount` more fits.
    pub fn fits(&mut self, now: Instant, rate: &Rate, amount: f64) -> bool {
        self.used(now, rate) + amount <= rate.burst
    }

    /// Uses `amount`. Returns false and uses nothing if it does not fit.
    pub fn take(&mut self, now: Instant, rate: &Rate, amount: f64) -> bool {
        let fits = self.fits(now, rate, amount);
        if fits {
            self.used += amount;
        }
        fits
    }

    /// Uses `amount` in any case, but never more than the whole bucket. So the key waits no longer than one period.
    pub fn charge(&mut self, now: Instant, rate: &Rate, amount: f64) {
        self.used = (self.used(now, rate) + amount).min(rate.burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an arbitrary start time")]
    fn bucket_allows_a_burst_and_then_its_rate() {
        let (start, rate) = (Instant::now(), Rate::new(10.0, Duration::from_secs(20)));
        let mut bucket = Bucket::default();
        assert_eq!((0..100).take_while(|_| bucket.take(start, &rate, 1.0)).count(), 10);
        let second = |n| start + Duration::from_secs(n);
        assert!(!bucket.take(second(1), &rate, 1.0), "half of one has come back");
        assert!(bucket.take(second(2), &rate, 1.0));
        assert!(!bucket.fits(second(2), &rate, 1.0));
        bucket.charge(second(2), &rate, 1000.0);
        assert!(bucket.take(second(22), &rate, 10.0), "a charge is never more than the bucket");
        assert!(bucket.used(second(1), &rate) > 9.9, "a clock that goes back gives nothing back");
    }
}
