//! Leases of dynamic secrets, stored until they are revoked.

use async_trait::async_trait;
use onecli_model::AgentId;

use super::error::StoreError;

/// A lease that a vault server issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The server's id of the lease; unique.
    pub id: String,
    /// The agent that it was issued for. The column is no foreign key: the row stays until the lease is revoked,
    /// even if the agent is removed.
    pub agent: AgentId,
    /// The path that was read.
    pub path: String,
}

/// Leases that survive a crash of the daemon.
#[async_trait]
pub trait LeaseStore: Send + Sync + std::fmt::Debug {
    /// Stores a lease; an existing row stays unchanged.
    async fn add_lease(&self, lease: &LeaseRow) -> Result<(), StoreError>;

    /// Removes a lease; no error if there is none.
    async fn remove_lease(&self, id: &str) -> Result<(), StoreError>;

    /// All stored leases, by id.
    async fn list_leases(&self) -> Result<Vec<LeaseRow>, StoreError>;
}
