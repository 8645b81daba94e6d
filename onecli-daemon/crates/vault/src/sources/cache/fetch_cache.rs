//! A bounded cache of fetched values. Each key has at most one running fetch, and values expire.

use std::collections::VecDeque;
use std::fmt;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use onecli_model::Clock;
use parking_lot::{Mutex, MutexGuard};

/// How long a failure is returned to all callers of the same key, so that a failing server does not receive a call
/// for each request.
const FAILURE_FOR: Duration = Duration::from_secs(1);

/// Runs a future to completion, even if the caller stops waiting.
pub(crate) async fn to_its_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(broken) => match broken.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and all callers with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// A value, and how long it may be used.
#[derive(Debug, Clone)]
pub struct Expiring<V> {
    /// The value.
    pub value: V,
    /// The lifetime, from the fetch on.
    pub usable_for: Duration,
}

/// The cache entry of one key. The holder of the lock fetches; the others wait for the result.
type Slot<V, E> = Arc<tokio::sync::Mutex<Held<V, E>>>;

#[derive(Debug)]
struct Held<V, E> {
    value: Option<(V, Instant, Duration)>,
    failure: Option<(E, Instant)>,
}

impl<V: Clone, E> Held<V, E> {
    /// Decides on a failure: returns a stale value, or the error.
    fn bear(
        &mut self,
        failed: E,
        now: Instant,
        stale_for: Duration,
        bearable: fn(&E) -> bool,
    ) -> Result<Cached<V>, E> {
        match &self.value {
            Some((value, since, usable_for))
                if bearable(&failed)
                    && now.saturating_duration_since(*since) < usable_for.saturating_add(stale_for) =>
            {
                Ok(Cached { value: value.clone(), stale: true })
            }
            _ => {
                self.value = None;
                Err(failed)
            }
        }
    }
}

/// Expiring values by key.
pub struct FetchCache<K: Hash + Eq, V, E> {
    slots: Arc<Mutex<Slots<K, V, E>>>,
    /// Returns the size of a value in bytes.
    weigh: fn(&V) -> usize,
    clock: Arc<dyn Clock>,
}

impl<K: Hash + Eq, V, E> fmt::Debug for FetchCache<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FetchCache(..)")
    }
}

/// The bounds of a cache; the least recently used entries are evicted.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Keys.
    pub keys: NonZeroUsize,
    /// Bytes of all values together. A single value may have more.
    pub bytes: usize,
}

/// Slots with the sizes of their values.
struct Slots<K: Hash + Eq, V, E> {
    by_key: LruCache<K, (Slot<V, E>, usize)>,
    bytes: usize,
    most_bytes: usize,
}

impl<K: Hash + Eq, V, E> Slots<K, V, E> {
    fn put(&mut self, key: K, slot: Slot<V, E>) {
        if let Some((_, (_, bytes))) = self.by_key.push(key, (slot, 0)) {
            self.bytes -= bytes;
        }
    }

    fn pop(&mut self, key: &K) -> Option<Slot<V, E>> {
        let (slot, bytes) = self.by_key.pop(key)?;
        self.bytes -= bytes;
        Some(slot)
    }

    /// Records the size of the value in this slot, and evicts other entries if there is no room.
    fn weighed(&mut self, key: &K, own: &Slot<V, E>, bytes: usize) {
        // The slot may have been evicted meanwhile; its users still hold the value.
        let Some((slot, before)) = self.by_key.get_mut(key) else { return };
        if !Arc::ptr_eq(slot, own) {
            return;
        }
        self.bytes = self.bytes - std::mem::replace(before, bytes) + bytes;
        while self.bytes > self.most_bytes && self.by_key.len() > 1 {
            let Some((_, (_, bytes))) = self.by_key.pop_lru() else { break };
            self.bytes -= bytes;
        }
    }
}

/// A cached value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached<V> {
    /// The value.
    pub value: V,
    /// True if the value has expired and was returned because the fetch failed.
    pub stale: bool,
}

