//! Dynamic secrets: one lease for each agent and path. It is renewed while it is used, and revoked when the agent
//! ends.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use onecli_model::{AgentId, VaultReference};
use serde::Serialize;

use super::error::BackendError;
use super::wire::Call;
use super::words::{self, Renewed};
use super::{HashiCorp, Key};

/// A lease that is not revoked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseNote {
    /// The server's id of the lease.
    pub id: String,
    /// The agent that it was issued for.
    pub agent: AgentId,
    /// The path that was read.
    pub path: String,
}

/// Stores leases across a crash.
#[async_trait]
pub trait LeaseStore: Send + Sync + std::fmt::Debug {
    /// Stores a lease before its credential is used.
    async fn add(&self, lease: &LeaseNote) -> Result<(), String>;
    /// Removes a lease that was revoked or has expired.
    async fn remove(&self, id: &str) -> Result<(), String>;
    /// All stored leases.
    async fn all(&self) -> Result<Vec<LeaseNote>, String>;
}

#[derive(Serialize)]
struct Named<'l> {
    lease_id: &'l str,
}

impl HashiCorp {
    /// Handles a value that the upstream refused: a static value is fetched again, a lease is revoked.
    pub async fn evict(&self, agent: AgentId, reference: &VaultReference) {
        let key = |agent| Key { agent, path: reference.path().to_owned(), version: reference.version() };
        self.material.expire(&key(None)).await;
        let leased = key(Some(agent));
        for (_, read) in self.material.evict_where(|other| *other == leased).await {
            if let Some(lease) = &read.lease {
                self.give_back(&lease.id).await;
            }
        }
    }

    /// The agents that have leases.
    pub fn holders(&self) -> HashSet<AgentId> {
        self.leases().into_iter().filter_map(|(key, _)| key.agent).collect()
    }

    /// Revokes all leases of an agent that ended, or was disabled or removed.
    pub async fn end_agent(&self, agent: AgentId) {
        for (_, material) in self.material.evict_where(|key| key.agent == Some(agent)).await {
            if let Some(lease) = &material.lease {
                self.give_back(&lease.id).await;
            }
        }
    }

    /// Revokes leases that an earlier daemon left.
    ///
    /// # Errors
    /// The reason of the lease store.
    pub async fn give_back_orphans(&self) -> Result<usize, String> {
        let mut given = 0;
        for note in self.lease_store.all().await? {
            if self.lives(&note.id) {
                continue;
            }
            given += usize::from(self.give_back(&note.id).await);
        }
        Ok(given)
    }

    /// Revokes a lease; reports whether it is gone now. Otherwise it stays in the lease store and is retried with the
    /// orphans.
    pub(super) async fn give_back(&self, id: &str) -> bool {
        match self.revoke(id).await {
            Ok(()) => {
                if let Err(reason) = self.lease_store.remove(id).await {
                    tracing::warn!(%reason, "a revoked lease cannot be removed from the store");
                }
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a lease cannot be revoked now; the daemon will retry");
                false
            }
        }
    }

    async fn revoke(&self, id: &str) -> Result<(), BackendError> {
        let path = "sys/leases/revoke";
        let answer = self.authorized(Call::post(path, &Named { lease_id: id })?).await?;
        // 400 with "lease not found": it has expired.
        if answer.status.is_success()
            || answer.status.as_u16() == 404
            || words::reason(&answer).contains("lease not found")
        {
            return Ok(());
        }
        Err(words::unexpected(path, &answer))
    }

    /// Renews a lease; returns its new lifetime, or `None` if the server no longer renews it.
    pub(super) async fn renew_lease(&self, id: &str) -> Result<Option<Duration>, BackendError> {
        let path = "sys/leases/renew";
        let answer = self.authorized(Call::post(path, &Named { lease_id: id })?).await?;
        if !answer.status.is_success() {
            return Ok(None);
        }
        let Renewed { lease_duration } = words::read(path, &answer)?;
        Ok((lease_duration > 0).then(|| Duration::from_secs(lease_duration)))
    }
}
