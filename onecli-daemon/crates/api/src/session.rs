//! What `onecli run` asks for.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use onecli_model::recipe::RecipeName;
use onecli_model::{AgentId, AgentName};
use serde::{Deserialize, Serialize};

/// `run`: asks for a session.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionRequest {
    /// Run as this user in place of the agent's own. Who is no administrator may name themselves alone.
    #[serde(default)]
    pub user: Option<String>,
    /// On whose behalf the launcher asks; only uid 0 may speak for others.
    #[serde(default)]
    pub caller: Option<Caller>,
    /// The recipe of the program that is started.
    #[serde(default)]
    pub recipe: Option<RecipeName>,
}

/// Who connected to the launcher, in the kernel's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// Effective uid (`SO_PEERCRED`).
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
    /// Path in the cgroup2 hierarchy; none on a host without.
    pub cgroup: Option<String>,
}

/// What `run` needs to start a command as the agent.
#[derive(Clone, Serialize, Deserialize)]
pub struct Session {
    /// The agent.
    pub agent: AgentName,
    /// Its id, which no other agent ever has.
    pub id: AgentId,
    /// The directory of the managed cgroup to enter; none where connections are not redirected.
    pub cgroup: Option<PathBuf>,
    /// The user to run as.
    pub user: String,
    /// A PEM file: the system's roots and our CA.
    pub ca_bundle: PathBuf,
    /// Placeholders by the variable that the agent's programs read them from.
    pub placeholders: BTreeMap<String, String>,
    /// The explicit proxy's URL with a session token in it, where connections are not redirected.
    pub proxy: Option<String>,
    /// When that session token ends.
    pub expires: Option<Timestamp>,
    /// Directories of the daemon's own, which the command shall not see.
    pub hidden: Vec<PathBuf>,
    /// Whether the command may change the configuration and the hooks of git repositories.
    #[serde(default)]
    pub allow_git_config: bool,
    /// Whether the agent would be refused a request that the recipe names.
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
