//! Why `onecli agent env` failed.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the files for a container were not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvError {
    /// A file could not be read or written.
    #[error("cannot {step} {}: {source}", path.display())]
    File {
        /// The operation that failed.
        step: &'static str,
        /// The path.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A path that the engine's syntax cannot express.
    #[error(
        "'{0}' contains a space or a colon, at which 'docker run' would split it\nhelp: choose another --out"
    )]
    Path(String),
    /// There is no directory for the files.
    #[error("XDG_RUNTIME_DIR is not set\nhelp: name a directory with --out")]
    NoDirectory,
    /// The proxy does not listen on the address.
    #[error("the proxy does not listen on {0}\nhelp: use one of its addresses: {1}")]
    Address(SocketAddr, String),
}
