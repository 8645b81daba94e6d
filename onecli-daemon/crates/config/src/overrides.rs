//! Command-line flags over the configuration file.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Values of command-line flags. Each one takes precedence over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--listen`. Replaces all of `listen.explicit`, unless empty.
    pub listen: Vec<SocketAddr>,
    /// `--admin-socket`.
    pub admin_socket: Option<PathBuf>,
    /// `--store`.
    pub store: Option<String>,
    /// `--agents-root`.
    pub agents_root: Option<String>,
    /// `--no-ebpf`.
    pub no_ebpf: bool,
    /// `--helper-socket`.
    pub helper_socket: Option<PathBuf>,
    /// `--executor-socket`.
    pub executor_socket: Option<PathBuf>,
    /// `--passphrase-file`.
    pub passphrase_file: Option<PathBuf>,
    /// `--insecure-key-from-env`.
    pub insecure_key_from_env: bool,
}
