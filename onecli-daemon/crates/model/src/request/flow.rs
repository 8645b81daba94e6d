//! The kernel's record of one connection.

use std::net::SocketAddr;

/// The kernel's record of an accepted connection: the process that made it, and its destination.
///
/// The kernel writes it when the process connects, so it describes the process *at that time*. None of it is read
/// from `/proc`, where a process id may meanwhile belong to another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The address and port the process connected to. A mapped IPv4 address is given as IPv4.
    pub original_destination: SocketAddr,
    /// The cgroup id of the agent: the direct child of the agents root in which the socket was created. Never 0.
    pub agent_cgroup_id: u64,
    /// The cgroup id of the process when it connected: the agent's, or one nested in it.
    pub current_cgroup_id: u64,
    /// The cookie of the network namespace the connection is in (`SO_NETNS_COOKIE`).
    pub netns_cookie: u64,
    /// The user id of the process, in the initial user namespace.
    pub uid: u32,
    /// The group id of the process, in the initial user namespace.
    pub gid: u32,
    /// The process id (the thread group's), in the initial pid namespace. For the audit log; never a proof.
    pub pid: u32,
    /// The name of the thread that connected, at most 15 bytes, control characters and invalid UTF-8 escaped. The
    /// process chooses it: for the audit log; never a proof.
    pub comm: String,
    /// The cookie of the process's socket (`SO_COOKIE`), unique since boot.
    pub socket_cookie: u64,
}
