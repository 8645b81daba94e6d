//! The helper as a separate service: it loads the kernel programs, then waits for the daemon, which needs no
//! privilege.

use std::os::fd::OwnedFd;

use nix::sys::stat::{Mode, umask};
use onecli_model::error_chain;
use onecli_sys::kernel::{self, Cgroup2, KernelConfig, Redirect};
use onecli_sys::privilege::{self, Channel};

use super::protocol::{Answer, send};
use super::server::HelperService;
use crate::process::AppError;
use crate::process::peer::{check, owner};
use crate::process::service_manager;

/// Attaches the programs, or replaces those of an earlier helper, and serves one daemon after another until it is
/// killed.
pub(crate) fn run(config: &KernelConfig) -> Result<(), AppError> {
    privilege::forbid_inspection()?;
    // A daemon that runs as another user reads the cgroups that this process creates. The only other files it creates
    // are pins, which have an explicit mode.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let listener = match <[(String, OwnedFd); 1]>::try_from(privilege::inherited_sockets()) {
        Ok([(_, listener)]) => listener,
        Err(passed) => {
            let found = passed.len();
            return Err(AppError::Helper(format!(
                "the helper must be started by onecli-helper.socket, which passes one socket; it received {found}"
            )));
        }
    };
    let user = owner(&listener).map_err(AppError::Socket)?;
    // The claim prevents any other process from attaching while this one lives.
    let _claim = kernel::claim(&config.agents_root, &config.bpffs_dir)?;
    drop(Redirect::attach(config)?);
    let maps = kernel::open_maps(&config.bpffs_dir)?;
    let service = HelperService::begin(config, || service_manager::ready("the kernel programs are attached"))
        .map_err(|error| AppError::Helper(error_chain(error.as_ref())))?;
    let root = Cgroup2::find()?.id_of(&config.agents_root)?;
    loop {
        let daemon = Channel::accept(&listener).map_err(AppError::Socket)?;
        if !Cgroup2::find()?.id_of(&config.agents_root).is_ok_and(|id| id == root) {
            // This process has dropped the privilege to attach.
            return Err(AppError::AgentsRoot("the agents' cgroup was removed".to_owned()));
        }
        match check(&daemon, user, &config.daemon_cgroup) {
            Ok(()) => {
                let served = send(&daemon, &Answer::Maps, &maps).map_err(Into::into);
                if let Err(error) = served.and_then(|()| service.answer_all(&daemon)) {
                    tracing::warn!(error = error_chain(error.as_ref()), "stopped serving a daemon");
                }
            }
            Err(reason) => tracing::warn!(reason, "refused a process that is not the daemon"),
        }
    }
}
