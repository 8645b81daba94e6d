//! The locations of a daemon's parts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use onecli_model::Host;
use onecli_sys::kernel::KernelConfig;
use serde::{Deserialize, Serialize};

use super::Config;

/// The locations of a running daemon that can be checked from outside: its effective configuration, flags included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonLayout {
    /// Whether the daemon redirects connections.
    pub ebpf: bool,
    /// The cgroup whose children are the agents' cgroups, below the cgroup2 mount.
    pub agents_root: PathBuf,
    /// The daemon's own cgroup, below the cgroup2 mount.
    pub daemon_cgroup: PathBuf,
    /// The directory in which programs, links and maps are pinned.
    pub bpffs_dir: PathBuf,
    /// The port of the transparent listeners and of the agents' resolver.
    pub transparent_port: u16,
    /// The addresses of the explicit proxy.
    pub explicit: Vec<SocketAddr>,
    /// The addresses of the explicit proxy over TLS.
    #[serde(default)]
    pub explicit_tls: Vec<SocketAddr>,
    /// Whether the daemon uses an upstream proxy even for its own host's loopback.
    #[serde(default)]
    pub proxied: bool,
}

impl DaemonLayout {
    /// The layout of a daemon with this configuration.
    pub fn new(config: &Config) -> DaemonLayout {
        DaemonLayout {
            ebpf: config.kernel.ebpf,
            agents_root: (&config.kernel.agents_root).into(),
            daemon_cgroup: (&config.kernel.daemon_cgroup).into(),
            bpffs_dir: config.kernel.bpffs_dir.clone(),
            transparent_port: config.listen.transparent_port,
            explicit: config.listen.explicit.clone(),
            explicit_tls: config.listen.explicit_tls.clone(),
            proxied: config.upstream.proxy.is_some()
                && !config
                    .upstream
                    .no_proxy
                    .iter()
                    .any(|direct| direct.covers(&Host::V4(Ipv4Addr::LOCALHOST))),
        }
    }

    /// Returns the locations as the configuration of the kernel part.
    pub fn kernel_config(&self) -> KernelConfig {
        KernelConfig {
            agents_root: self.agents_root.clone(),
            daemon_cgroup: self.daemon_cgroup.clone(),
            bpffs_dir: self.bpffs_dir.clone(),
            transparent_port: self.transparent_port,
            dns_port: self.transparent_port,
            reserved_ports: self.explicit_all().map(|address| address.port()).collect(),
            log: false,
        }
    }

    /// Returns all addresses of the explicit proxy.
    pub fn explicit_all(&self) -> impl Iterator<Item = SocketAddr> {
        self.explicit.iter().chain(&self.explicit_tls).copied()
    }
}
