//! Agents that run now.

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
    /// The number of processes in that cgroup and below it.
    pub processes: usize,
    /// The uids of those processes.
    pub uids: Vec<u32>,
    /// The start time of the oldest of those processes; `null` if there are none.
    pub since: Option<Timestamp>,
    /// The number of daemon connections that belong to the agent: redirected connections and explicit proxy
    /// connections.
    pub connections: usize,
}
