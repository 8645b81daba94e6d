//! Where an accepted connection came from, in the kernel's word.

use tokio::net::TcpStream;

use crate::model::{CgroupName, Flow};

/// What the kernel recorded of a connection, with its cgroup by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The kernel's record.
    pub flow: Flow,
    /// The agent's cgroup: a direct child of the agents root. `None` if it is gone by now.
    pub cgroup: Option<CgroupName>,
}

/// Looks up the origin of accepted connections.
pub trait Origins: Send + Sync + std::fmt::Debug {
    /// The kernel's record of the connection, or `None` if there is none: then it must be refused.
    fn origin(&self, accepted: &TcpStream) -> Option<Origin>;
}
