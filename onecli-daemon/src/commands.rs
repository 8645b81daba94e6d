//! The commands besides serving: they check the configuration, restore a backup, remove the kernel programs, or start
//! the helper or the executor.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use onecli_api::ErrorDetail;
use onecli_config::{Config, DaemonLayout};
use onecli_model::error_chain;
use onecli_sys::kernel;
use onecli_tls::UpstreamTls;

use crate::args::write_manual;
use crate::process::{journal, service_manager as service};
use crate::{executor, helper};

/// `EX_CONFIG` of sysexits.h.
const BAD_CONFIG: u8 = 78;

/// Writes the manual page.
pub(crate) fn manual(file: &Path) -> ExitCode {
    match write_manual(file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "onecli-daemon: {}: {error}", file.display());
            ExitCode::FAILURE
        }
    }
}

/// Reports that the configuration is not valid, also to the service manager.
pub(crate) fn bad_config(error: &dyn Display, json: bool) -> ExitCode {
    complain("bad_config", error, json);
    service::failed(&error.to_string());
    ExitCode::from(BAD_CONFIG)
}

/// Reads the files that a valid configuration names, as the daemon does when it starts, and prints the result.
pub(crate) fn check_config(config: &Config) -> ExitCode {
    match UpstreamTls::new(&config.upstream.extra_ca_files) {
        Ok(_) => {
            let _ = writeln!(io::stdout(), "the configuration is valid");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "onecli-daemon: {error}");
            ExitCode::from(BAD_CONFIG)
        }
    }
}

/// Replaces the database with a backup, and prints the result.
pub(crate) fn restore(config: &Config, backup: &Path, dry_run: bool, json: bool) -> ExitCode {
    match crate::restore::restore(config, backup, dry_run) {
        Ok(report) => {
            let text = if json { report.json() } else { report.to_string() };
            let _ = writeln!(io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain("failed", &error, json);
            ExitCode::from(error.exit_code())
        }
    }
}

fn complain(code: &str, error: &dyn Display, json: bool) {
    let _ = if json {
        writeln!(io::stderr(), "{}", ErrorDetail::new(code, error).printable_json())
    } else {
        writeln!(io::stderr(), "onecli-daemon: {error}")
    };
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
const STILL_ATTACHED: u8 = 3;

/// Detaches the kernel programs unless an agent runs. Prints `cgroup PATH` for each cgroup that they were attached to
/// and, if they stay, `pins PATH`. The package's purge reads this after program and configuration are gone.
///
/// Exit codes: 0 detached, 3 still attached because an agent runs, 1 unknown.
pub(crate) fn retire(config: &Config) -> ExitCode {
    journal::init();
    let mut out = io::stdout();
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
    ExitCode::from(STILL_ATTACHED)
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
