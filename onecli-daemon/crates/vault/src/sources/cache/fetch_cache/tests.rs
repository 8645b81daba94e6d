//! Tests of single fetches, expiry and failures.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use jiff::Timestamp;

use super::*;

#[derive(Debug)]
struct Hand {
    start: Instant,
    passed: Mutex<Duration>,
}

impl Hand {
    #[expect(clippy::disallowed_methods, reason = "the origin of a clock that only the test moves")]
    fn new() -> Arc<Hand> {
        Arc::new(Hand { start: Instant::now(), passed: Mutex::default() })
    }

    fn pass(&self, time: Duration) {
        *self.passed.lock() += time;
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn instant(&self) -> Instant {
        self.start + *self.passed.lock()
    }
}

const TTL: Duration = Duration::from_secs(30);

fn cache(clock: &Arc<Hand>, most: usize) -> FetchCache<&'static str, u32, &'static str> {
    let bounds = Bounds { keys: NonZeroUsize::new(most).unwrap(), bytes: usize::MAX };
    FetchCache::new(bounds, |_| 1, Arc::clone(clock) as _)
}

/// Serves `value` and counts the fetches.
fn serve(count: &AtomicU32, value: u32) -> impl Future<Output = Result<Expiring<u32>, &'static str>> + use<> {
    count.fetch_add(1, SeqCst);
    async move {
        tokio::task::yield_now().await;
        Ok(Expiring { value, usable_for: TTL })
    }
}

#[tokio::test]
async fn one_fetch_serves_concurrent_callers_until_expiry() {
    let (clock, count) = (Hand::new(), AtomicU32::new(0));
    let cache = cache(&clock, 4);
    let all = futures_util::future::join_all(
        (0..50).map(|_| cache.get(&"a", Duration::ZERO, |_| true, || serve(&count, 7))),
    );
    assert!(all.await.into_iter().all(|got| got == Ok(Cached { value: 7, stale: false })));
    assert_eq!(count.load(SeqCst), 1);
    clock.pass(TTL);
    let got = cache.get(&"a", Duration::ZERO, |_| true, || serve(&count, 8)).await;
    assert_eq!(got, Ok(Cached { value: 8, stale: false }));
    cache.evict(&"a");
    cache.get(&"a", Duration::ZERO, |_| true, || serve(&count, 9)).await.unwrap();
    assert_eq!(count.load(SeqCst), 3);
}

#[tokio::test]
async fn failed_fetch_is_retried_once_a_second_and_stale_value_needs_configuration() {
    let (clock, count) = (Hand::new(), AtomicU32::new(0));
    let cache = cache(&clock, 4);
    let fail = || {
        count.fetch_add(1, SeqCst);
        std::future::ready(Err("down"))
    };
    for _ in 0..10 {
        assert_eq!(cache.get(&"a", TTL, |_| true, fail).await, Err("down"));
    }
    assert_eq!(count.load(SeqCst), 1);
    clock.pass(FAILURE_FOR);
    cache.get(&"a", TTL, |_| true, || serve(&count, 7)).await.unwrap();

    clock.pass(TTL);
    let stale = cache.get(&"a", TTL, |_| true, fail).await;
    assert_eq!(stale, Ok(Cached { value: 7, stale: true }));
    clock.pass(TTL);
    assert_eq!(cache.get(&"a", TTL, |_| true, fail).await, Err("down"));

    clock.pass(FAILURE_FOR);
    cache.get(&"a", TTL, |_| true, || serve(&count, 8)).await.unwrap();
    clock.pass(TTL);
    assert_eq!(cache.get(&"a", TTL, |_| false, fail).await, Err("down"), "the failure is not bearable");
}

#[tokio::test]
async fn keys_are_bounded_and_expired_values_are_dropped() {
    let (clock, count) = (Hand::new(), AtomicU32::new(0));
    let cache = cache(&clock, 2);
    for key in ["a", "b", "c"] {
        cache.get(&key, Duration::ZERO, |_| true, || serve(&count, 1)).await.unwrap();
    }
    assert_eq!(lock(&cache.slots).by_key.len(), 2);
    assert_eq!(cache.evict_where(|key| *key == "c").await, [("c", 1)]);
    cache.tidy(Duration::ZERO);
    assert_eq!(lock(&cache.slots).by_key.len(), 1);
    clock.pass(TTL);
    cache.tidy(TTL);
    assert_eq!(lock(&cache.slots).by_key.len(), 1);
    cache.tidy(Duration::ZERO);
    assert_eq!(lock(&cache.slots).by_key.len(), 0);
}

#[tokio::test]
async fn fetch_completes_when_its_caller_disconnects() {
    let (clock, count) = (Hand::new(), AtomicU32::new(0));
    let cache = cache(&clock, 4);
    let (go, wait) = tokio::sync::oneshot::channel();
    let fetch = || {
        count.fetch_add(1, SeqCst);
        async {
            wait.await.unwrap();
            Ok(Expiring { value: 7, usable_for: TTL })
        }
    };
    let asked = cache.get(&"a", Duration::ZERO, |_| true, fetch);
    tokio::time::timeout(Duration::from_millis(10), asked).await.unwrap_err();
    go.send(()).unwrap();
    let got = cache.get(&"a", Duration::ZERO, |_| true, || serve(&count, 8)).await;
    assert_eq!((got, count.load(SeqCst)), (Ok(Cached { value: 7, stale: false }), 1));
}

/// The bytes of the values bound a cache, whichever call removes a value.
#[tokio::test]
async fn large_values_evict_the_least_recently_used() {
    let clock = Hand::new();
    let bounds = Bounds { keys: NonZeroUsize::new(4).unwrap(), bytes: 100 };
    let cache: FetchCache<&str, u32, &str> = FetchCache::new(bounds, |value| *value as usize, clock.clone());
    let get = async |key: &'static str, value: u32| {
        let fetch = || async move { Ok(Expiring { value, usable_for: TTL }) };
        cache.get(&key, Duration::ZERO, |_| true, fetch).await.unwrap().value
    };
    let kept = || {
        let all = lock(&cache.slots);
        let weighed: usize = all.by_key.iter().map(|(_, (_, bytes))| bytes).sum();
        assert_eq!(all.bytes, weighed);
        let mut keys: Vec<&str> = all.by_key.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys
    };
    get("a", 40).await;
    get("b", 40).await;
    assert_eq!(get("a", 1).await, 40, "it stays cached");
    get("c", 40).await;
    assert_eq!(kept(), ["a", "c"]);
    // Larger than the bound: it is cached alone, until the next value arrives.
    get("huge", 500).await;
    assert_eq!(kept(), ["huge"]);
    get("d", 60).await;
    assert_eq!(kept(), ["d"]);
    // The same key with another value.
    clock.pass(TTL);
    get("d", 90).await;
    get("e", 10).await;
    assert_eq!(kept(), ["d", "e"]);
    cache.evict(&"d");
    for key in ["f", "g", "h", "i"] {
        get(key, 1).await;
    }
    assert_eq!(kept(), ["f", "g", "h", "i"]);
    assert_eq!(cache.evict_where(|key| *key == "f").await, [("f", 1)]);
    clock.pass(TTL);
    cache.tidy(Duration::ZERO);
    assert_eq!((kept(), lock(&cache.slots).bytes), (Vec::new(), 0));
}
