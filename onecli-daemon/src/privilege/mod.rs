//! The daemon's own privileges: given up early, and kept from coming back.

mod data_dir;
mod process;

use std::io;
use std::path::PathBuf;

pub use data_dir::prepare_data_dir;
pub use process::{forbid_inspection, keep_capabilities};

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
    /// The data directory is not there and cannot be made, or cannot be looked at.
    #[error("data directory {}: {source}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The data directory's path leads to something else.
    #[error("data directory {}: not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// Somebody else owns the data directory, and could replace the key in it.
    #[error(
        "data directory {path} belongs to uid {owner}, but the daemon runs as uid {own}: \
         run 'chown -R {own} {path}' if its content is to be trusted",
        path = path.display()
    )]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        own: u32,
    },
    /// Others may enter the data directory, where the key and the database are.
    #[error("data directory {path} has mode {mode:04o}, open to others: run 'chmod 0700 {path}'", path = path.display())]
    Mode {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

#[cfg(test)]
mod tests;
