//! Token buckets by key, in bounded memory.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::Instant;

use lru::LruCache;
use parking_lot::Mutex;

use super::bucket::{Bucket, Rate};

/// What happens to a new key when the maximum number of keys is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The new key is refused. For keys that a client cannot make up.
    Refuse,
    /// The key that was used least recently is forgotten, and may use its bucket again. For keys that clients can make
    /// up, such as addresses.
    ForgetOldest,
}

/// Token buckets of one rate, by key.
#[derive(Debug)]
pub struct Buckets<K: Hash + Eq> {
    rate: Rate,
    when_full: WhenFull,
    by_key: Mutex<LruCache<K, Bucket>>,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// Creates buckets for at most `keys` keys.
    pub fn new(rate: Rate, keys: NonZeroUsize, when_full: WhenFull) -> Buckets<K> {
        Buckets { rate, when_full, by_key: Mutex::new(LruCache::new(keys)) }
    }

    /// Uses one of the key's bucket. Returns false if the bucket is used up, or if there is no room for the key.
    pub fn take(&self, now: Instant, key: &K) -> bool {
        let mut buckets = self.by_key.lock();
        if !buckets.contains(key) && !self.makes_room(&mut buckets, now) {
            return false;
        }
        buckets.get_or_insert_mut(key.clone(), Bucket::default).take(now, &self.rate, 1.0)
    }

    /// Returns whether the key's bucket is used up.
    pub fn is_used_up(&self, now: Instant, key: &K) -> bool {
        let mut buckets = self.by_key.lock();
        buckets.get_mut(key).is_some_and(|bucket| !bucket.fits(now, &self.rate, 1.0))
    }

    /// Forgets a key if there is no room. Keys that have used nothing lately are forgotten first.
    fn makes_room(&self, buckets: &mut LruCache<K, Bucket>, now: Instant) -> bool {
        if buckets.len() < buckets.cap().get() || self.when_full == WhenFull::ForgetOldest {
            return true;
        }
        // The key that was used least recently is the first to have an unused bucket.
        let is_unused = |bucket: &Bucket| bucket.clone().used(now, &self.rate) <= 0.0;
        if buckets.peek_lru().is_some_and(|(_, bucket)| is_unused(bucket)) {
            buckets.pop_lru();
        }
        buckets.len() < buckets.cap().get()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();
    const RATE: Rate = Rate::new(3.0, Duration::from_mins(1));

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an arbitrary start time")]
    fn each_key_has_its_own_bucket() {
        let (now, buckets) = (Instant::now(), Buckets::new(RATE, TWO, WhenFull::Refuse));
        assert_eq!((0..9).filter(|_| buckets.take(now, &"a")).count(), 3);
        assert!(buckets.is_used_up(now, &"a") && !buckets.is_used_up(now, &"b"));
        assert!(buckets.take(now, &"b"));
        assert!(!buckets.is_used_up(now + Duration::from_secs(20), &"a"));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an arbitrary start time")]
    fn number_of_keys_is_bounded() {
        let now = Instant::now();
        let refusing = Buckets::new(RATE, TWO, WhenFull::Refuse);
        assert!(refusing.take(now, &1) && refusing.take(now, &2));
        assert!(!refusing.take(now, &3), "no room");
        assert!(refusing.take(now + Duration::from_mins(1), &3), "the others have used nothing lately");
        let forgetting = Buckets::new(RATE, TWO, WhenFull::ForgetOldest);
        assert!((1..=100).all(|key| forgetting.take(now, &key)));
        assert_eq!(forgetting.by_key.lock().len(), 2);
    }
}
