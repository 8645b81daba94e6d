//! Permission as a value.

use std::sync::Arc;

use onecli_model::{Agent, Secret, SecretId};

/// Proof that policy allowed one agent to use one secret for one request. Only policy makes one, and the vault
/// opens nothing without one.
#[derive(Debug, Clone)]
pub struct Grant {
    agent: Arc<Agent>,
    secret: Arc<Secret>,
}

impl Grant {
    pub(super) fn new(agent: Arc<Agent>, secret: Arc<Secret>) -> Grant {
        Grant { agent, secret }
    }

    /// A grant out of thin air, for tests of what takes one.
    #[cfg(any(test, feature = "testing"))]
    pub fn for_test(agent: Arc<Agent>, secret: Arc<Secret>) -> Grant {
        Grant { agent, secret }
    }

    /// Who was granted.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// What was granted.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}

/// What of a secret is sent to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sent {
    /// Its value, or a token that was issued for it, by its placement.
    Placed,
    /// The value with which tokens are requested, to the token endpoint.
    ToEndpoint,
}

/// Permission to look for one secret's value in an answer, not to send it anywhere.
#[derive(Debug, Clone)]
pub struct Watch {
    secret: Arc<Secret>,
    sent: Sent,
    is_replaced: bool,
}

impl Watch {
    pub(super) fn new(secret: Arc<Secret>, sent: Sent) -> Watch {
        Watch { secret, sent, is_replaced: false }
    }

    /// For a value that was replaced and is kept.
    pub(super) fn replaced(secret: Arc<Secret>, sent: Sent) -> Watch {
        Watch { secret, sent, is_replaced: true }
    }

    /// Was the value replaced by a newer one?
    pub fn is_replaced(&self) -> bool {
        self.is_replaced
    }

    /// What of the secret can come back.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// A watch out of thin air, for tests of what takes one.
    #[cfg(any(test, feature = "testing"))]
    pub fn for_test(secret: Secret) -> Watch {
        Watch::new(Arc::new(secret), Sent::Placed)
    }

    /// What to look for.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Which value that is: of this secret, in this version.
    pub fn value(&self) -> (SecretId, u32) {
        (self.secret.id, self.secret.version)
    }
}
