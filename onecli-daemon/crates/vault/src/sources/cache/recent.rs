//! Recently used values: an upstream may echo a value after it was replaced.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use onecli_model::{AgentId, SecretId, SecretValue};
use parking_lot::{Mutex, MutexGuard};

/// The most pairs of agent and secret. A value has 16 KiB at most, and its size is the operator's choice. With keys
/// of 4 KiB, the largest in use, all values together stay below 64 MiB, and never exceed 256 MiB.
const MAX_PAIRS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// The number of newest values of each pair.
const MAX_VALUES: usize = 4;
/// How long responses are searched for a value after its last use.
const SCRUBBED_FOR: Duration = Duration::from_mins(10);
/// The least interval between fetches caused by an upstream's 401, because an agent can provoke a 401 at any time.
const REFUSAL_PAUSE: Duration = Duration::from_secs(5);

/// The recently used values.
pub(crate) struct RecentlyServed(Mutex<All>);

struct All {
    by_agent: LruCache<(AgentId, SecretId), ServedValue>,
    /// The agents in `by_agent`, by secret.
    agents: HashMap<SecretId, Vec<AgentId>>,
}

#[derive(Default)]
struct ServedValue {
    values: VecDeque<(SecretValue, Instant)>,
    refused: Option<Instant>,
}

impl RecentlyServed {
    pub(crate) fn new() -> RecentlyServed {
        RecentlyServed(Mutex::new(All { by_agent: LruCache::new(MAX_PAIRS), agents: HashMap::new() }))
    }

    /// Notes the use of a value. Reports whether the value is new.
    pub(crate) fn note(&self, agent: AgentId, secret: SecretId, value: &SecretValue, now: Instant) -> bool {
        let mut all = self.lock();
        let values = &mut all.served(agent, secret).values;
        // A value that is no longer searched for is new again.
        values.retain(|(_, since)| now.saturating_duration_since(*since) < SCRUBBED_FOR);
        let known = values.len();
        values.retain(|(known, _)| known.expose() != value.expose());
        let is_new = values.len() == known;
        values.push_front((value.clone(), now));
        values.truncate(MAX_VALUES);
        is_new
    }

    /// The values of a secret that this agent's requests recently used.
    pub(crate) fn of(&self, agent: AgentId, secret: SecretId, now: Instant) -> Vec<SecretValue> {
        let all = self.lock();
        let values = all.by_agent.peek(&(agent, secret)).into_iter().flat_map(|served| &served.values);
        let is_recent = |since: &Instant| now.saturating_duration_since(*since) < SCRUBBED_FOR;
        values.filter(|(_, since)| is_recent(since)).map(|(value, _)| value.clone()).collect()
    }

    /// The values of a secret that were recently used by any agent, each once.
    pub(crate) fn of_all(&self, secret: SecretId, now: Instant) -> Vec<SecretValue> {
        let all = self.lock();
        let served = all.agents.get(&secret).into_iter().flatten();
        let values =
            served.filter_map(|agent| all.by_agent.peek(&(*agent, secret))).flat_map(|of| &of.values);
        let is_recent = |since: &Instant| now.saturating_duration_since(*since) < SCRUBBED_FOR;
        let mut distinct: Vec<SecretValue> = Vec::new();
        for (value, _) in values.filter(|(_, since)| is_recent(since)) {
            if distinct.iter().all(|known| known.expose() != value.expose()) {
                distinct.push(value.clone());
            }
        }
        distinct
    }

    /// The agents that used a value of this secret, while the cache remembers them.
    pub(crate) fn agents_of(&self, secret: SecretId) -> Vec<AgentId> {
        self.lock().agents.get(&secret).cloned().unwrap_or_default()
    }

    /// Reports whether a value that the upstream refused may be fetched again now.
    pub(crate) fn may_refetch(&self, agent: AgentId, secret: SecretId, now: Instant) -> bool {
        let mut all = self.lock();
        let refused = &mut all.served(agent, secret).refused;
        let may = refused.is_none_or(|last| now.saturating_duration_since(last) >= REFUSAL_PAUSE);
        if may {
            *refused = Some(now);
        }
        may
    }

