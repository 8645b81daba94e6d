//! Bounds on what a client can make grow.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::model::{AgentId, Clock};

/// Open connections of one agent.
const PER_AGENT: usize = 1024;
/// Addresses whose failures are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Wrong tokens that one address may present in each window.
const FAILURES: u32 = 20;
/// That window.
const WINDOW: Duration = Duration::from_mins(1);

/// Counts the open connections of each agent.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionLimits {
    open: Arc<Mutex<HashMap<AgentId, usize>>>,
}

/// One open connection; gives its place back when dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    open: Arc<Mutex<HashMap<AgentId, usize>>>,
    agent: AgentId,
}

impl ConnectionLimits {
    /// A place for one more connection, or `None` where the agent has 1024.
    pub(super) fn acquire(&self, agent: AgentId) -> Option<ConnectionPermit> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(agent).or_insert(0);
        if *count >= PER_AGENT {
            return None;
        }
        *count += 1;
        Some(ConnectionPermit { open: Arc::clone(&self.open), agent })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.agent);
            }
        }
    }
}

/// Slows down whoever guesses tokens.
#[derive(Debug)]
pub(super) struct FailureLimits {
    clock: Arc<dyn Clock>,
    by_address: Mutex<LruCache<IpAddr, (Instant, u32)>>,
}

impl FailureLimits {
    pub(super) fn new(clock: Arc<dyn Clock>) -> FailureLimits {
        FailureLimits { clock, by_address: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    /// Has this address failed too often of late?
    pub(super) fn is_blocked(&self, address: IpAddr) -> bool {
        let now = self.clock.instant();
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        by_address
            .get(&address)
            .is_some_and(|(since, count)| now.duration_since(*since) < WINDOW && *count >= FAILURES)
    }

    /// Notes a wrong token.
    pub(super) fn failed(&self, address: IpAddr) {
        let now = self.clock.instant();
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = by_address.get_or_insert_mut(address, || (now, 0));
        if now.duration_since(entry.0) >= WINDOW {
            *entry = (now, 0);
        }
        entry.1 += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SystemClock;

    #[test]
    fn an_agent_has_so_many_connections() {
        let limits = ConnectionLimits::default();
        let agent = AgentId(uuid::Uuid::nil());
        let mut held: Vec<_> = (0..PER_AGENT).map(|_| limits.acquire(agent).unwrap()).collect();
        assert!(limits.acquire(agent).is_none());
        assert!(limits.acquire(AgentId(uuid::Uuid::max())).is_some());
        held.pop();
        assert!(limits.acquire(agent).is_some());
        held.clear();
        assert!(limits.open.lock().unwrap().is_empty());
    }

    #[test]
    fn guessing_is_slowed() {
        let limits = FailureLimits::new(Arc::new(SystemClock));
        let address = "127.0.0.1".parse().unwrap();
        for _ in 0..FAILURES {
            assert!(!limits.is_blocked(address));
            limits.failed(address);
        }
        assert!(limits.is_blocked(address));
        assert!(!limits.is_blocked("127.0.0.2".parse().unwrap()));
    }
}
