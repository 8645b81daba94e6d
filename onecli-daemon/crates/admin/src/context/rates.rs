//! The growth rate of counters over the last minute.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The interval between readings.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);
/// The number of readings to retain: one minute.
const MAX_READINGS: usize = 7;

type Reading = (Instant, BTreeMap<String, u64>);

/// Counter readings of the last minute.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    readings: Mutex<VecDeque<Reading>>,
}

impl Rates {
    /// Stores a reading. Call it every [`INTERVAL`].
    pub(super) fn remember(&self, now: Instant, counters: BTreeMap<String, u64>) {
        let mut readings = self.readings.lock();
        if readings.len() == MAX_READINGS {
            readings.pop_front();
        }
        readings.push_back((now, counters));
    }

    /// Returns the growth of each counter per second since the oldest reading. Empty in the first second.
    pub(crate) fn per_second(&self, now: Instant, counters: &BTreeMap<String, u64>) -> BTreeMap<String, f64> {
        let readings = self.readings.lock();
        let Some((then, before)) = readings.front() else { return BTreeMap::new() };
        let seconds = now.saturating_duration_since(*then).as_secs_f64();
        if seconds < 1.0 {
            return BTreeMap::new();
        }
        let rate = |name: &String, count: &u64| {
            let grown = count.saturating_sub(before.get(name).copied().unwrap_or_default());
            // Two decimals, and small enough to be exact.
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = (grown as f64 / seconds * 100.0).round() / 100.0;
            (name.clone(), rate)
        };
        counters.iter().map(|(name, count)| rate(name, count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use onecli_model::Clock;
    use onecli_sys::SystemClock;

    use super::*;

    #[test]
    fn rate_is_the_growth_of_the_last_minute() {
        let (rates, start) = (Rates::default(), SystemClock.instant());
        let counters = |count: u64| BTreeMap::from([("requests".to_owned(), count)]);
        let check = |seconds: u64, count: u64, expected: Option<f64>| {
            let rate = rates.per_second(start + Duration::from_secs(seconds), &counters(count));
            assert_eq!(rate.get("requests").copied(), expected, "after {seconds} s");
        };
        check(5, 10, None);
        for reading in 0..20 {
            rates.remember(start + INTERVAL * reading, counters(u64::from(reading) * 100));
        }
        // The oldest reading is from second 130.
        check(190, 1900, Some(10.0));
        check(195, 1900, Some(9.23));
        check(130, 1900, None);
    }
}
