//! `agent env`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use onecli_model::AgentName;
use serde::{Deserialize, Serialize};

/// Requests a session token for an agent that runs in another environment, such as a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentEnvRequest {
    /// The lifetime of the token in hours.
    pub hours: u32,
}

impl AgentEnvRequest {
    /// One year. A workload that runs longer must be restarted.
    pub const MAX_HOURS: u32 = 24 * 365;
}

/// The settings that a container needs to run as an agent.
#[derive(Clone, Serialize, Deserialize)]
pub struct AgentEnv {
    /// The agent.
    pub agent: AgentName,
    /// The addresses of the explicit proxy.
    pub addresses: Vec<SocketAddr>,
    /// The addresses of the explicit proxy over TLS.
    #[serde(default)]
    pub tls_addresses: Vec<SocketAddr>,
    /// A session token.
    pub token: String,
    /// The time at which the token expires.
    pub expires: Timestamp,
    /// A PEM file on the daemon's host with the system's roots and OneCLI's CA.
    pub ca_bundle: PathBuf,
    /// Placeholders, keyed by the environment variable from which the agent's programs read them.
    pub placeholders: BTreeMap<String, String>,
    /// The agent's cgroup below the cgroup2 mount, if the agent requires that factor.
    pub cgroup: Option<String>,
}

impl fmt::Debug for AgentEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentEnv").field("agent", &self.agent).finish_non_exhaustive()
    }
}
