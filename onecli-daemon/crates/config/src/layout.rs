//! Where the parts of a daemon are.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use onecli_model::Host;
use onecli_sys::kernel::KernelConfig;
use serde::{Deserialize, Serialize};

use super::Config;

/// The parts of a daemon that can be examined from outside: its configuration as it runs, flags included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonLayout {
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

    /// The same as the kernel part needs it.
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

    /// All addresses of the explicit proxy.
    pub fn explicit_all(&self) -> impl Iterator<Item = SocketAddr> {
        self.explicit.iter().chain(&self.explicit_tls).copied()
    }
}
