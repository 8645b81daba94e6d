//! Defines which requests may share upstream connections.

use onecli_model::{AgentId, SecretId};
use onecli_policy::{Grant, Snapshot};

/// The requests of one agent that carry the same secrets, as a credential or in a session.
///
/// Some upstreams authenticate a connection instead of each request on it (Negotiate: RFC 4559 section 6). A request
/// without a credential must therefore never get a connection that has carried one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PoolScope {
    agent: AgentId,
    /// The secrets with their versions, in order. Empty for a request that carries none.
    secrets: Box<[(SecretId, u32)]>,
}

impl PoolScope {
    /// Returns the scope of a request of `agent` that uses `grants`.
    pub(crate) fn new(agent: AgentId, grants: &[Grant]) -> PoolScope {
        let mut secrets: Box<[_]> =
            grants.iter().map(|grant| (grant.secret().id, grant.secret().version)).collect();
        secrets.sort_unstable();
        PoolScope { agent, secrets }
    }

    /// The agent that sends the requests.
    pub(crate) fn agent(&self) -> AgentId {
        self.agent
    }

    /// Returns whether the agent may still use each of the secrets in its version.
    pub(super) fn is_granted(&self, policy: &Snapshot) -> bool {
        self.secrets.is_empty() || policy.grants(self.agent, &self.secrets)
    }
}
