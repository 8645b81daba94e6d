//! Who may run which agent: the caller, the answer of the daemon, and the rules of the launcher.

use jiff::Timestamp;
use onecli_model::AgentId;

use super::env::AgentEnvironment;
use crate::host::agents_dir::AgentsDir;
use crate::protocol::wire::LaunchIdentity;

/// The default group of users for agents.
pub const USERS: &str = "onecli-agents";

/// The process that requests a command, according to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Effective uid.
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
    /// Path in the cgroup2 hierarchy.
    pub cgroup: Option<String>,
}

/// The daemon's answer for a caller who may run the agent.
#[derive(Debug)]
pub struct Permission {
    /// The agent.
    pub agent: AgentId,
    /// The user that runs the command.
    pub user: String,
    /// Directory of the agent's cgroup; `None` if connections are not redirected.
    pub cgroup: Option<std::path::PathBuf>,
    /// Variables for the environment.
    pub environment: AgentEnvironment,
    /// Directories that the command must not see.
    pub hidden: Vec<std::path::PathBuf>,
    /// Whether the command may change the configuration and the hooks of git repositories.
    pub allow_git_config: bool,
    /// Messages for the caller.
    pub notes: Vec<String>,
}

/// Asks the daemon for a caller's permission. Errors are sentences.
pub type PermissionQuery<'a> = &'a dyn Fn(&LaunchIdentity, &Caller) -> Result<Permission, String>;

/// Returns a summary of the agent's refused requests since a time; the agent is given by name. `None` if there were
/// none.
pub type Refused<'a> = &'a dyn Fn(&str, Timestamp) -> Option<String>;

/// The launcher's rules for users, and the place of their files.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The group whose members are users for agents. A caller other than root may run commands only as these users.
    pub users: String,
    /// The directory of agents' homes and state.
    pub agents: AgentsDir,
}

/// Called once the daemon has authorised the caller, before resources are spent on its command. The launcher's limits
/// for unauthorised callers no longer apply then.
pub type Authorised<'a> = &'a dyn Fn();
