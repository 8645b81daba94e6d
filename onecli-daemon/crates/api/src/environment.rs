//! `agent env`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use onecli_model::AgentName;
use serde::{Deserialize, Serialize};

/// Asks for a session token of an agent that runs elsewhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentEnvRequest {
    /// How long the token is good for.
    pub hours: u32,
}

impl AgentEnvRequest {
    /// A year: what runs longer is started again.
    pub const MAX_HOURS: u32 = 24 * 365;
}

/// What a container needs to be an agent.
#[derive(Clone, Serialize, Deserialize)]
pub struct AgentEnv {
    /// The agent.
    pub agent: AgentName,
    /// Where the explicit proxy listens.
    pub addresses: Vec<SocketAddr>,
    /// Where it is spoken to over TLS.
    #[serde(default)]
    pub tls_addresses: Vec<SocketAddr>,
    /// A session token.
    pub token: String,
    /// When it ends.
    pub expires: Timestamp,
    /// A PEM file on the daemon's host: the system's roots and our CA.
    pub ca_bundle: PathBuf,
    /// Placeholders by the variable that the agent's programs read them from.
    pub placeholders: BTreeMap<String, String>,
    /// The agent's cgroup below the cgroup2 mount, where the agent requires that factor.
    pub cgroup: Option<String>,
}

impl fmt::Debug for AgentEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentEnv").field("agent", &self.agent).finish_non_exhaustive()
    }
}
