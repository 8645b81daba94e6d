//! Keeps the compiled policy in step with the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use super::managed::Managed;
use crate::policy::{AgentInput, Snapshot, SnapshotInput, TokenInput};
use crate::store::{Store, StoreError};
use crate::vault::Vault;

/// After a failed reload, so long until the next.
const RETRY: Duration = Duration::from_secs(1);

/// The current snapshot, and how a new one is made.
#[derive(Debug)]
pub(super) struct Policy {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    managed: Arc<Managed>,
    current: watch::Sender<Arc<Snapshot>>,
    /// One reload at a time, so that an older state never replaces a newer one.
    turn: Mutex<()>,
}

impl Policy {
    /// Begins with an empty policy, which refuses everything.
    pub(super) fn new(store: Arc<dyn Store>, vault: Arc<Vault>, managed: Arc<Managed>) -> Policy {
        let (current, _) = watch::channel(Arc::new(Snapshot::default()));
        Policy { store, vault, managed, current, turn: Mutex::default() }
    }

    /// The snapshot as it changes.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }

    /// Compiles what the store has now. When it returns, the next request is decided by it.
    pub(super) async fn reload(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let state = self.store.load().await?;
        if let Err(error) = self.managed.announce(state.agents.iter().map(|stored| &stored.agent.cgroup)) {
            tracing::error!(%error, "the kernel cannot be told of the agents");
        }
        let input = SnapshotInput {
            agents: state
                .agents
                .into_iter()
                .map(|stored| AgentInput { agent: stored.agent, token: stored.token_hash })
                .collect(),
            sessions: state
                .sessions
                .into_iter()
                .map(|s| TokenInput { agent: s.agent, token: s.token_hash, expires: s.expires })
                .collect(),
            secrets: state.secrets,
            grants: state.grants.into_iter().map(|grant| (grant.agent, grant.secret)).collect(),
        };
        let placeholder = |agent, secret, generation| self.vault.placeholder(agent, secret, generation);
        self.current.send_replace(Arc::new(Snapshot::compile(input, &placeholder)));
        Ok(())
    }

    /// Reloads after each change of the store, whoever made it.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut changes = self.store.subscribe();
        while changes.changed().await.is_ok() {
            while let Err(error) = self.reload().await {
                tracing::error!(%error, "the policy cannot be read: the last one stays in force");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
