//! Requests and responses of `onecli run`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use onecli_model::recipe::RecipeName;
use onecli_model::{AgentId, AgentName};
use serde::{Deserialize, Serialize};

/// `run`: requests a session.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionRequest {
    /// The user to run as instead of the agent's own. A caller without administrator rights may
    /// name only themselves.
    #[serde(default)]
    pub user: Option<String>,
    /// The process on whose behalf the launcher asks. Only uid 0 may name another caller.
    #[serde(default)]
    pub caller: Option<Caller>,
    /// The recipe of the program to start.
    #[serde(default)]
    pub recipe: Option<RecipeName>,
}

/// The process that connected to the launcher, according to the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// Effective uid (`SO_PEERCRED`).
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
    /// Path in the cgroup2 hierarchy; none on a host without cgroup2.
    pub cgroup: Option<String>,
}

/// The settings that `run` needs to start a command as the agent.
#[derive(Clone, Serialize, Deserialize)]
pub struct Session {
    /// The agent.
    pub agent: AgentName,
    /// Its id, which is never reused.
    pub id: AgentId,
    /// The directory of the managed cgroup to enter; none if connections are not redirected.
    pub cgroup: Option<PathBuf>,
    /// The user to run as.
    pub user: String,
    /// A PEM file with the system's roots and OneCLI's CA.
    pub ca_bundle: PathBuf,
    /// Placeholders, keyed by the environment variable from which the agent's programs read them.
    pub placeholders: BTreeMap<String, String>,
    /// The explicit proxy's URL with a session token, if connections are not redirected.
    pub proxy: Option<String>,
    /// The time at which that session token expires.
    pub expires: Option<Timestamp>,
    /// The daemon's directories, which the command must not see.
    pub hidden: Vec<PathBuf>,
    /// Whether the command may change the configuration and hooks of git repositories.
    #[serde(default)]
    pub allow_git_config: bool,
    /// Whether the policy would refuse the agent a request that the recipe names.
    #[serde(default)]
    pub lacks_rules: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("agent", &self.agent)
            .field("cgroup", &self.cgroup)
            .finish_non_exhaustive()
    }
}
