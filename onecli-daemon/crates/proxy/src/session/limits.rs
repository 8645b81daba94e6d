//! The limits on what clients may have open.

use std::sync::Arc;

use onecli_model::{AgentId, Clock};

use crate::limits::agent_quota::AgentQuota;
use crate::limits::capacity::Capacity;
use crate::limits::connection_slot::UnidentifiedLimiter;
use crate::limits::failures::FailureLimits;

/// The limits on connections, on requests, and on wrong tokens.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Connections of agents.
    pub(crate) connections: AgentQuota,
    /// Requests and tunnels of agents; each may use an upstream connection.
    pub(crate) exchanges: AgentQuota,
    /// Connections whose client is not identified yet.
    pub(crate) unidentified: UnidentifiedLimiter,
    /// Wrong tokens, by address.
    pub(crate) failures: FailureLimits,
}

impl Limits {
    pub(crate) fn new(capacity: &Capacity, clock: Arc<dyn Clock>) -> Limits {
        Limits {
            connections: AgentQuota::new(capacity.connections_per_agent, capacity.connections),
            exchanges: AgentQuota::new(capacity.exchanges_per_agent, capacity.exchanges),
            unidentified: UnidentifiedLimiter::new(
                capacity.unidentified_per_source,
                capacity.unidentified,
                capacity.displaced,
            ),
            failures: FailureLimits::new(clock),
        }
    }

    /// Number of connections that belong to this agent.
    pub(crate) fn connections_of(&self, agent: AgentId) -> usize {
        self.connections.used_by(agent)
    }
}
