//! Folding of an agent's refusals: a program that retries the same request for ever, or a new one each time, fills
//! neither the log nor the memory (invariant 9).

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Identical refusals get at most one record in this interval.
pub const FOLD_WINDOW: Duration = Duration::from_secs(10);
/// The number of distinct refusals. Those beyond it share one record.
const KEYS: usize = 32;

/// The recorded refusals and those that wait to be recorded. `K` distinguishes refusals.
#[derive(Debug)]
pub struct Fold<K> {
    keys: HashMap<K, Folded>,
    others: Option<Folded>,
}

#[derive(Debug)]
struct Folded {
    recorded: Instant,
    since: u64,
}

/// Refusals that one record summarizes.
#[derive(Debug, PartialEq, Eq)]
pub struct Repeated<K> {
    /// The refusals' key; `None` if they are of several kinds.
    pub key: Option<K>,
    /// Their number, at least one.
    pub count: u64,
}

impl<K> Default for Fold<K> {
    fn default() -> Fold<K> {
        Fold { keys: HashMap::new(), others: None }
    }
}

impl<K: Hash + Eq + Clone> Fold<K> {
    /// Counts a refusal. Returns true if the caller must record it now.
    pub fn note(&mut self, now: Instant, key: &K) -> bool {
        if let Some(folded) = self.keys.get_mut(key) {
            folded.since += 1;
            return false;
        }
        if self.keys.len() < KEYS {
            self.keys.insert(key.clone(), Folded { recorded: now, since: 0 });
            return true;
        }
        self.note_other(now);
        false
    }

    /// As [`note`](Self::note), for a caller that may be out of quota. `may_write` is called only if the refusal
    /// needs a record. If it returns false, the refusal is counted without its key.
    pub fn note_if(&mut self, now: Instant, key: &K, may_write: impl FnOnce() -> bool) -> bool {
        if self.wants(key) && !may_write() {
            self.note_other(now);
            return false;
        }
        self.note(now, key)
    }

    /// Counts `more` refusals of a kind that was just [noted](Self::note).
    pub fn add(&mut self, key: &K, more: u64) {
        if let Some(folded) = self.keys.get_mut(key).or(self.others.as_mut()) {
            folded.since += more;
        }
    }

    /// Reports whether this refusal needs its own record now.
    fn wants(&self, key: &K) -> bool {
        self.keys.len() < KEYS && !self.keys.contains_key(key)
    }

    /// Counts a refusal without its key.
    pub fn note_other(&mut self, now: Instant) {
        self.others.get_or_insert(Folded { recorded: now, since: 0 }).since += 1;
    }

    /// Removes and returns the counts whose window has passed. Call it periodically.
    pub fn due(&mut self, now: Instant) -> Vec<Repeated<K>> {
        self.take(now, FOLD_WINDOW)
    }

    /// Removes and returns all counts, if no later call follows.
    pub fn rest(&mut self, now: Instant) -> Vec<Repeated<K>> {
        self.take(now, Duration::ZERO)
    }

    /// Reports whether no refusal is remembered.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.others.is_none()
    }

    fn take(&mut self, now: Instant, window: Duration) -> Vec<Repeated<K>> {
        let mut due = Vec::new();
        let mut keep = |folded: &mut Folded, key: Option<&K>| {
            if now.duration_since(folded.recorded) < window {
                return true;
            }
            let count = std::mem::take(&mut folded.since);
            folded.recorded = now;
            if count > 0 {
                due.push(Repeated { key: key.cloned(), count });
            }
            count > 0
        };
        self.keys.retain(|key, folded| keep(folded, Some(key)));
        self.others.take_if(|folded| !keep(folded, None));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an arbitrary start time")]
    fn folding_is_bounded() {
        let start = Instant::now();
        let mut fold = Fold::default();
        let records = (0..1000).filter(|n| fold.wants(n) == fold.note(start, n) && !fold.wants(n)).count();
        assert_eq!(records, 1000);
        let mut fold = Fold::default();
        let records = (0..1000).filter(|n| fold.note(start, n)).count();
        assert_eq!(records, KEYS);
        assert!(!fold.note(start, &0));
        assert!(fold.due(start + FOLD_WINDOW / 2).is_empty(), "not yet");
        let due = fold.due(start + FOLD_WINDOW);
        assert_eq!(due.len(), 2, "{due:?}");
        assert!(due.contains(&Repeated { key: Some(0), count: 1 }), "{due:?}");
        assert!(due.contains(&Repeated { key: None, count: 968 }), "{due:?}");
        // A retried refusal has used its record of the next window; the others begin anew.
        let later = start + FOLD_WINDOW + Duration::from_secs(1);
        assert!(!fold.note(later, &0));
        assert!(fold.note(later, &1));
        assert_eq!(fold.due(start + FOLD_WINDOW * 2), [Repeated { key: Some(0), count: 1 }]);
        assert!(fold.due(start + FOLD_WINDOW * 4).is_empty());
        assert!(fold.is_empty());
        assert!(fold.note(start + FOLD_WINDOW * 4, &0), "forgotten");
    }
}
