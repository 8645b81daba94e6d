//! What a connection takes up. Who is known has a share of the agents' places. Who is not, takes the place of those
//! who came before from the same source and still have not said who they are: a flood gets in its own way, and a client
//! that presents its token at once gets through.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onecli_model::AgentId;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::shares::{Share, Shares};

/// How long the refusal of a displaced connection may take, its record included.
const FAREWELL: Duration = Duration::from_secs(5);

/// Where connections of nobody known come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// A managed cgroup that is no agent's, by its id.
    Cgroup(u64),
    /// An address; of IPv6, the /64 that one host can have to itself.
    Address(IpAddr),
}

impl Source {
    pub(super) fn of_address(address: IpAddr) -> Source {
        Source::Address(match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                let [a, b, c, d, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            other => other,
        })
    }
}

/// Counts connections of nobody known, and ends the oldest for the newest.
#[derive(Debug, Clone)]
pub(super) struct Strangers {
    waiting: Arc<Mutex<Waiting>>,
    each: usize,
    all: usize,
    /// Displaced connections that may get their refusal at the same time.
    farewells: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_source: HashMap<Source, VecDeque<(u64, CancellationToken)>>,
    all: usize,
    next: u64,
}

/// One connection of nobody known.
#[derive(Debug)]
pub(super) struct Stranger {
    waiting: Arc<Mutex<Waiting>>,
    source: Source,
    number: u64,
    replaced: CancellationToken,
    farewells: Arc<Semaphore>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Strangers {
    /// `each` from one source, `all` from all of them; `refused` displaced ones get their refusal at a time.
    pub(super) fn new(each: usize, all: usize, refused: usize) -> Strangers {
        Strangers { waiting: Arc::default(), each, all, farewells: Arc::new(Semaphore::new(refused)) }
    }

    /// Lets one more in. Where there is no room for it, the oldest of its source goes; where all sources together have
    /// none, the oldest of the one that has the most.
    pub(super) fn admit(&self, source: Source) -> Stranger {
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
        let (waiting, farewells) = (Arc::clone(&self.waiting), Arc::clone(&self.farewells));
        Stranger { waiting, source, number, replaced, farewells }
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
        // Numbers only grow from front to back.
        let Ok(at) = queue.binary_search_by_key(&number, |(number, _)| *number) else { return };
        queue.remove(at);
        self.all -= 1;
        if queue.is_empty() {
            self.by_source.remove(&source);
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        lock(&self.waiting).remove(self.source, self.number);
    }
}

/// The place of one connection.
#[derive(Debug)]
pub(super) struct Place(Mutex<Holder>);

#[derive(Debug)]
enum Holder {
    Agent(Share),
    Stranger(Stranger),
}

impl Place {
    /// An agent's from the beginning.
    pub(super) fn of_agent(share: Share) -> Place {
        Place(Mutex::new(Holder::Agent(share)))
    }

    /// Nobody's yet.
    pub(super) fn of_stranger(stranger: Stranger) -> Place {
        Place(Mutex::new(Holder::Stranger(stranger)))
    }

    /// Counts it as the agent's from now on; false where the agent may have no more.
    pub(super) fn give_to(&self, agent: AgentId, shares: &Shares) -> bool {
        let mut holder = lock(&self.0);
        if matches!(&*holder, Holder::Agent(share) if share.agent() == agent) {
            return true;
        }
        match shares.take(agent) {
            Some(share) => {
                *holder = Holder::Agent(share);
                true
            }
            None => false,
        }
    }

    /// Cancelled when somebody who came later takes the place; never where nobody may.
    pub(super) fn displaced(&self) -> CancellationToken {
        match &*lock(&self.0) {
            Holder::Agent(_) => CancellationToken::new(),
            Holder::Stranger(stranger) => stranger.replaced.clone(),
        }
    }

    /// Runs `served` to its end, or until it was displaced and had the time to refuse. False where it was cut off.
    pub(super) fn while_kept(&self, served: impl Future<Output = ()>) -> impl Future<Output = bool> {
        let displaced = self.displaced();
        let farewells = match &*lock(&self.0) {
            Holder::Agent(_) => None,
            Holder::Stranger(stranger) => Some(Arc::clone(&stranger.farewells)),
        };
        // It is large, and callers await it from inside of others.
        let mut served = Box::pin(served);
        async move {
            tokio::select! {
                () = &mut served => return true,
                () = displaced.cancelled() => {}
            }
            let Some(farewells) = farewells else { return false };
            let Ok(_permit) = farewells.try_acquire() else { return false };
            timeout(FAREWELL, served).await.is_ok()
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
    fn hosts_are_told_apart_and_their_addresses_are_not() {
        assert_eq!(address("2001:db8:1:2::1"), address("2001:db8:1:2:ffff::2"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("::1"), address("127.0.0.1"));
    }

    #[test]
    fn newer_ones_replace_the_oldest_of_their_source() {
        let strangers = Strangers::new(2, 4, 1);
        let flood: Vec<_> = (0..5).map(|_| strangers.admit(address("192.0.2.1"))).collect();
        let replaced: Vec<bool> = flood.iter().map(|one| one.replaced.is_cancelled()).collect();
        assert_eq!(replaced, [true, true, true, false, false]);
        let other = strangers.admit(Source::Cgroup(7));
        let third = strangers.admit(address("192.0.2.3"));
        let fourth = strangers.admit(address("192.0.2.4"));
        assert!(flood[3].replaced.is_cancelled(), "whoever has the most makes room");
        assert!([&other, &third, &fourth, &flood[4]].iter().all(|one| !one.replaced.is_cancelled()));
        drop((flood, other, third, fourth));
        let waiting = lock(&strangers.waiting);
        assert!(waiting.by_source.is_empty() && waiting.all == 0);
    }

    #[test]
    fn who_says_who_it_is_is_not_replaced() {
        let (strangers, shares) = (Strangers::new(1, 8, 1), Shares::new(1, 8));
        let agent = AgentId(uuid::Uuid::from_u128(1));
        let known = Place::of_stranger(strangers.admit(address("192.0.2.1")));
        assert!(known.give_to(agent, &shares) && known.give_to(agent, &shares));
        let next = strangers.admit(address("192.0.2.1"));
        let replaced = strangers.admit(address("192.0.2.1"));
        assert!(next.replaced.is_cancelled() && !replaced.replaced.is_cancelled());
        let second = Place::of_stranger(replaced);
        assert!(!second.give_to(agent, &shares), "the agent has what it may");
        drop(known);
        assert!(second.give_to(agent, &shares));
    }
}
