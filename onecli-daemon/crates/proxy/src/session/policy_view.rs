//! The current policy, as connections see it.

use std::sync::Arc;

use jiff::Timestamp;
use onecli_model::{AgentId, CgroupName, Clock, Refusal};
use onecli_policy::{ClientEvidence, Identity, Snapshot};
use tokio::sync::watch;

use super::policy_watch::until_refused;

/// The current policy and the time at which it is applied.
#[derive(Debug, Clone)]
pub(crate) struct PolicyView {
    policy: watch::Receiver<Arc<Snapshot>>,
    clock: Arc<dyn Clock>,
}

impl PolicyView {
    pub(crate) fn new(policy: watch::Receiver<Arc<Snapshot>>, clock: Arc<dyn Clock>) -> PolicyView {
        PolicyView { policy, clock }
    }

    /// The current policy.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.policy.borrow())
    }

    /// A receiver of each new policy.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.policy.clone()
    }

    /// The agent of a cgroup, even a disabled one.
    pub(crate) fn agent_in(&self, cgroup: Option<&CgroupName>) -> Option<AgentId> {
        self.policy.borrow().agent_of_cgroup(cgroup?).map(|agent| agent.id)
    }

    /// Identifies a client by the current policy.
    ///
    /// # Errors
    /// As [`Snapshot::identify`].
    pub(crate) fn identify(&self, evidence: &ClientEvidence) -> Result<Identity, Refusal> {
        self.policy.borrow().identify(evidence, self.clock.now())
    }

    /// Resolves when a new policy, or the end of the session in `evidence`, makes `refused` true. If that is already
    /// so, it resolves immediately.
    pub(super) async fn until_refused(
        &self,
        evidence: &ClientEvidence,
        refused: impl Fn(&Snapshot, Timestamp) -> bool,
    ) {
        until_refused(self.policy.clone(), self.clock.as_ref(), evidence, refused).await;
    }
}
