//! Values that are replaced while responses stream: those responses are searched for the old and the new values.

use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};

use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};

use crate::http::scrub::Needles;

/// Bytes of spellings of replaced values that a running response is still searched for: about 250 values of 40 bytes.
/// Beyond that, only the values before the last change and the current ones remain.
const REPLACED_BYTES: usize = 256 << 10;
/// Number of combinations that running responses share. Further ones are compiled again for each response. An entry
/// retains no values.
const COMBINATIONS: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// The needles for running responses, compiled once for all responses that began under the same values.
pub(super) struct Joined(Mutex<LruCache<Addresses, Entry>>);

/// The addresses of the needles that a response was searched for, and of the current needles.
type Addresses = (usize, usize);

struct Entry {
    /// While these weak references exist, no other needles can have their addresses.
    _of: [Weak<Needles>; 2],
    /// Owned by the responses that are searched for it.
    all: Weak<Needles>,
}

impl Joined {
    pub(super) fn new() -> Joined {
        Joined(Mutex::new(LruCache::new(COMBINATIONS)))
    }

    /// Returns the needles from now on for a response that was searched for `known`. New responses are searched for
    /// `current`, and were searched for `before`.
    pub(super) fn of(
        &self,
        known: &Arc<Needles>,
        before: &Arc<Needles>,
        current: &Arc<Needles>,
    ) -> Arc<Needles> {
        let all = self.pair(known, current);
        if all.bytes() <= current.bytes().saturating_add(REPLACED_BYTES) {
            return all;
        }
        self.pair(before, current)
    }

    fn pair(&self, known: &Arc<Needles>, current: &Arc<Needles>) -> Arc<Needles> {
        let addresses = (Arc::as_ptr(known).addr(), Arc::as_ptr(current).addr());
        let shared = self.lock().get(&addresses).and_then(|entry| entry.all.upgrade());
        shared.unwrap_or_else(|| {
            let all = join(known, current);
            let of = [Arc::downgrade(known), Arc::downgrade(current)];
            self.lock().put(addresses, Entry { _of: of, all: Arc::downgrade(&all) });
            all
        })
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Addresses, Entry>> {
        self.0.lock()
    }
}

fn join(known: &Arc<Needles>, current: &Arc<Needles>) -> Arc<Needles> {
    if current.is_within(known) {
        Arc::clone(known)
    } else if known.is_within(current) {
        Arc::clone(current)
    } else {
        Arc::new(known.joined(current))
    }
}

#[cfg(test)]
mod tests {
    use onecli_model::{SecretValue, WireForm};

    use super::*;
    use crate::http::scrub::{EscapedText, spellings};

    fn needles(values: &[&str]) -> Arc<Needles> {
        let mut needles = Needles::default();
        for value in values {
            let value = SecretValue::new(value.as_bytes().to_vec()).unwrap();
            needles.extend(spellings(&WireForm::plain(&value)));
        }
        Arc::new(needles)
    }

    fn found(needles: &Needles, text: &str) -> usize {
        needles.places(&EscapedText::new(text.as_bytes())).len()
    }

    #[test]
    fn replaced_values_are_searched_beside_new_ones() {
        let joined = Joined::new();
        let (first, second) =
            (needles(&["first-value", "other-one"]), needles(&["second-value", "other-one"]));
        let all = joined.of(&first, &first, &second);
        assert_eq!(found(&all, "first-value, second-value, other-one"), 3);
        assert!(Arc::ptr_eq(&all, &joined.of(&first, &first, &second)), "responses share it");
        assert!(Arc::ptr_eq(&all, &joined.of(&all, &second, &second)), "nothing is new");
        let more = needles(&["second-value", "other-one", "third-value"]);
        assert!(Arc::ptr_eq(&more, &joined.of(&second, &second, &more)), "nothing was replaced");
        let weak = Arc::downgrade(&all);
        drop(all);
        assert!(weak.upgrade().is_none(), "the cache retains no values");
    }

    /// An agent can have tokens issued for as long as a response streams.
    #[test]
    fn replaced_values_are_bounded() {
        let joined = Joined::new();
        let value = |n: usize| format!("{n:04}-{}", "v".repeat(1000));
        let (mut before, mut known) = (needles(&[&value(0)]), needles(&[&value(0)]));
        for n in 1..200 {
            let current = needles(&[&value(n)]);
            known = joined.of(&known, &before, &current);
            before = current;
            assert!(known.bytes() < REPLACED_BYTES + 2 * before.bytes(), "{n}: {}", known.bytes());
            let text = format!("{} {}", value(n), value(n - 1));
            assert_eq!(found(&known, &text), 2, "{n}: the newest and the one before");
        }
    }
}
