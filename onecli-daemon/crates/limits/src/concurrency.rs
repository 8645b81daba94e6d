//! How much may be open at the same time: each key has its own limit, and all keys together have another.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts what each key has open. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Concurrency<K: Hash + Eq + Copy> {
    taken: Arc<Mutex<Taken<K>>>,
    each: usize,
    all: usize,
}

#[derive(Debug)]
struct Taken<K> {
    by_key: HashMap<K, usize>,
    all: usize,
}

/// One unit of a key's limit; it is released when dropped.
#[derive(Debug)]
pub struct Permit<K: Hash + Eq + Copy> {
    taken: Arc<Mutex<Taken<K>>>,
    key: K,
}

impl<K: Hash + Eq + Copy> Concurrency<K> {
    /// Allows `each` for one key, and `all` for all of them together.
    pub fn new(each: usize, all: usize) -> Concurrency<K> {
        Concurrency { taken: Arc::new(Mutex::new(Taken { by_key: HashMap::new(), all: 0 })), each, all }
    }

    /// The number that the key has.
    pub fn used_by(&self, key: K) -> usize {
        self.taken.lock().by_key.get(&key).copied().unwrap_or_default()
    }

    /// Reserves one more; `None` if the key or all keys together are at the limit.
    pub fn take(&self, key: K) -> Option<Permit<K>> {
        let mut taken = self.taken.lock();
        let own = taken.by_key.get(&key).copied().unwrap_or_default();
        if own >= self.each || taken.all >= self.all {
            return None;
        }
        taken.by_key.insert(key, own + 1);
        taken.all += 1;
        Some(Permit { taken: Arc::clone(&self.taken), key })
    }
}

impl<K: Hash + Eq + Copy> Permit<K> {
    /// The key that it belongs to.
    pub fn key(&self) -> K {
        self.key
    }
}

impl<K: Hash + Eq + Copy> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_key.get_mut(&self.key) {
            *own -= 1;
            if *own == 0 {
                taken.by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_apply_to_each_key_and_to_all_together() {
        let limit = Concurrency::new(3, 5);
        let mut first: Vec<_> = (0..3).map(|_| limit.take(1).unwrap()).collect();
        assert!(limit.take(1).is_none());
        assert_eq!((limit.used_by(1), limit.used_by(2)), (3, 0));
        let second: Vec<_> = (0..2).map(|_| limit.take(2).unwrap()).collect();
        assert!(limit.take(3).is_none(), "all keys together are at the limit");
        first.pop();
        let third = limit.take(3).unwrap();
        assert_eq!(third.key(), 3);
        drop((first, second, third));
        let taken = limit.taken.lock();
        assert!(taken.by_key.is_empty() && taken.all == 0);
    }
}
