//! The slot that a connection occupies. A connection of an identified agent uses one of that agent's slots. An
//! unidentified connection displaces older ones from the same source that are still unidentified. So a flood
//! displaces its own connections, and a client that presents its token at once is served.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use onecli_model::AgentId;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::agent_quota::{AgentQuota, QuotaShare};

/// Time limit for refusing a displaced connection, including its audit record.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The source of an unidentified connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// A managed cgroup that belongs to no agent, by its id.
    Cgroup(u64),
    /// An address; for IPv6, the /64 that one host can own.
    Address(IpAddr),
}

impl Source {
    pub(crate) fn of_address(address: IpAddr) -> Source {
        Source::Address(match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                let [a, b, c, d, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            other => other,
        })
    }
}

/// Counts unidentified connections, and displaces the oldest for the newest.
#[derive(Debug, Clone)]
pub(crate) struct UnidentifiedLimiter {
    waiting: Arc<Mutex<Waiting>>,
    each: usize,
    all: usize,
    /// Permits for displaced connections that get their refusal at the same time.
    refusal_permits: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_source: HashMap<Source, VecDeque<(u64, CancellationToken)>>,
    all: usize,
    next: u64,
}

/// One unidentified connection.
#[derive(Debug)]
pub(crate) struct UnidentifiedSlot {
    waiting: Arc<Mutex<Waiting>>,
    source: Source,
    number: u64,
    replaced: CancellationToken,
    refusal_permits: Arc<Semaphore>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

impl UnidentifiedLimiter {
    /// Allows `each` connections from one source and `all` from all sources. `refused` displaced ones get their
    /// refusal at the same time.
    pub(crate) fn new(each: usize, all: usize, refused: usize) -> UnidentifiedLimiter {
        UnidentifiedLimiter {
            waiting: Arc::default(),
            each,
            all,
            refusal_permits: Arc::new(Semaphore::new(refused)),
        }
    }

    /// Admits a connection. If its source is at its limit, the source's oldest connection is displaced. If all
    /// sources together are at theirs, the oldest connection of the source with the most is displaced.
    pub(crate) fn admit(&self, source: Source) -> UnidentifiedSlot {
        let mut waiting = lock(&self.waiting);
        let own = waiting.by_source.get(&source).map_or(0, VecDeque::len);
        if own >= self.each {
            waiting.replace_oldest(source);
        } else if waiting.all >= self.all {
            let greediest = waiting.by_source.iter().max_by_key(|(_, queue)| queue.len());
            if let Some(greediest) = greediest.map(|(source, _)| *source) {
                waiting.replace_oldest(greediest);
            }
        }
        let (number, replaced) = (waiting.next, CancellationToken::new());
        waiting.next += 1;
        waiting.all += 1;
        waiting.by_source.entry(source).or_default().push_back((number, replaced.clone()));
        let (waiting, refusal_permits) = (Arc::clone(&self.waiting), Arc::clone(&self.refusal_permits));
        UnidentifiedSlot { waiting, source, number, replaced, refusal_permits }
    }
}

impl Waiting {
    fn replace_oldest(&mut self, source: Source) {
        let oldest = self.by_source.get(&source).and_then(VecDeque::front).cloned();
        if let Some((number, replaced)) = oldest {
            replaced.cancel();
            self.remove(source, number);
        }
    }

    fn remove(&mut self, source: Source, number: u64) {
        let Some(queue) = self.by_source.get_mut(&source) else { return };
        // The numbers increase from front to back.
        let Ok(at) = queue.binary_search_by_key(&number, |(number, _)| *number) else { return };
        queue.remove(at);
        self.all -= 1;
        if queue.is_empty() {
            self.by_source.remove(&source);
        }
    }
}

impl Drop for UnidentifiedSlot {
    fn drop(&mut self) {
        lock(&self.waiting).remove(self.source, self.number);
    }
}

/// The slot of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionSlot(Mutex<SlotOwner>);

#[derive(Debug)]
enum SlotOwner {
    Agent(QuotaShare),
    Unidentified(UnidentifiedSlot),
}

impl ConnectionSlot {
    /// Returns the slot of an agent's connection.
    pub(crate) fn of_agent(share: QuotaShare) -> ConnectionSlot {
        ConnectionSlot(Mutex::new(SlotOwner::Agent(share)))
    }

