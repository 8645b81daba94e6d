//! What runs now.

use jiff::Timestamp;
use onecli_model::{AgentName, CgroupName};
use serde::{Deserialize, Serialize};

/// An agent that has processes in its cgroup, or connections to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningAgent {
    /// Its name.
    pub agent: AgentName,
    /// Its managed cgroup, below the agents root.
    pub cgroup: CgroupName,
    /// Processes in that cgroup and below it.
    pub processes: usize,
    /// Users of those processes.
    pub uids: Vec<u32>,
    /// When the oldest of those processes was started; `null` where there is none.
    pub since: Option<Timestamp>,
    /// Connections to the daemon that are known to be the agent's: redirected ones and those of the explicit proxy.
    pub connections: usize,
}
