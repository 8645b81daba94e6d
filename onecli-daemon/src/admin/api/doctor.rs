//! What the daemon tells `onecli doctor`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::Check;

/// `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doctor {
    /// The daemon's version.
    pub version: String,
    /// Where its parts are, for whoever looks at them from outside.
    pub place: Place,
    /// What it can tell of itself.
    pub checks: Vec<Check>,
}

/// Where a daemon keeps what can be looked at from outside: its configuration as it runs, flags included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Whether it redirects connections.
    pub ebpf: bool,
    /// The cgroup whose children are the agents' cgroups, below the cgroup2 mount.
    pub agents_root: PathBuf,
    /// Its own cgroup, below the cgroup2 mount.
    pub daemon_cgroup: PathBuf,
    /// Where programs, links and maps are pinned.
    pub bpffs_dir: PathBuf,
    /// Port of the transparent listeners and of the agents' resolver.
    pub transparent_port: u16,
    /// Addresses of the explicit proxy.
    pub explicit: Vec<SocketAddr>,
    /// Addresses where it is spoken to over TLS.
    #[serde(default)]
    pub explicit_tls: Vec<SocketAddr>,
    /// Does it reach even its own host's loopback through an upstream proxy?
    #[serde(default)]
    pub proxied: bool,
}

impl Place {
    /// All addresses of the explicit proxy.
    pub fn explicit_all(&self) -> impl Iterator<Item = SocketAddr> {
        self.explicit.iter().chain(&self.explicit_tls).copied()
    }
}
