//! The origin of an accepted connection, according to the kernel.

use onecli_model::{CgroupName, Flow};
use tokio::net::TcpStream;

/// The kernel's record of a connection, with the name of its cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionOrigin {
    /// The kernel's record.
    pub flow: Flow,
    /// The agent's cgroup: a direct child of the agents root. `None` if it has been removed.
    pub cgroup: Option<CgroupName>,
    /// The uid of the user whose `onecli run` started the command in whose cgroup the process connected. `None` for a
    /// process that another program started in the agent's cgroup.
    pub launched_by: Option<u32>,
}

/// Looks up the origin of accepted connections.
pub trait OriginLookup: Send + Sync + std::fmt::Debug {
    /// Returns the kernel's record of the connection. The connection must be refused if there is none.
    fn origin(&self, accepted: &TcpStream) -> Option<ConnectionOrigin>;
}
