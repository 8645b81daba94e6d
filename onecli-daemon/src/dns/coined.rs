//! Names that an agent makes up.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::model::Host;

/// Names that one agent may make up at once, and remembered ones that cost nothing to ask for again: 260 KiB at most.
const BURST: usize = 1_024;
/// Every so often there may be one more: 900 an hour.
const EVERY: Duration = Duration::from_secs(4);

/// The names one agent was answered that no operator wrote.
#[derive(Debug, Default)]
pub(super) struct Coined {
    names: HashSet<Host>,
    /// How many were new, less one for each [`EVERY`] since.
    used: usize,
    since: Option<Instant>,
}

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coin {
    /// Asked for before.
    Known,
    /// Not asked for lately, and one more that may be.
    New,
    /// Not asked for lately, and one too many.
    TooMany,
}

impl Coined {
    /// Notes a name.
    pub(super) fn note(&mut self, now: Instant, host: &Host) -> Coin {
        if self.names.contains(host) {
            return Coin::Known;
        }
        let since = *self.since.get_or_insert(now);
        let passed = now.duration_since(since).as_secs() / EVERY.as_secs();
        if passed > 0 {
            self.used = self.used.saturating_sub(usize::try_from(passed).unwrap_or(usize::MAX));
            self.since = Some(since + EVERY * u32::try_from(passed).unwrap_or(u32::MAX));
        }
        if self.used >= BURST {
            return Coin::TooMany;
        }
        self.used += 1;
        // All at once: which of them were asked for last is nobody's interest, and each is on record again.
        if self.names.len() >= BURST {
            self.names.clear();
        }
        self.names.insert(host.clone());
        Coin::New
    }

    /// It was not looked up after all.
    pub(super) fn forget(&mut self, host: &Host) {
        if self.names.remove(host) {
            self.used = self.used.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a point in time to reckon from")]
    fn so_many_names_and_no_more() {
        let name = |n: usize| -> Host { format!("n{n}.example.test").parse().unwrap() };
        let (start, mut coined) = (Instant::now(), Coined::default());
        assert!((0..BURST).all(|n| coined.note(start, &name(n)) == Coin::New));
        assert_eq!(coined.note(start, &name(BURST)), Coin::TooMany);
        assert_eq!(coined.note(start, &name(0)), Coin::Known);
        assert_eq!(coined.note(start + EVERY * 5 / 2, &name(BURST)), Coin::New);
        assert_eq!(coined.note(start + EVERY * 5 / 2, &name(BURST + 1)), Coin::New);
        assert_eq!(coined.note(start + EVERY * 5 / 2, &name(BURST + 2)), Coin::TooMany);
        assert_eq!(
            coined.note(start + EVERY * 3, &name(BURST + 2)),
            Coin::New,
            "no part of the time is lost"
        );
        assert!(coined.names.len() <= BURST);
        coined.forget(&name(BURST + 2));
        assert_eq!(coined.note(start + EVERY * 3, &name(BURST + 3)), Coin::New);
    }
}
