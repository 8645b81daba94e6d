//! The helper as a separate service: it loads the kernel programs, then waits for the daemon, which needs no
//! privilege.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::stat::{Mode, umask};
use onecli_model::error_chain;
use onecli_sys::kernel::{self, Cgroup2, KernelConfig, Redirect};
use onecli_sys::privilege::{self, Channel};
use socket2::SockRef;

use super::duties::Duties;
use super::protocol::{Answer, send};
use crate::app::error::AppError;
use crate::app::service;

/// Attaches the programs, or replaces those of an earlier helper, and serves one daemon after another until it is
/// killed.
pub(in crate::app) fn run(config: &KernelConfig) -> Result<(), AppError> {
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
    let duties = Duties::begin(config, || service::ready("the kernel programs are attached"))
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
                if let Err(error) = served.and_then(|()| duties.answer_all(&daemon)) {
                    tracing::warn!(error = error_chain(error.as_ref()), "stopped serving a daemon");
                }
            }
            Err(reason) => tracing::warn!(reason, "refused a process that is not the daemon"),
        }
    }
}

/// Returns the owner of the socket's file, which is the daemon's user (`SocketUser=`, systemd.socket(5)).
pub(in crate::app) fn owner(listener: &OwnedFd) -> io::Result<u32> {
    let address = SockRef::from(listener).local_addr()?;
    let path = address.as_pathname().ok_or_else(|| io::Error::other("the helper's socket has no path"))?;
    Ok(fs::metadata(path)?.uid())
}

/// Checks that the peer is the daemon. Only its user can open the socket, and other processes of that user are
/// refused too.
pub(in crate::app) fn check(daemon: &Channel, user: u32, cgroup: &Path) -> Result<(), String> {
    let (uid, pid) = daemon.peer().map_err(|error| error.to_string())?;
    if uid != user {
        return Err(format!("uid {uid} is not the daemon's"));
    }
    let path = format!("/proc/{pid}/cgroup");
    let memberships = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    if is_within(&memberships, cgroup) {
        Ok(())
    } else {
        Err(format!("process {pid} is not in {}", cgroup.display()))
    }
}

/// Returns whether this `/proc/PID/cgroup` (cgroups(7)) names the cgroup2 cgroup `cgroup` or one below it.
pub(in crate::app) fn is_within(memberships: &str, cgroup: &Path) -> bool {
    let mut paths = memberships.lines().filter_map(|line| line.strip_prefix("0::/"));
    paths.any(|path| Path::new(path).starts_with(cgroup))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_is_matched_by_whole_path_components() {
        let slice = Path::new("onecli.slice/onecli-daemon.slice");
        for (memberships, within) in [
            ("0::/onecli.slice/onecli-daemon.slice/onecli-daemon.service\n", true),
            ("1:name=systemd:/x\n0::/onecli.slice/onecli-daemon.slice\n", true),
            ("0::/onecli.slice/onecli-daemon.slice2/a\n", false),
            ("0::/user.slice/onecli.slice/onecli-daemon.slice\n", false),
            ("1:name=systemd:/onecli.slice/onecli-daemon.slice\n", false),
            ("", false),
        ] {
            assert_eq!(is_within(memberships, slice), within, "{memberships}");
        }
    }
}
