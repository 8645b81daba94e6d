//! Quotas: each agent has its own limit, and all agents together have another.

use onecli_limits::{Concurrency, Permit};
use onecli_model::AgentId;

/// Counts what each agent has open.
pub(crate) type AgentQuota = Concurrency<AgentId>;

/// One unit of an agent's quota; it is released when dropped.
pub(crate) type QuotaShare = Permit<AgentId>;
