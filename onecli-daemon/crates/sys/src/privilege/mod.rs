//! The daemon's own privileges: dropped early and for good.

mod apart;
mod channel;
mod child;
pub mod filter;
mod inherited;
mod process;
mod sandbox;

use std::io;

pub use apart::{Apart, adopt_orphans, end_children, keep_apart};
pub use channel::Channel;
pub use child::{fork, fork_off};
pub use filter::{Filter, Verdict};
pub use inherited::inherited_sockets;
pub use process::{become_user, forbid_inspection, keep_capabilities, raise_descriptor_limit};
pub use sandbox::{filter_executor, filter_helper, filter_serving};

/// Errors that stop the daemon from dropping its privileges.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// A process attribute could not be set.
    #[error("cannot protect the process: {step}: {source}")]
    Process {
        /// The system call.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The process has several threads. Capabilities and filters belong to threads, so the others would retain theirs.
    #[error("cannot drop privileges: the process already has {0} threads")]
    Threads(usize),
    /// A capability set could not be changed.
    #[error("cannot drop capabilities: {0}")]
    Capabilities(String),
    /// The helper could not be started.
    #[error("cannot start the helper process: {step}: {source}")]
    Fork {
        /// The system call.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
