//! What `onecli doctor` looks at by itself, with the daemon or without it.
//!
//! The command runs this in its own process, because what is worth looking at is not open to the serving process: pins
//! lie below a directory of nobody's, and it has no capability. Root has them all. A running daemon tells where its parts
//! are, and of those that only it can see.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::admin::api::Place;
use crate::cli::Running;
use crate::config::{Config, Overrides};
use crate::kernel::{self, KernelConfig};
use crate::model::{Check, Host};
use crate::tls::{UpstreamTls, UpstreamTlsError};

const CONFIG_FIX: &str = "mend the file; `onecli-daemon --check-config` reads it too";

/// Reads the files that a valid configuration names, as the daemon does when it starts.
///
/// # Errors
/// A file cannot be read, or is not what it should be.
pub fn check_files(config: &Config) -> Result<(), UpstreamTlsError> {
    UpstreamTls::new(&config.upstream.extra_ca_files).map(|_| ())
}

/// Looks at the host: at the parts of a daemon that says where they are, or of the one that `config` would start.
pub fn examine(running: Running, config: Option<&Path>) -> Vec<Check> {
    let down = running == Running::No;
    let (place, mut checks) = match running {
        Running::Yes(place) => (place, Vec::new()),
        Running::No | Running::Unknown => match Config::load(config, Overrides::default()) {
            Ok(config) => {
                let reason = if down { "no daemon answers" } else { "the daemon could not be asked" };
                let found = format!("valid; read from the file, because {reason}");
                // Others than root may not be able to read what the daemon can.
                let is_root = nix::unistd::geteuid().is_root();
                let check = match if is_root { check_files(&config) } else { Ok(()) } {
                    Ok(()) => Check::ok("configuration", found),
                    Err(error) => Check::fail("configuration", error.to_string(), CONFIG_FIX),
                };
                (place(&config), vec![check])
            }
            Err(error) => {
                return vec![Check::fail("configuration", error.to_string(), CONFIG_FIX)];
            }
        },
    };
    let ports: Vec<u16> = place
        .explicit_all()
        .map(|address| address.port())
        .chain(place.ebpf.then_some(place.transparent_port))
        .collect();
    if place.ebpf {
        checks.extend(kernel::report(&kernel_config(&place)));
    } else {
        checks.push(Check::warn(
            "kernel",
            "not looked at: the daemon is told not to redirect connections",
            "restart it with kernel.ebpf = true and without --no-ebpf, unless the explicit proxy is all you want",
        ));
    }
    checks.extend(kernel::ports(&ports, !down));
    checks.push(kernel::clock());
    checks
}

/// Where the parts of a daemon with this configuration are.
pub(super) fn place(config: &Config) -> Place {
    Place {
        ebpf: config.kernel.ebpf,
        agents_root: (&config.kernel.agents_root).into(),
        daemon_cgroup: (&config.kernel.daemon_cgroup).into(),
        bpffs_dir: config.kernel.bpffs_dir.clone(),
        transparent_port: config.listen.transparent_port,
        explicit: config.listen.explicit.clone(),
        explicit_tls: config.listen.explicit_tls.clone(),
        proxied: config.upstream.proxy.is_some()
            && !config.upstream.no_proxy.iter().any(|direct| direct.covers(&Host::V4(Ipv4Addr::LOCALHOST))),
    }
}

/// The same as the kernel part needs it.
pub(super) fn kernel_config(place: &Place) -> KernelConfig {
    KernelConfig {
        agents_root: place.agents_root.clone(),
        daemon_cgroup: place.daemon_cgroup.clone(),
        bpffs_dir: place.bpffs_dir.clone(),
        transparent_port: place.transparent_port,
        dns_port: place.transparent_port,
        reserved_ports: place.explicit_all().map(|address| address.port()).collect(),
        log: false,
    }
}
