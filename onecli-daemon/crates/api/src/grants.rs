//! Grants.

use onecli_model::{AgentName, SecretName};
use serde::{Deserialize, Serialize};

/// Permission for one agent to use one secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantView {
    /// The agent.
    pub agent: AgentName,
    /// The secret.
    pub secret: SecretName,
    /// The placeholder that the agent holds instead of the credential. Runners without administrator rights do not
    /// see it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub placeholder: String,
    /// The environment variable from which the agent's programs read the placeholder.
    pub env: Option<String>,
}