    /// Returns the slot of an unidentified connection.
    pub(crate) fn of_unidentified(unidentified: UnidentifiedSlot) -> ConnectionSlot {
        ConnectionSlot(Mutex::new(SlotOwner::Unidentified(unidentified)))
    }

    /// Counts the connection as the agent's from now on; false if the agent is at its limit.
    pub(crate) fn give_to(&self, agent: AgentId, shares: &AgentQuota) -> bool {
        let mut owner = lock(&self.0);
        if matches!(&*owner, SlotOwner::Agent(share) if share.key() == agent) {
            return true;
        }
        match shares.take(agent) {
            Some(share) => {
                *owner = SlotOwner::Agent(share);
                true
            }
            None => false,
        }
    }

    /// Returns a token that is cancelled when a newer connection displaces this one. An agent's connection is never
    /// displaced.
    pub(crate) fn displaced(&self) -> CancellationToken {
        match &*lock(&self.0) {
            SlotOwner::Agent(_) => CancellationToken::new(),
            SlotOwner::Unidentified(unidentified) => unidentified.replaced.clone(),
        }
    }

    /// Runs `served` to its end. If the connection is displaced, `served` gets time to send the refusal. Returns
    /// false if it was aborted.
    pub(crate) fn run_until_displaced(&self, served: impl Future<Output = ()>) -> impl Future<Output = bool> {
        let displaced = self.displaced();
        let refusal_permits = match &*lock(&self.0) {
            SlotOwner::Agent(_) => None,
            SlotOwner::Unidentified(unidentified) => Some(Arc::clone(&unidentified.refusal_permits)),
        };
        // The future is large, and callers await it within other futures.
        let mut served = Box::pin(served);
        async move {
            tokio::select! {
                () = &mut served => return true,
                () = displaced.cancelled() => {}
            }
            let Some(refusal_permits) = refusal_permits else { return false };
            let Ok(_permit) = refusal_permits.try_acquire() else { return false };
            timeout(REFUSAL_TIMEOUT, served).await.is_ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Source {
        Source::of_address(text.parse().unwrap())
    }

    #[test]
    fn source_is_the_host_and_not_each_address() {
        assert_eq!(address("2001:db8:1:2::1"), address("2001:db8:1:2:ffff::2"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("::1"), address("127.0.0.1"));
    }

    #[test]
    fn newer_connection_displaces_the_oldest_of_its_source() {
        let limiter = UnidentifiedLimiter::new(2, 4, 1);
        let flood: Vec<_> = (0..5).map(|_| limiter.admit(address("192.0.2.1"))).collect();
        let replaced: Vec<bool> = flood.iter().map(|one| one.replaced.is_cancelled()).collect();
        assert_eq!(replaced, [true, true, true, false, false]);
        let other = limiter.admit(Source::Cgroup(7));
        let third = limiter.admit(address("192.0.2.3"));
        let fourth = limiter.admit(address("192.0.2.4"));
        assert!(flood[3].replaced.is_cancelled(), "the source with the most connections makes room");
        assert!([&other, &third, &fourth, &flood[4]].iter().all(|one| !one.replaced.is_cancelled()));
        drop((flood, other, third, fourth));
        let waiting = lock(&limiter.waiting);
        assert!(waiting.by_source.is_empty() && waiting.all == 0);
    }

    #[test]
    fn identified_connection_is_not_displaced() {
        let (limiter, shares) = (UnidentifiedLimiter::new(1, 8, 1), AgentQuota::new(1, 8));
        let agent = AgentId(uuid::Uuid::from_u128(1));
        let known = ConnectionSlot::of_unidentified(limiter.admit(address("192.0.2.1")));
        assert!(known.give_to(agent, &shares) && known.give_to(agent, &shares));
        let next = limiter.admit(address("192.0.2.1"));
        let replaced = limiter.admit(address("192.0.2.1"));
        assert!(next.replaced.is_cancelled() && !replaced.replaced.is_cancelled());
        let second = ConnectionSlot::of_unidentified(replaced);
        assert!(!second.give_to(agent, &shares), "the agent is at its limit");
        drop(known);
        assert!(second.give_to(agent, &shares));
    }
}
