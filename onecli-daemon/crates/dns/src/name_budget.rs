//! Limits on names that an agent makes up.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use onecli_limits::{Bucket, Rate};
use onecli_model::Host;

/// The number of new names that one agent may look up at once. Also the number of cached names, which it may query
/// again at no cost. The cache of one agent has at most 260 KiB.
const BURST: usize = 1_024;
/// One more new name is allowed every 4 seconds: 900 an hour.
const RATE: Rate = Rate::new(1024.0, Duration::from_secs(4 * 1024));

/// The names outside the operator's configuration that were resolved for one agent.
#[derive(Debug, Default)]
pub(super) struct NameBudget {
    /// Each name with the time of its last query.
    names: HashMap<Host, Instant>,
    /// The new names that it may still make up.
    new_names: Bucket,
}

/// The state of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameState {
    /// The name was recorded recently.
    Known,
    /// The name was not recorded recently, and the limit permits a new one.
    New,
    /// The name was not recorded recently, and the limit is reached.
    TooMany,
}

impl NameBudget {
    /// Returns the state of a name at `now`.
    pub(super) fn state_of(&mut self, now: Instant, host: &Host) -> NameState {
        if let Some(asked) = self.names.get_mut(host) {
            *asked = now;
            return NameState::Known;
        }
        if self.new_names.fits(now, &RATE, 1.0) { NameState::New } else { NameState::TooMany }
    }

    /// Notes that a new name was recorded.
    pub(super) fn note(&mut self, now: Instant, host: Host) {
        self.new_names.charge(now, &RATE, 1.0);
        if self.names.len() >= BURST
            && let Some(oldest) =
                self.names.iter().min_by_key(|(_, asked)| **asked).map(|(host, _)| host.clone())
        {
            self.names.remove(&oldest);
        }
        self.names.insert(host, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a reference time")]
    fn new_names_are_limited_by_burst_and_rate() {
        let every = RATE.period / 1024;
        let name = |n: usize| -> Host { format!("n{n}.example.test").parse().unwrap() };
        let (start, mut name_budget) = (Instant::now(), NameBudget::default());
        let mut ask = |now: Instant, n: usize| {
            let state = name_budget.state_of(now, &name(n));
            if state == NameState::New {
                name_budget.note(now, name(n));
            }
            assert!(name_budget.names.len() <= BURST);
            state
        };
        assert!((0..BURST).all(|n| ask(start, n) == NameState::New));
        assert_eq!(ask(start, BURST), NameState::TooMany);
        assert_eq!(ask(start + Duration::from_millis(1), 0), NameState::Known);
        assert_eq!(ask(start + every * 5 / 2, BURST), NameState::New);
        assert_eq!(ask(start + every * 5 / 2, BURST + 1), NameState::New);
        assert_eq!(ask(start + every * 5 / 2, BURST + 2), NameState::TooMany);
        assert_eq!(ask(start + every * 3, BURST + 2), NameState::New, "the rest of the interval counts");
        assert_eq!(ask(start + every * 3, 0), NameState::Known, "a name that is queried again stays cached");
        assert_eq!(ask(start + every * 3, BURST), NameState::Known);
    }
}