    /// Forgets values that are no longer searched for, so that they do not stay in memory.
    pub(crate) fn tidy(&self, now: Instant) {
        for (_, served) in &mut self.lock().by_agent {
            served.values.retain(|(_, since)| now.saturating_duration_since(*since) < SCRUBBED_FOR);
        }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock()
    }
}

impl All {
    fn served(&mut self, agent: AgentId, secret: SecretId) -> &mut ServedValue {
        let key = (agent, secret);
        if !self.by_agent.contains(&key) {
            self.agents.entry(secret).or_default().push(agent);
            if let Some((gone, _)) = self.by_agent.push(key, ServedValue::default()) {
                self.forget(gone);
            }
        }
        self.by_agent.get_or_insert_mut(key, ServedValue::default)
    }

    fn forget(&mut self, (agent, secret): (AgentId, SecretId)) {
        if let Some(agents) = self.agents.get_mut(&secret) {
            agents.retain(|own| *own != agent);
            if agents.is_empty() {
                self.agents.remove(&secret);
            }
        }
    }
}

impl fmt::Debug for RecentlyServed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecentlyServed(..)")
    }
}

#[cfg(test)]
mod tests {
    use onecli_model::Clock as _;
    use onecli_sys::SystemClock;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn few_old_values_are_scrubbed_for_a_while() {
        let (recent, start) = (RecentlyServed::new(), SystemClock.instant());
        let (agent, secret) = (AgentId(Uuid::from_u128(1)), SecretId(Uuid::from_u128(2)));
        let value = |n: u32| SecretValue::new(format!("value-number-{n}").into_bytes()).unwrap();
        for n in 0..6 {
            recent.note(agent, secret, &value(n), start + Duration::from_secs(u64::from(n)));
        }
        let seen = |at: Duration| -> Vec<Vec<u8>> {
            recent.of_all(secret, start + at).iter().map(|value| value.expose().to_vec()).collect()
        };
        let expected =
            |all: &[u32]| -> Vec<Vec<u8>> { all.iter().map(|n| value(*n).expose().to_vec()).collect() };
        assert_eq!(seen(Duration::from_secs(6)), expected(&[5, 4, 3, 2]));
        assert_eq!(seen(SCRUBBED_FOR + Duration::from_secs(4)), expected(&[5]));
        assert!(recent.of_all(SecretId(Uuid::from_u128(9)), start).is_empty());
        assert!(!format!("{recent:?}").contains("value-number"));
    }

    /// A value used for one agent is searched for in responses to all agents, and each value only once.
    #[test]
    fn values_of_all_agents_are_found_by_secret() {
        let (recent, start) = (RecentlyServed::new(), SystemClock.instant());
        let secret = SecretId(Uuid::from_u128(2));
        let agent = |n: u128| AgentId(Uuid::from_u128(n));
        let value = |text: &str| SecretValue::new(text.as_bytes().to_vec()).unwrap();
        recent.note(agent(1), secret, &value("value-one"), start);
        recent.note(agent(2), secret, &value("value-one"), start);
        recent.note(agent(3), secret, &value("value-two"), start);
        let found = recent.of_all(secret, start);
        let found: Vec<&[u8]> = found.iter().map(SecretValue::expose).collect();
        assert_eq!(found, [b"value-one", b"value-two"]);
        assert_eq!(recent.agents_of(secret), [agent(1), agent(2), agent(3)]);
        for n in 0..u128::try_from(MAX_PAIRS.get()).unwrap() {
            recent.note(agent(n), SecretId(Uuid::from_u128(3)), &value("value-other"), start);
        }
        assert!(recent.of_all(secret, start).is_empty(), "the oldest are forgotten");
        assert!(recent.agents_of(secret).is_empty());
    }

    #[test]
    fn refetch_after_refusal_is_rate_limited() {
        let (recent, start) = (RecentlyServed::new(), SystemClock.instant());
        let (agent, secret) = (AgentId(Uuid::from_u128(1)), SecretId(Uuid::from_u128(2)));
        assert!(recent.may_refetch(agent, secret, start));
        assert!(!recent.may_refetch(agent, secret, start + Duration::from_secs(1)));
        assert!(recent.may_refetch(agent, secret, start + REFUSAL_PAUSE));
    }
}
