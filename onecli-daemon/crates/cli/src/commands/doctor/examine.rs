//! The checks that `onecli doctor` makes itself, with or without a running daemon.
//!
//! The command runs them in its own process, because the serving process cannot read most of what they check: pins
//! are in a directory that belongs to root, and the daemon has no capability. Root has all of them. A running daemon
//! reports the locations of its parts, and the results of checks that only it can make.

use std::path::Path;

use onecli_config::{Config, DaemonLayout, Overrides};
use onecli_model::Check;
use onecli_sys::kernel;
use onecli_tls::UpstreamTls;

use super::running::DaemonPresence;

const CONFIG_FIX: &str = "correct the file, then check it with `onecli-daemon --check-config`";

/// Checks the host: the parts of the running daemon if it reports their locations, else those of the daemon that
/// `config` would start.
pub(crate) fn host_checks(running: DaemonPresence, config: Option<&Path>) -> Vec<Check> {
    let down = running == DaemonPresence::No;
    let (layout, mut checks) = match running {
        DaemonPresence::Yes(layout) => (layout, Vec::new()),
        DaemonPresence::No | DaemonPresence::Unknown => match Config::load(config, Overrides::default()) {
            Ok(config) => {
                let reason = if down { "no daemon answers" } else { "the daemon could not be queried" };
                let found = format!("valid; read from the file, because {reason}");
                // Other users than root may not be able to read files that the daemon can.
                let is_root = nix::unistd::geteuid().is_root();
                let check = match if is_root {
                    UpstreamTls::new(&config.upstream.extra_ca_files).map(drop)
                } else {
                    Ok(())
                } {
                    Ok(()) => Check::ok("configuration", found),
                    Err(error) => Check::fail("configuration", error.to_string(), CONFIG_FIX),
                };
                (DaemonLayout::new(&config), vec![check])
            }
            Err(error) => {
                return vec![Check::fail("configuration", error.to_string(), CONFIG_FIX)];
            }
        },
    };
    let ports: Vec<u16> = layout
        .explicit_all()
        .map(|address| address.port())
        .chain(layout.ebpf.then_some(layout.transparent_port))
        .collect();
    if layout.ebpf {
        checks.extend(kernel::report(&layout.kernel_config()));
    } else {
        checks.push(Check::warn(
            "kernel",
            "not checked: the daemon is configured not to redirect connections",
            "restart it with kernel.ebpf = true and without --no-ebpf, unless you need only the explicit proxy",
        ));
    }
    checks.extend(kernel::ports(&ports, !down));
    checks.push(kernel::clock());
    checks
}
