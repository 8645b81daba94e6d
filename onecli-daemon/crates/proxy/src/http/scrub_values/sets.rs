//! The values that a response is searched for, for all hosts.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use onecli_model::{Clock, Host};
use onecli_policy::{HostGroups, ScrubGrant, SentAs, Snapshot};
use onecli_vault::Credentials;
use parking_lot::{Mutex, MutexGuard};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::joined::Joined;
use super::search_set::SearchSet;
use crate::http::scrub::Needles;

/// Maximum number of cached sets, and of bytes in all their spellings. A value of 40 bytes has about 2 KiB of
/// spellings, and 10 KiB in Basic credentials. A single set may be larger.
const SETS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
const SET_BYTES: usize = 32 << 20;
/// A set that no request used for this long is dropped, so that its values do not remain in memory.
const KEPT_FOR: Duration = Duration::from_mins(10);

/// The content of a set: SHA-256 over the sealed values, which are bound to name, target and placement.
type Content = [u8; 32];

/// The sets of all hosts.
pub(crate) struct ScrubValues {
    pub(super) policy: watch::Receiver<Arc<Snapshot>>,
    pub(super) credentials: Arc<Credentials>,
    clock: Arc<dyn Clock>,
    sets: Mutex<Sets>,
    joined: Joined,
}

struct Sets {
    /// The policy that `by_groups` belongs to.
    policy: Option<Arc<Snapshot>>,
    by_groups: LruCache<HostGroups, Content>,
    by_content: LruCache<Content, (Arc<SearchSet>, Instant)>,
    bytes: usize,
    nothing: Arc<SearchSet>,
}

impl std::fmt::Debug for ScrubValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScrubValues(..)")
    }
}

impl ScrubValues {
    /// Starts without sets.
    pub(crate) fn new(
        policy: watch::Receiver<Arc<Snapshot>>,
        credentials: Arc<Credentials>,
        clock: Arc<dyn Clock>,
    ) -> ScrubValues {
        let sets = Sets {
            policy: None,
            by_groups: LruCache::new(SETS),
            by_content: LruCache::new(SETS),
            bytes: 0,
            nothing: Arc::default(),
        };
        ScrubValues { policy, credentials, clock, sets: Mutex::new(sets), joined: Joined::new() }
    }

    /// The values that responses of `host` are searched for under the current policy.
    pub(crate) fn searched(&self, host: &Host) -> Arc<SearchSet> {
        let policy = Arc::clone(&self.policy.borrow());
        self.at(&policy, host)
    }

    /// The values that responses of `host` are searched for under `policy`, the newest one.
    pub(super) fn at(&self, policy: &Arc<Snapshot>, host: &Host) -> Arc<SearchSet> {
        let now = self.clock.instant();
        let groups = policy.stored_at(host);
        if let Some(set) = self.lock().known(policy, &groups, now) {
            return set;
        }
        let grants = policy.stored_values(&groups);
        let content = content(&grants);
        let known = self.lock().by_content.get(&content).map(|(set, _)| Arc::clone(set));
        let set = known.unwrap_or_else(|| Arc::new(SearchSet::compile(grants, &self.credentials)));
        self.lock().keep(policy, groups, content, &set, now);
        set
    }

    /// Returns the values to search for in a running response that was searched for `known`. Responses are searched
    /// for `current` now, and were searched for `before`.
    pub(super) fn joined(
        &self,
        known: &Arc<Needles>,
        before: &Arc<Needles>,
        current: &Arc<Needles>,
    ) -> Arc<Needles> {
        self.joined.of(known, before, current)
    }

    /// Drops sets that were not used for a while. Call it periodically.
    pub(crate) fn tidy(&self, now: Instant) {
        let mut sets = self.lock();
        let is_old = |used: &Instant| now.saturating_duration_since(*used) >= KEPT_FOR;
        while sets.by_content.peek_lru().is_some_and(|(_, (_, used))| is_old(used)) {
            sets.forget_oldest();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sets> {
        self.sets.lock()
    }
}

impl Sets {
    fn known(&mut self, policy: &Arc<Snapshot>, groups: &HostGroups, now: Instant) -> Option<Arc<SearchSet>> {
        if groups.is_empty() {
            return Some(Arc::clone(&self.nothing));
        }
        if !self.policy.as_ref().is_some_and(|own| Arc::ptr_eq(own, policy)) {
            return None;
        }
        let (set, used) = self.by_content.get_mut(self.by_groups.get(groups)?)?;
        *used = now;
        Some(Arc::clone(set))
    }

    fn keep(
        &mut self,
        policy: &Arc<Snapshot>,
        groups: HostGroups,
        content: Content,
        set: &Arc<SearchSet>,
        now: Instant,
    ) {
        if !self.policy.as_ref().is_some_and(|own| Arc::ptr_eq(own, policy)) {
            self.policy = Some(Arc::clone(policy));
            self.by_groups.clear();
        }
        self.by_groups.push(groups, content);
        self.bytes += set.bytes();
        if let Some((_, (old, _))) = self.by_content.push(content, (Arc::clone(set), now)) {
            self.bytes -= old.bytes();
        }
        while self.bytes > SET_BYTES && self.by_content.len() > 1 {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, (set, _))) = self.by_content.pop_lru() {
            self.bytes -= set.bytes();
        }
    }
}

fn content(grants: &[ScrubGrant]) -> Content {
    let mut hash = Sha256::new();
    for grant in grants {
        let secret = grant.secret();
        hash.update(secret.id.0.as_bytes());
        hash.update(secret.version.to_be_bytes());
        hash.update([u8::from(grant.sent() == SentAs::Placed)]);
        hash.update(secret.sealed.0.len().to_be_bytes());
        hash.update(&secret.sealed.0);
    }
    hash.finalize().into()
}
