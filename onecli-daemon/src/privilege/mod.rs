//! The daemon's own privileges: given up early, and kept from coming back.

mod process;

use std::io;

pub use process::{forbid_inspection, keep_capabilities, raise_descriptor_limit};

/// Why the daemon cannot start as it should.
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
    /// Capabilities belong to threads: with several, the others would keep theirs.
    #[error("cannot give up capabilities: the process has {0} threads already")]
    Threads(usize),
    /// A capability set could not be changed.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(String),
}

#[cfg(test)]
mod tests;
