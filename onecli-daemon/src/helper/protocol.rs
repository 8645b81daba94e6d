//! The protocol between the daemon and its helper: one JSON object for each message.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use onecli_model::CgroupName;
use onecli_sys::privilege::Channel;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A request of the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Check that the kernel programs are still attached. Answered with [`Answer::Health`].
    Check,
    /// Open the missing sockets in the network namespaces of an agent's processes. Answered with any number of
    /// [`Answer::Opened`], then one [`Answer::Scanned`], or with [`Answer::Failed`].
    #[serde(rename = "Survey")]
    Scan(NamespaceScan),
    /// Create an agent's cgroup if it is missing. Answered with [`Answer::Done`].
    MakeCgroup(CgroupName),
    /// Kill all processes in an agent's cgroup. Answered with [`Answer::Done`].
    KillCgroup(CgroupName),
    /// Remove an agent's cgroup with its nested cgroups. Answered with [`Answer::Done`].
    RemoveCgroup(CgroupName),
}

/// The sockets that an agent has, and the places to search for namespaces without any.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NamespaceScan {
    /// The agent's cgroup.
    pub(crate) cgroup: CgroupName,
    /// The address of its resolver, if it has one.
    pub(crate) resolver: Option<Ipv4Addr>,
    /// Namespaces (inode numbers) that have listeners, of this agent and of others.
    pub(crate) listening: Vec<u64>,
    /// Namespaces that have this agent's DNS socket.
    pub(crate) resolving: Vec<u64>,
    /// The number of namespaces that may be opened now.
    pub(crate) room: usize,
}

/// An answer of the helper.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The first message of a helper that runs as a service. The message carries the maps. A forked helper does not
    /// send it, because the daemon created the maps itself.
    Maps,
    /// The result of a change to a cgroup.
    Done(Result<(), String>),
    /// The result of a check; the error names the problem.
    Health(Result<(), String>),
    /// Sockets in one namespace, identified by its inode number and cookie. The message carries them in this order.
    Opened { netns: u64, cookie: u64, sockets: Vec<Kind> },
    /// The end of a scan.
    #[serde(rename = "Surveyed")]
    Scanned(ScanResult),
    /// The scan failed.
    Failed(String),
}

/// The result of a scan.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ScanResult {
    /// The namespaces that currently contain processes of the agent.
    pub(crate) live: Vec<u64>,
    /// The namespaces among them that could not be opened, and the reasons.
    pub(crate) failed: Vec<(u64, String)>,
    /// More namespaces exist than were searched or may be opened.
    pub(crate) cut: bool,
}

/// The purpose of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Receives redirected connections: bound, not listening.
    Transparent,
    /// Receives the agent's DNS queries.
    Resolver,
}

/// Sends a message.
pub(super) fn send<M: Serialize>(to: &Channel, message: &M, sockets: &[OwnedFd]) -> io::Result<()> {
    to.send(&serde_json::to_vec(message)?, sockets)
}

/// Waits for a message. Returns `None` when the other side is gone.
pub(super) fn receive<M: DeserializeOwned>(from: &Channel) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let Some((text, sockets)) = from.receive()? else { return Ok(None) };
    Ok(Some((serde_json::from_slice(&text)?, sockets)))
}
