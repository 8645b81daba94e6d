//! The configuration of the kernel programs.

use std::path::PathBuf;

/// The configuration of the kernel programs at attach.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// Cgroup whose direct children are the agents' cgroups; relative to the root of cgroup2.
    pub agents_root: PathBuf,
    /// Cgroup of the daemon, its helper and their listeners, outside the agents root; relative to the root of cgroup2.
    pub daemon_cgroup: PathBuf,
    /// Directory for pins, on a bpf file system or below `/sys/fs/bpf`.
    pub bpffs_dir: PathBuf,
    /// Port of the transparent listeners on `127.0.0.1` and `::1`.
    pub transparent_port: u16,
    /// Port of the agents' resolver on each agent's own loopback address.
    pub dns_port: u16,
    /// Other ports that no managed process may bind, above all the explicit listeners'.
    pub reserved_ports: Vec<u16>,
    /// Whether the programs log their refusals, for debugging. If not, the verifier drops the code.
    pub log: bool,
}
