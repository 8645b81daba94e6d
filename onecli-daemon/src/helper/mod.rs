//! The helper: a process with the privileges that the serving process lacks.
//!
//! It does three things, for the daemon alone:
//!
//! - it checks that the kernel programs are attached;
//! - it opens sockets in the network namespaces of managed processes;
//! - it creates, empties and removes the agents' cgroups.
//!
//! It cannot detach the programs: root does so with `onecli-daemon --detach`.
//!
//! The helper is a child of the daemon, forked while the daemon still had its privileges. Under a service manager it
//! is a separate service ([`service`]). The service attaches the programs earlier and passes their maps to a daemon
//! that was never privileged.

mod client;
mod protocol;
mod server;
pub(crate) mod service;

pub(crate) use client::{Helper, HelperError, Opened};
pub(crate) use protocol::{Kind, NamespaceScan, ScanResult};
