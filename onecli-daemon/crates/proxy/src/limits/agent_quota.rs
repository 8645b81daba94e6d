//! Quotas: each agent has its own limit, and all agents together have another.

use std::collections::HashMap;
use std::sync::Arc;

use onecli_model::AgentId;
use parking_lot::{Mutex, MutexGuard};

/// Counts what each agent has open.
#[derive(Debug, Clone)]
pub(crate) struct AgentQuota {
    taken: Arc<Mutex<Taken>>,
    each: usize,
    all: usize,
}

#[derive(Debug, Default)]
struct Taken {
    by_agent: HashMap<AgentId, usize>,
    all: usize,
}

/// One unit of an agent's quota; it is released when dropped.
#[derive(Debug)]
pub(crate) struct QuotaShare {
    taken: Arc<Mutex<Taken>>,
    agent: AgentId,
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock()
}

impl AgentQuota {
    /// Allows `each` for one agent, and `all` for all of them together.
    pub(crate) fn new(each: usize, all: usize) -> AgentQuota {
        AgentQuota { taken: Arc::default(), each, all }
    }

    /// The number that the agent has.
    pub(crate) fn used_by(&self, agent: AgentId) -> usize {
        lock(&self.taken).by_agent.get(&agent).copied().unwrap_or_default()
    }

    /// Reserves one more; `None` if the agent or all agents together are at the limit.
    pub(crate) fn take(&self, agent: AgentId) -> Option<QuotaShare> {
        let mut taken = lock(&self.taken);
        let own = taken.by_agent.get(&agent).copied().unwrap_or_default();
        if own >= self.each || taken.all >= self.all {
            return None;
        }
        taken.by_agent.insert(agent, own + 1);
        taken.all += 1;
        Some(QuotaShare { taken: Arc::clone(&self.taken), agent })
    }
}

impl QuotaShare {
    /// The agent that it belongs to.
    pub(crate) fn agent(&self) -> AgentId {
        self.agent
    }
}

impl Drop for QuotaShare {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= 1;
        if let Some(own) = taken.by_agent.get_mut(&self.agent) {
            *own -= 1;
            if *own == 0 {
                taken.by_agent.remove(&self.agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(number: u128) -> AgentId {
        AgentId(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn limits_apply_to_each_agent_and_to_all_together() {
        let shares = AgentQuota::new(3, 5);
        let mut first: Vec<_> = (0..3).map(|_| shares.take(agent(1)).unwrap()).collect();
        assert!(shares.take(agent(1)).is_none());
        assert_eq!((shares.used_by(agent(1)), shares.used_by(agent(2))), (3, 0));
        let second: Vec<_> = (0..2).map(|_| shares.take(agent(2)).unwrap()).collect();
        assert!(shares.take(agent(3)).is_none(), "all agents together are at the limit");
        first.pop();
        let third = shares.take(agent(3)).unwrap();
        assert_eq!(third.agent(), agent(3));
        drop((first, second, third));
        let taken = lock(&shares.taken);
        assert!(taken.by_agent.is_empty() && taken.all == 0);
    }
}
