//! Lookups by name in the stored state.

use onecli_model::{Agent, AgentName, Secret, SecretName};
use onecli_store::{ReplacedVersion, StoreContents};

use crate::error::AdminError;

/// Lookups by name.
pub(crate) trait Lookup {
    /// # Errors
    /// [`AdminError::NotFound`].
    fn agent(&self, name: &AgentName) -> Result<&Agent, AdminError>;

    /// # Errors
    /// [`AdminError::NotFound`].
    fn secret(&self, name: &SecretName) -> Result<&Secret, AdminError>;

    /// Returns the retained value that the secret's current value replaced, if there is one.
    fn retained(&self, secret: &Secret) -> Option<&ReplacedVersion>;

    /// Returns the secrets that an agent may use, sorted by name.
    fn granted<'s>(&'s self, agent: &Agent) -> Vec<&'s Secret>;
}

impl Lookup for StoreContents {
    fn agent(&self, name: &AgentName) -> Result<&Agent, AdminError> {
        self.agents
            .iter()
            .map(|stored| &stored.agent)
            .find(|agent| agent.name == *name)
            .ok_or_else(|| AdminError::not_found("agent", name))
    }

    fn secret(&self, name: &SecretName) -> Result<&Secret, AdminError> {
        self.secrets
            .iter()
            .find(|secret| secret.name == *name)
            .ok_or_else(|| AdminError::not_found("secret", name))
    }

    fn retained(&self, secret: &Secret) -> Option<&ReplacedVersion> {
        let is_before = |kept: &&ReplacedVersion| {
            kept.secret.id == secret.id && kept.secret.version.checked_add(1) == Some(secret.version)
        };
        self.replaced_versions.iter().find(is_before)
    }

    fn granted<'s>(&'s self, agent: &Agent) -> Vec<&'s Secret> {
        let is_granted = |secret: &&Secret| {
            self.grants.iter().any(|grant| grant.agent == agent.id && grant.secret == secret.id)
        };
        self.secrets.iter().filter(is_granted).collect()
    }
}
