//! What the daemon and its helper say to each other: one JSON object a message.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use onecli_model::CgroupName;
use onecli_sys::privilege::Channel;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What the daemon asks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Are the kernel programs where they were attached? Answered with [`Answer::Health`].
    Check,
    /// Open what is missing in the network namespaces of an agent's processes. Answered with any number of
    /// [`Answer::Opened`], then one [`Answer::Surveyed`], or with [`Answer::Failed`].
    Survey(Survey),
    /// Make an agent's cgroup if it is missing; answered with [`Answer::Done`].
    MakeCgroup(CgroupName),
    /// Kill what runs in an agent's cgroup; answered with [`Answer::Done`].
    KillCgroup(CgroupName),
    /// Remove an agent's cgroup, with what is nested in it; answered with [`Answer::Done`].
    RemoveCgroup(CgroupName),
}

/// Which sockets an agent has, and where to look for namespaces in which it has none.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::app) struct Survey {
    /// The agent's cgroup.
    pub(in crate::app) cgroup: CgroupName,
    /// Its resolver's address, where it has one.
    pub(in crate::app) resolver: Option<Ipv4Addr>,
    /// Namespaces (inode numbers) that have listeners, this agent's and others'.
    pub(in crate::app) listening: Vec<u64>,
    /// Namespaces that have this agent's DNS socket.
    pub(in crate::app) resolving: Vec<u64>,
    /// How many namespaces may be opened now.
    pub(in crate::app) room: usize,
}

/// What the helper answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// What a helper says first that is a service: where the maps come from, which come with the message. A child's maps
    /// are the daemon's own.
    Maps,
    /// Of a change to a cgroup.
    Done(Result<(), String>),
    /// What is wrong, if anything is.
    Health(Result<(), String>),
    /// Sockets in one namespace, by its inode number and cookie; they come with the message, in this order.
    Opened { netns: u64, cookie: u64, sockets: Vec<Kind> },
    /// The end of a survey.
    Surveyed(Surveyed),
    /// The survey could not be done.
    Failed(String),
}

/// What became of a survey.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::app) struct Surveyed {
    /// The namespaces that the agent's processes are in now.
    pub(in crate::app) live: Vec<u64>,
    /// Those among them that could not be opened, and why.
    pub(in crate::app) failed: Vec<(u64, String)>,
    /// There are more than were looked at, or may be opened.
    pub(in crate::app) cut: bool,
}

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::app) enum Kind {
    /// Redirected connections: bound, not listening.
    Transparent,
    /// The agent's DNS.
    Resolver,
}

/// Sends a message.
pub(super) fn send<M: Serialize>(to: &Channel, message: &M, sockets: &[OwnedFd]) -> io::Result<()> {
    to.send(&serde_json::to_vec(message)?, sockets)
}

/// Waits for a message; `None` when the other side is gone.
pub(super) fn receive<M: DeserializeOwned>(from: &Channel) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let Some((text, sockets)) = from.receive()? else { return Ok(None) };
    Ok(Some((serde_json::from_slice(&text)?, sockets)))
}
