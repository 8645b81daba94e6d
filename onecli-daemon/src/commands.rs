//! The commands besides serving: they check the configuration, remove the kernel programs, or start the helper or the
//! executor.

use std::path::Path;
use std::process::ExitCode;

use onecli_config::{Config, DaemonLayout};
use onecli_model::error_chain;
use onecli_sys::kernel;
use onecli_tls::{UpstreamTls, UpstreamTlsError};

use crate::process::{journal, service_manager as service};
use crate::{executor, helper};

/// Reads the files that a valid configuration names, as the daemon does when it starts.
///
/// # Errors
/// A file cannot be read, or has the wrong content.
pub(crate) fn check_files(config: &Config) -> Result<(), UpstreamTlsError> {
    UpstreamTls::new(&config.upstream.extra_ca_files).map(drop)
}

/// Reports to the service manager why the daemon does not start.
pub(crate) fn tell_failure(reason: &dyn std::fmt::Display) {
    service::failed(&reason.to_string());
}

/// Removes the pinned kernel programs. Managed processes are then neither redirected nor refused.
pub(crate) fn detach(config: &Config) -> ExitCode {
    journal::init();
    match kernel::detach(&config.kernel.bpffs_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = error_chain(&error), "cannot remove the kernel programs");
            ExitCode::FAILURE
        }
    }
}

/// The exit code of [`retire`] if the programs stay attached.
const KEPT: u8 = 3;

/// Detaches the kernel programs unless an agent runs. Prints `cgroup PATH` for each cgroup that they were attached to
/// and, if they stay, `pins PATH`. The package's purge reads this after program and configuration are gone.
///
/// Exit codes: 0 detached, 3 still attached because an agent runs, 1 unknown.
pub(crate) fn retire(config: &Config, out: &mut impl std::io::Write) -> ExitCode {
    journal::init();
    let pins = &config.kernel.bpffs_dir;
    let retired = match kernel::retire(pins) {
        Ok(retired) => retired,
        Err(error) => {
            let _ = writeln!(out, "pins {}", pins.display());
            tracing::error!(error = error_chain(&error), "the kernel programs stay attached");
            return ExitCode::FAILURE;
        }
    };
    for cgroup in &retired.cgroups {
        let _ = writeln!(out, "cgroup {}", cgroup.display());
    }
    let Some(kept) = retired.kept else { return ExitCode::SUCCESS };
    let _ = writeln!(out, "pins {}", pins.display());
    tracing::error!("the kernel programs stay attached: {kept}");
    ExitCode::from(KEPT)
}

/// Attaches the kernel programs and serves daemons without privileges, until it is killed. Exit codes as for [`run`](crate::run::run).
pub(crate) fn help(config: &Config) -> ExitCode {
    journal::init();
    if !config.kernel.ebpf {
        // The service manager starts this unit with the daemon's even if it has no work.
        service::ready("kernel.ebpf is off: there is nothing to do");
        loop {
            std::thread::park();
        }
    }
    match helper::service::run(&DaemonLayout::new(config).kernel_config()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs commands that print values, for daemons that connect, until it is killed. Exit codes as for [`run`](crate::run::run).
pub(crate) fn execute(config: &Config) -> ExitCode {
    journal::init();
    match executor::service(Path::new(&config.kernel.daemon_cgroup)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}
