//! A bounded cache of what is fetched: one fetch at a time for each key, and values that end with their time.

use std::collections::VecDeque;
use std::fmt;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use onecli_model::Clock;

/// How long a failure is told to all who ask for the same, so that a server in trouble is not asked once for each request.
const FAILURE_FOR: Duration = Duration::from_secs(1);

/// Does something whether its caller still waits or not.
pub(crate) async fn to_its_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(broken) => match broken.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and with it whoever waits.
            Err(_) => std::future::pending().await,
        },
    }
}

/// A value, and how long it may be used.
#[derive(Debug, Clone)]
pub struct Fetched<V> {
    /// The value.
    pub value: V,
    /// From the fetch on.
    pub usable_for: Duration,
}

/// What a cache holds for one key. Whoever has the lock fetches; the others wait for the outcome.
type Slot<V, E> = Arc<tokio::sync::Mutex<Held<V, E>>>;

#[derive(Debug)]
struct Held<V, E> {
    value: Option<(V, Instant, Duration)>,
    failure: Option<(E, Instant)>,
}

impl<V: Clone, E> Held<V, E> {
    /// What a failure leads to.
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

/// Fetched values by key.
pub struct Flights<K: Hash + Eq, V, E> {
    slots: Arc<Mutex<Slots<K, V, E>>>,
    /// How many bytes a value takes up.
    weigh: fn(&V) -> usize,
    clock: Arc<dyn Clock>,
}

impl<K: Hash + Eq, V, E> fmt::Debug for Flights<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flights(..)")
    }
}

/// How much a cache keeps; what was used longest ago goes first.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Keys.
    pub keys: NonZeroUsize,
    /// Bytes of all values together. A single value may have more.
    pub bytes: usize,
}

/// Slots with the bytes of their values.
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

    /// The value in this slot has so many bytes from now on. Others go where there is no room for it.
    fn weighed(&mut self, key: &K, own: &Slot<V, E>, bytes: usize) {
        // It may have been evicted meanwhile; who uses it has it all the same.
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

/// A value out of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached<V> {
    /// The value.
    pub value: V,
    /// Is its time over, and was it given because the fetch failed?
    pub stale: bool,
}

impl<K, V, E> Flights<K, V, E>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + 'static,
    E: Clone + Send + 'static,
{
    /// Keeps as much as `bounds` say, by what `weigh` finds a value to take up.
    pub fn new(bounds: Bounds, weigh: fn(&V) -> usize, clock: Arc<dyn Clock>) -> Flights<K, V, E> {
        let by_key = LruCache::new(bounds.keys);
        let slots = Slots { by_key, bytes: 0, most_bytes: bounds.bytes };
        Flights { slots: Arc::new(Mutex::new(slots)), weigh, clock }
    }

    /// The value of `key`: kept, or else fetched by one caller while the others wait. Where fetching fails, a value whose
    /// time ended less than `stale_for` ago is given all the same, if `bearable` says that this failure is one to be borne.
    ///
    /// A fetch that began comes to its end whether its caller still waits or not: an agent that hangs up must not be able
    /// to lose what was issued, or have the same fetched again and again.
    ///
    /// # Errors
    /// The fetch's, to all who waited for it and for one second after.
    pub async fn get<F>(
        &self,
        key: &K,
        stale_for: Duration,
        bearable: fn(&E) -> bool,
        fetch: impl FnOnce() -> F,
    ) -> Result<Cached<V>, E>
    where
        F: Future<Output = Result<Fetched<V>, E>> + Send + 'static,
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
                Ok(Fetched { value, usable_for }) => {
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

    /// Lets the value of `key` be used for `usable_for` from now on, if there is one.
    pub async fn extend(&self, key: &K, usable_for: Duration) {
        let slot = self.peek_slot(key);
        if let Some(slot) = slot
            && let Some((_, since, time)) = &mut slot.lock().await.value
        {
            (*since, *time) = (self.clock.instant(), usable_for);
        }
    }

    /// The value that is held for `key`, its time over or not. Waits where it is being fetched.
    pub async fn peek(&self, key: &K) -> Option<V> {
        let slot = self.peek_slot(key)?;
        let held = slot.lock().await;
        held.value.as_ref().map(|(value, ..)| value.clone())
    }

    /// The value that is held for `key`, its time over or not. None where it is being fetched: nothing waits.
    pub fn peek_now(&self, key: &K) -> Option<V> {
        let slot = self.peek_slot(key)?;
        let held = slot.try_lock().ok()?;
        held.value.as_ref().map(|(value, ..)| value.clone())
    }

    /// Lets the next request fetch `key`. Its value stays, for a failure that is to be borne.
    pub async fn expire(&self, key: &K) {
        self.extend(key, Duration::ZERO).await;
    }

    /// Forgets the value of `key`: the next request fetches it.
    pub fn evict(&self, key: &K) {
        lock(&self.slots).pop(key);
    }

    /// Forgets every key that `goes`, and gives what was held for it.
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

    /// Forgets values whose time is over, `stale_for` counted in, so that they do not stay in memory unused.
    pub fn tidy(&self, stale_for: Duration) {
        let now = self.clock.instant();
        let mut all = lock(&self.slots);
        let over = |slot: &Slot<V, E>| {
            // Locked: somebody is fetching it now.
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
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
