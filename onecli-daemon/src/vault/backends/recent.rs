//! Values that were given out a while ago: an upstream may echo one after it was replaced.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::model::{AgentId, SecretId, SecretValue};

/// Agents' secrets that are remembered. A value has 16 KiB at most, and is in the operator's hand: with keys of 4 KiB, the
/// largest in use, all are below 64 MiB, and never above 256.
const KEPT: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Values of one, the newest ones.
const VALUES: usize = 4;
/// How long a value is looked for after it was given out last.
const LOOKED_FOR: Duration = Duration::from_mins(10);
/// An upstream's 401 has a value fetched again so often: an agent can cause one whenever it likes.
const REFUSAL_PAUSE: Duration = Duration::from_secs(5);

/// What was given out lately, by agent and secret.
pub(in crate::vault) struct Recent(Mutex<LruCache<(AgentId, SecretId), Given>>);

#[derive(Default)]
struct Given {
    values: VecDeque<(SecretValue, Instant)>,
    refused: Option<Instant>,
}

impl Recent {
    pub(in crate::vault) fn new() -> Recent {
        Recent(Mutex::new(LruCache::new(KEPT)))
    }

    /// It is given out now.
    pub(in crate::vault) fn note(&self, agent: AgentId, secret: SecretId, value: &SecretValue, now: Instant) {
        let mut all = self.lock();
        let values = &mut all.get_or_insert_mut((agent, secret), Given::default).values;
        values.retain(|(known, since)| {
            known.expose() != value.expose() && now.saturating_duration_since(*since) < LOOKED_FOR
        });
        values.push_front((value.clone(), now));
        values.truncate(VALUES);
    }

    /// What to look for.
    pub(in crate::vault) fn of(&self, agent: AgentId, secret: SecretId, now: Instant) -> Vec<SecretValue> {
        let mut all = self.lock();
        let Some(given) = all.get_mut(&(agent, secret)) else { return Vec::new() };
        given.values.retain(|(_, since)| now.saturating_duration_since(*since) < LOOKED_FOR);
        given.values.iter().map(|(value, _)| value.clone()).collect()
    }

    /// The upstream refused a value. Is it time to fetch it again?
    pub(in crate::vault) fn may_refetch(&self, agent: AgentId, secret: SecretId, now: Instant) -> bool {
        let mut all = self.lock();
        let refused = &mut all.get_or_insert_mut((agent, secret), Given::default).refused;
        let may = refused.is_none_or(|last| now.saturating_duration_since(last) >= REFUSAL_PAUSE);
        if may {
            *refused = Some(now);
        }
        may
    }

    /// Forgets values that are not looked for any more, so that they do not stay in memory.
    pub(in crate::vault) fn tidy(&self, now: Instant) {
        for (_, given) in self.lock().iter_mut() {
            given.values.retain(|(_, since)| now.saturating_duration_since(*since) < LOOKED_FOR);
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<(AgentId, SecretId), Given>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recent(..)")
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::{Clock as _, SystemClock};

    #[test]
    fn old_values_are_looked_for_a_while_and_few_of_them() {
        let (recent, start) = (Recent::new(), SystemClock.instant());
        let (agent, secret) = (AgentId(Uuid::from_u128(1)), SecretId(Uuid::from_u128(2)));
        let value = |n: u32| SecretValue::new(format!("value-number-{n}").into_bytes()).unwrap();
        for n in 0..6 {
            recent.note(agent, secret, &value(n), start + Duration::from_secs(u64::from(n)));
        }
        let seen = |at: Duration| -> Vec<Vec<u8>> {
            recent.of(agent, secret, start + at).iter().map(|value| value.expose().to_vec()).collect()
        };
        let expected =
            |all: &[u32]| -> Vec<Vec<u8>> { all.iter().map(|n| value(*n).expose().to_vec()).collect() };
        assert_eq!(seen(Duration::from_secs(6)), expected(&[5, 4, 3, 2]));
        assert_eq!(seen(LOOKED_FOR + Duration::from_secs(4)), expected(&[5]));
        assert!(recent.of(AgentId(Uuid::from_u128(9)), secret, start).is_empty());
        assert!(!format!("{recent:?}").contains("value-number"));
    }

    #[test]
    fn refusals_have_a_value_fetched_again_now_and_then() {
        let (recent, start) = (Recent::new(), SystemClock.instant());
        let (agent, secret) = (AgentId(Uuid::from_u128(1)), SecretId(Uuid::from_u128(2)));
        assert!(recent.may_refetch(agent, secret, start));
        assert!(!recent.may_refetch(agent, secret, start + Duration::from_secs(1)));
        assert!(recent.may_refetch(agent, secret, start + REFUSAL_PAUSE));
    }
}
