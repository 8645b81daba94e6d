//! The spellings of one host's values.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use onecli_model::{Secret, SecretValue, ValueClass};
use onecli_policy::{ScrubGrant, SentAs};
use onecli_vault::{Credentials, wire_forms};
use parking_lot::{Mutex, MutexGuard};
use zeroize::Zeroizing;

use crate::http::scrub::{Needle, Needles, spellings};

/// Number of values of one secret whose spellings are cached, for values that are not in the store. It is slightly
/// more than the number searched for at a time (64 tokens). A token of 2 KiB has 24 KiB of spellings.
const SPELT: NonZeroUsize = NonZeroUsize::new(80).unwrap();
/// Number of combinations of such values that are cached in compiled form. Dynamic secrets have a value for each
/// agent.
const COMBINATIONS: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// The values that responses of one host, or of several with the same secrets, are searched for.
#[derive(Default)]
pub(crate) struct SearchSet {
    /// The needles of stored values.
    needles: Arc<Needles>,
    /// The same needles, by secret.
    stored: Vec<(ScrubGrant, Vec<Needle>)>,
    bytes: usize,
    /// How long bytes that may begin a value wait: the longest time of all secrets, if each sets one.
    flush_after: Option<Duration>,
    unopened: Vec<ScrubGrant>,
    moving: Vec<Moving>,
    combined: Option<Mutex<LruCache<Combination, Combined>>>,
}

/// The addresses of the spellings that are combined.
type Combination = Vec<usize>;

/// While the spellings are retained, no others can have their addresses.
struct Combined {
    _spelt: Vec<Arc<Spelt>>,
    needles: Arc<Needles>,
}

/// The spellings of one value.
pub(super) struct Spelt(Vec<Needle>);

/// A secret whose value is fetched from elsewhere, or issued by a token endpoint.
pub(super) struct Moving {
    grant: ScrubGrant,
    spelt: Mutex<LruCache<Value, Arc<Spelt>>>,
}

/// A value as a map key.
#[derive(PartialEq, Eq)]
struct Value(Zeroizing<Vec<u8>>);

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_slice().hash(state);
    }
}

impl Borrow<[u8]> for Value {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl SearchSet {
    /// Opens the stored values and computes their spellings.
    pub(super) fn compile(grants: Vec<ScrubGrant>, credentials: &Credentials) -> SearchSet {
        let pauses = grants.iter().map(|grant| Some(grant.secret().profile.flush_after?.duration()));
        let flush_after = pauses.collect::<Option<Vec<_>>>().and_then(|pauses| pauses.into_iter().max());
        let mut set = SearchSet { flush_after, ..SearchSet::default() };
        for grant in grants {
            match credentials.stored_forms(&grant) {
                Ok(Some(forms)) => set.stored.push((grant, spellings(&forms))),
                Ok(None) => set.moving.push(Moving::new(grant)),
                Err(error) => {
                    tracing::error!(%error, secret = %grant.secret().name, "a secret that responses are searched for cannot be opened");
                    set.unopened.push(grant);
                }
            }
        }
        let needles = || set.stored.iter().flat_map(|(_, needles)| needles);
        set.bytes = needles().map(Needle::len).sum();
        let mut all = of(needles());
        if !set.moving.is_empty() {
            // Bytes wait for any value of the class, whichever values are known now.
            all.watch_for(ValueClass::ISSUED);
        }
        set.needles = Arc::new(all);
        set.combined = (!set.moving.is_empty()).then(|| Mutex::new(LruCache::new(COMBINATIONS)));
        set
    }

    /// How long held bytes wait for later bytes; `None` means no limit.
    pub(super) fn flush_after(&self) -> Option<Duration> {
        self.flush_after
    }

    /// Number of bytes in all spellings of stored values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether there is no secret for the host.
    pub(crate) fn is_empty(&self) -> bool {
        self.stored.is_empty() && self.moving.is_empty() && self.unopened.is_empty()
    }

    /// The secret whose value this text is. The search is slow.
    pub(crate) fn owner(&self, matched: &[u8]) -> Option<&Secret> {
        let stored =
            self.stored.iter().find(|(_, needles)| of(needles).is_in(matched)).map(|(grant, _)| grant);
        let moving = || self.moving.iter().find(|moving| moving.is_in(matched)).map(Moving::grant);
        stored.or_else(moving).map(ScrubGrant::secret)
    }

