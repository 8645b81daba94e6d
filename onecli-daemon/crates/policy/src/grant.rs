//! Permission as a value.

use std::sync::Arc;

use onecli_model::{Agent, Secret, SecretId};

/// Proof that policy allowed one agent to use one secret for one request. Only policy creates one, and the vault
/// opens a value only with one.
#[derive(Debug, Clone)]
pub struct Grant {
    agent: Arc<Agent>,
    secret: Arc<Secret>,
}

impl Grant {
    pub(super) fn new(agent: Arc<Agent>, secret: Arc<Secret>) -> Grant {
        Grant { agent, secret }
    }

    /// Creates a grant without a policy, for tests.
    #[cfg(any(test, feature = "testing"))]
    pub fn for_test(agent: Arc<Agent>, secret: Arc<Secret>) -> Grant {
        Grant { agent, secret }
    }

    /// The agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The secret.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}

/// The form in which a secret is sent to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SentAs {
    /// Its value, or a token issued for it, by its placement.
    Placed,
    /// The value with which tokens are requested, sent to the token endpoint.
    ToEndpoint,
}

/// Permission to search responses for one secret's value, not to send it anywhere.
#[derive(Debug, Clone)]
pub struct ScrubGrant {
    secret: Arc<Secret>,
    sent: SentAs,
    is_replaced: bool,
}

impl ScrubGrant {
    pub(super) fn new(secret: Arc<Secret>, sent: SentAs) -> ScrubGrant {
        ScrubGrant { secret, sent, is_replaced: false }
    }

    /// A permission for a replaced value that is retained.
    pub(super) fn replaced(secret: Arc<Secret>, sent: SentAs) -> ScrubGrant {
        ScrubGrant { secret, sent, is_replaced: true }
    }

    /// Whether a newer value replaced this one.
    pub fn is_replaced(&self) -> bool {
        self.is_replaced
    }

    /// The form in which the secret was sent and can come back.
    pub fn sent(&self) -> SentAs {
        self.sent
    }

    /// Creates a permission without a policy, for tests.
    #[cfg(any(test, feature = "testing"))]
    pub fn for_test(secret: Secret) -> ScrubGrant {
        ScrubGrant::new(Arc::new(secret), SentAs::Placed)
    }

    /// The secret to search for.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The id of the value: this secret, in this version.
    pub fn value(&self) -> (SecretId, u32) {
        (self.secret.id, self.secret.version)
    }
}