impl<K, V, E> FetchCache<K, V, E>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + 'static,
    E: Clone + Send + 'static,
{
    /// Creates a cache within `bounds`; `weigh` returns the size of a value.
    pub fn new(bounds: Bounds, weigh: fn(&V) -> usize, clock: Arc<dyn Clock>) -> FetchCache<K, V, E> {
        let by_key = LruCache::new(bounds.keys);
        let slots = Slots { by_key, bytes: 0, most_bytes: bounds.bytes };
        FetchCache { slots: Arc::new(Mutex::new(slots)), weigh, clock }
    }

    /// The value of `key`: a cached one, or else fetched by one caller while the others wait. If the fetch fails, a
    /// value that expired less than `stale_for` ago is returned, provided that `bearable` accepts the failure.
    ///
    /// A started fetch runs to completion, even if its caller stops waiting. Otherwise an agent that disconnects
    /// could lose an issued credential, or cause repeated fetches.
    ///
    /// # Errors
    /// The fetch's error, for all who waited for it and for one second after.
    pub async fn get<F>(
        &self,
        key: &K,
        stale_for: Duration,
        bearable: fn(&E) -> bool,
        fetch: impl FnOnce() -> F,
    ) -> Result<Cached<V>, E>
    where
        F: Future<Output = Result<Expiring<V>, E>> + Send + 'static,
    {
        let slot = self.slot(key);
        let mut held = Arc::clone(&slot).lock_owned().await;
        let now = self.clock.instant();
        if let Some((value, since, usable_for)) = &held.value
            && now.saturating_duration_since(*since) < *usable_for
        {
            return Ok(Cached { value: value.clone(), stale: false });
        }
        if let Some((error, since)) = &held.failure
            && now.saturating_duration_since(*since) < FAILURE_FOR
        {
            let error = error.clone();
            return held.bear(error, now, stale_for, bearable);
        }
        let (fetch, clock) = (fetch(), Arc::clone(&self.clock));
        let (key, slots, weigh) = (key.clone(), Arc::clone(&self.slots), self.weigh);
        to_its_end(Box::pin(async move {
            match fetch.await {
                Ok(Expiring { value, usable_for }) => {
                    let kept = (value.clone(), clock.instant(), usable_for);
                    lock(&slots).weighed(&key, &slot, weigh(&value));
                    *held = Held { value: Some(kept), failure: None };
                    Ok(Cached { value, stale: false })
                }
                Err(error) => {
                    held.failure = Some((error.clone(), clock.instant()));
                    held.bear(error, now, stale_for, bearable)
                }
            }
        }))
        .await
    }

    /// Sets the lifetime of the value of `key` to `usable_for` from now on, if there is a value.
    pub async fn extend(&self, key: &K, usable_for: Duration) {
        let slot = self.peek_slot(key);
        if let Some(slot) = slot
            && let Some((_, since, time)) = &mut slot.lock().await.value
        {
            (*since, *time) = (self.clock.instant(), usable_for);
        }
    }

    /// The cached value of `key`, expired or not. Waits for a running fetch.
    pub async fn peek(&self, key: &K) -> Option<V> {
        let slot = self.peek_slot(key)?;
        let held = slot.lock().await;
        held.value.as_ref().map(|(value, ..)| value.clone())
    }

    /// The cached value of `key`, expired or not. Returns `None` during a fetch: it never waits.
    pub fn peek_now(&self, key: &K) -> Option<V> {
        let slot = self.peek_slot(key)?;
        let held = slot.try_lock().ok()?;
        held.value.as_ref().map(|(value, ..)| value.clone())
    }

    /// Makes the next request fetch `key`. The value stays cached for failures that `bearable` accepts.
    pub async fn expire(&self, key: &K) {
        self.extend(key, Duration::ZERO).await;
    }

    /// Removes the value of `key`: the next request fetches it.
    pub fn evict(&self, key: &K) {
        lock(&self.slots).pop(key);
    }

    /// Removes every key for which `goes` is true, and returns the removed values.
    pub async fn evict_where(&self, goes: impl Fn(&K) -> bool) -> Vec<(K, V)> {
        let slots: Vec<(K, Slot<V, E>)> = {
            let mut all = lock(&self.slots);
            let keys: Vec<K> =
                all.by_key.iter().map(|(key, _)| key).filter(|key| goes(key)).cloned().collect();
            keys.into_iter().filter_map(|key| all.pop(&key).map(|slot| (key, slot))).collect()
        };
        let mut gone = Vec::with_capacity(slots.len());
        for (key, slot) in slots {
            if let Some((value, ..)) = slot.lock().await.value.take() {
                gone.push((key, value));
            }
        }
        gone
    }

    /// Removes values that expired more than `stale_for` ago, so that they do not stay in memory unused.
    pub fn tidy(&self, stale_for: Duration) {
        let now = self.clock.instant();
        let mut all = lock(&self.slots);
        let over = |slot: &Slot<V, E>| {
            // A locked slot has a running fetch.
            slot.try_lock().is_ok_and(|held| {
                let value_over = held.value.as_ref().is_none_or(|(_, since, usable_for)| {
                    now.saturating_duration_since(*since) >= usable_for.saturating_add(stale_for)
                });
                let failure_over = held
                    .failure
                    .as_ref()
                    .is_none_or(|(_, since)| now.saturating_duration_since(*since) >= FAILURE_FOR);
                value_over && failure_over
            })
        };
        let gone: VecDeque<K> =
            all.by_key.iter().filter(|(_, (slot, _))| over(slot)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            all.pop(&key);
        }
    }

    fn slot(&self, key: &K) -> Slot<V, E> {
        let mut all = lock(&self.slots);
        if let Some((slot, _)) = all.by_key.get(key) {
            return Arc::clone(slot);
        }
        let slot = Arc::new(tokio::sync::Mutex::new(Held { value: None, failure: None }));
        all.put(key.clone(), Arc::clone(&slot));
        slot
    }

    fn peek_slot(&self, key: &K) -> Option<Slot<V, E>> {
        lock(&self.slots).by_key.peek(key).map(|(slot, _)| Arc::clone(slot))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

#[cfg(test)]
mod tests;
