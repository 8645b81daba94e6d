//! Where an accepted connection came from, in the kernel's word.

use onecli_model::{CgroupName, Flow};
use tokio::net::TcpStream;

/// What the kernel recorded of a connection, with its cgroup by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The kernel's record.
    pub flow: Flow,
    /// The agent's cgroup: a direct child of the agents root. `None` if it is gone by now.
    pub cgroup: Option<CgroupName>,
    /// The user whose `onecli run` started the command in whose cgroup the process connected, by uid. `None` for a process that
    /// another program started in the agent's cgroup.
    pub launched_by: Option<u32>,
}

/// Looks up the origin of accepted connections.
pub trait Origins: Send + Sync + std::fmt::Debug {
    /// The kernel's record of the connection, or `None` if there is none: then it must be refused.
    fn origin(&self, accepted: &TcpStream) -> Option<Origin>;
}