    /// Secrets whose values could not be opened.
    pub(super) fn unopened(&self) -> &[ScrubGrant] {
        &self.unopened
    }

    /// Secrets whose values are not in the store.
    pub(super) fn moving(&self) -> &[Moving] {
        &self.moving
    }

    /// Secrets for which tokens are issued.
    pub(crate) fn issued(&self) -> impl Iterator<Item = &ScrubGrant> {
        let is_issued =
            |grant: &&ScrubGrant| grant.sent() == SentAs::Placed && grant.secret().profile.mint.is_some();
        self.moving.iter().map(Moving::grant).filter(is_issued)
    }

    /// The needles of the stored values, and of those that are in memory now. Nothing is fetched or issued.
    pub(super) fn current(&self, credentials: &Credentials) -> Arc<Needles> {
        let spelt = |moving: &Moving| -> Vec<Arc<Spelt>> {
            let values = credentials.values_in_memory(&moving.grant);
            values.iter().filter_map(|value| moving.spell(value)).collect()
        };
        self.needles_with(self.moving.iter().flat_map(spelt).collect())
    }

    /// The spellings of stored values that requests to the host carry, for the secrets that `is_one` selects.
    pub(crate) fn placed(&self, is_one: impl Fn(&ScrubGrant) -> bool) -> Vec<Needle> {
        let of_those =
            self.stored.iter().filter(|(grant, _)| grant.sent() == SentAs::Placed && is_one(grant));
        of_those.flat_map(|(_, needles)| needles.iter().cloned()).collect()
    }

    /// Secrets whose values come from a source and are sent unchanged.
    pub(crate) fn fetched(&self) -> impl Iterator<Item = &ScrubGrant> {
        let is_fetched = |grant: &&ScrubGrant| grant.secret().profile.mint.is_none();
        self.moving.iter().map(Moving::grant).filter(is_fetched)
    }

    /// The needles of the stored values and of these.
    pub(super) fn needles_with(&self, spelt: Vec<Arc<Spelt>>) -> Arc<Needles> {
        let Some(combined) = self.combined.as_ref().filter(|_| !spelt.is_empty()) else {
            return Arc::clone(&self.needles);
        };
        let combination: Combination = spelt.iter().map(|spelt| Arc::as_ptr(spelt).addr()).collect();
        if let Some(known) = lock(combined).get(&combination) {
            return Arc::clone(&known.needles);
        }
        let mut needles = Needles::clone(&self.needles);
        needles.extend(spelt.iter().flat_map(|spelt| spelt.0.iter().cloned()));
        let needles = Arc::new(needles);
        lock(combined).put(combination, Combined { _spelt: spelt, needles: Arc::clone(&needles) });
        needles
    }
}

impl Moving {
    fn new(grant: ScrubGrant) -> Moving {
        Moving { grant, spelt: Mutex::new(LruCache::new(SPELT)) }
    }

    pub(super) fn grant(&self) -> &ScrubGrant {
        &self.grant
    }

    fn is_in(&self, matched: &[u8]) -> bool {
        lock(&self.spelt).iter().any(|(_, spelt)| of(&spelt.0).is_in(matched))
    }

    /// Returns the spellings of a value of this secret; `None` if no part of it is sent.
    pub(super) fn spell(&self, value: &SecretValue) -> Option<Arc<Spelt>> {
        let mut known = lock(&self.spelt);
        if let Some(spelt) = known.get(value.expose()) {
            return (!spelt.0.is_empty()).then(|| Arc::clone(spelt));
        }
        let spelt = Arc::new(Spelt(spellings(&wire_forms(&self.grant, value))));
        known.put(Value(Zeroizing::new(value.expose().to_vec())), Arc::clone(&spelt));
        (!spelt.0.is_empty()).then_some(spelt)
    }
}

fn of<'n>(needles: impl IntoIterator<Item = &'n Needle>) -> Needles {
    let mut all = Needles::default();
    all.extend(needles.into_iter().cloned());
    all
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}
