//! Leases of dynamic secrets, noted until they are given back.

use async_trait::async_trait;
use onecli_model::AgentId;

use super::StoreError;

/// A lease that a vault server issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The server's name for it; unique.
    pub id: String,
    /// For whom it was issued. No reference: it is noted until it is given back, also when the agent is gone.
    pub agent: AgentId,
    /// What was read.
    pub path: String,
}

/// Remembers leases over a crash.
#[async_trait]
pub trait LeaseStore: Send + Sync + std::fmt::Debug {
    /// Notes a lease; one that is noted already stays as it is.
    async fn add_lease(&self, lease: &LeaseRow) -> Result<(), StoreError>;

    /// Strikes a lease; no error where there is none.
    async fn remove_lease(&self, id: &str) -> Result<(), StoreError>;

    /// Every lease that was noted and not struck, by id.
    async fn list_leases(&self) -> Result<Vec<LeaseRow>, StoreError>;
}
