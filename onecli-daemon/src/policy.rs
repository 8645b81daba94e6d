//! Synchronizes the compiled policy with the store.

use std::sync::Arc;
use std::time::Duration;

use onecli_policy::{AgentInput, Snapshot, SnapshotInput, TokenInput};
use onecli_store::{Store, StoreError};
use onecli_vault::Vault;
use tokio::sync::{Mutex, watch};

use crate::agents::TransparentMode;

/// The pause after a failed reload.
const RETRY: Duration = Duration::from_secs(1);

/// The current snapshot, and the parts that build a new one.
#[derive(Debug)]
pub(super) struct Policy {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    managed: Arc<TransparentMode>,
    /// The DNS server, present if connections are redirected.
    dns: Option<Arc<onecli_dns::Server>>,
    current: watch::Sender<Arc<Snapshot>>,
    /// Allows one reload at a time, so that an older state never replaces a newer one.
    turn: Mutex<()>,
}

impl Policy {
    /// `current` receives every snapshot.
    pub(super) fn new(
        store: Arc<dyn Store>,
        vault: Arc<Vault>,
        managed: Arc<TransparentMode>,
        dns: Option<Arc<onecli_dns::Server>>,
        current: watch::Sender<Arc<Snapshot>>,
    ) -> Policy {
        Policy { store, vault, managed, dns, current, turn: Mutex::default() }
    }

    /// Compiles the store's current content. Once it returns, the next request is decided by the new policy.
    pub(super) async fn reload(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let state = self.store.load().await?;
        let agents = || state.agents.iter().map(|stored| &stored.agent);
        // The sockets first: they then answer all queries that the kernel redirects from now on.
        let resolvers = self.dns.as_ref().map(|dns| dns.serve(agents())).unwrap_or_default();
        let announced = agents().map(|agent| (&agent.cgroup, resolvers.get(&agent.id).copied()));
        if let Err(error) = self.managed.announce(announced) {
            tracing::error!(%error, "cannot register the agents with the kernel");
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
                .map(|s| TokenInput {
                    agent: s.agent,
                    token: s.token_hash,
                    expires: s.expires,
                    launched_by: s.launched_by,
                })
                .collect(),
            secrets: state.secrets,
            replaced: state.replaced_versions.into_iter().map(|replaced| replaced.secret).collect(),
            grants: state.grants.into_iter().map(|grant| (grant.agent, grant.secret)).collect(),
            former_grants: state.former_grants.into_iter().map(|grant| (grant.agent, grant.secret)).collect(),
            rules: state.rules,
        };
        let placeholder = |agent, secret, generation| self.vault.placeholder(agent, secret, generation);
        self.current.send_replace(Arc::new(Snapshot::compile(input, &placeholder)));
        Ok(())
    }

    /// Reloads after each change of the store, by any process.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut changes = self.store.subscribe();
        while changes.changed().await.is_ok() {
            while let Err(error) = self.reload().await {
                tracing::error!(%error, "cannot read the policy: the previous one stays in force");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
