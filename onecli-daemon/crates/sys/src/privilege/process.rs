//! Process attributes and capabilities.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::PrivilegeError;

/// Protects decrypted values in this process: not dumpable (no ptrace(2) and no `/proc/PID/mem` for other processes of
/// its uid), no core files, and its files readable only by its user (umask 077).
///
/// # Errors
/// [`PrivilegeError::Process`].
pub fn forbid_inspection() -> Result<(), PrivilegeError> {
    let failed =
        |step| move |error: nix::Error| PrivilegeError::Process { step, source: io::Error::from(error) };
    nix::sys::prctl::set_dumpable(false).map_err(failed("prctl(PR_SET_DUMPABLE)"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed("setrlimit(RLIMIT_CORE)"))?;
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    Ok(())
}

/// Raises the limit on open file descriptors to the maximum without privilege (`RLIMIT_NOFILE`, getrlimit(2)). Returns
/// the new limit.
///
/// # Errors
/// [`PrivilegeError::Process`].
pub fn raise_descriptor_limit() -> Result<u64, PrivilegeError> {
    let failed =
        |step| move |error: nix::Error| PrivilegeError::Process { step, source: io::Error::from(error) };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed("getrlimit(RLIMIT_NOFILE)"))?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(failed("setrlimit(RLIMIT_NOFILE)"))?;
    }
    Ok(hard)
}

/// Drops every capability except those given, permanently, also from the bounding set if `CAP_SETPCAP` allows it. A
/// given capability that the process does not have is not gained.
///
/// Capabilities belong to threads, so this must run before a second thread starts.
///
/// # Errors
/// [`PrivilegeError::Threads`], [`PrivilegeError::Capabilities`].
pub fn keep_capabilities(kept: &[Capability]) -> Result<(), PrivilegeError> {
    only_thread()?;
    let refused = |error: caps::errors::CapsError| PrivilegeError::Capabilities(error.to_string());
    let permitted = caps::read(None, CapSet::Permitted).map_err(refused)?;
    let kept: CapsHashSet =
        kept.iter().copied().filter(|capability| permitted.contains(capability)).collect();

    caps::clear(None, CapSet::Ambient).map_err(refused)?;
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(refused)? {
        bound_by(&kept)?;
    }
    caps::clear(None, CapSet::Inheritable).map_err(refused)?;
    caps::set(None, CapSet::Effective, &kept).map_err(refused)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(refused)
}

/// Switches permanently to an unprivileged user, and stays protected from other processes of that user
/// ([`forbid_inspection`]). The kernel clears the parent-death signal (`prctl(2)`, `PR_SET_PDEATHSIG`).
///
/// # Errors
/// [`PrivilegeError::Threads`], [`PrivilegeError::Capabilities`], [`PrivilegeError::Process`].
pub fn become_user(uid: Uid, gid: Gid) -> Result<(), PrivilegeError> {
    let failed = |step| move |error: nix::Error| PrivilegeError::Process { step, source: error.into() };
    keep_capabilities(&[Capability::CAP_SETUID, Capability::CAP_SETGID])?;
    setgroups(&[]).map_err(failed("setgroups"))?;
    setresgid(gid, gid, gid).map_err(failed("setresgid"))?;
    setresuid(uid, uid, uid).map_err(failed("setresuid"))?;
    keep_capabilities(&[])?;
    forbid_inspection()
}

/// Removes all other capabilities from the bounding set. It iterates by number up to the kernel's last one, so
/// capabilities newer than the library's list are removed too.
#[expect(unsafe_code, reason = "the wrappers know only the capabilities of their release")]
fn bound_by(kept: &CapsHashSet) -> Result<(), PrivilegeError> {
    // Capability sets have 64 bits at most (capabilities(7)).
    for number in 0..64u8 {
        if kept.iter().any(|capability| capability.index() == number) {
            continue;
        }
        // SAFETY: PR_CAPBSET_DROP takes an integer and touches no memory.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) } == 0 {
            continue;
        }
        let source = io::Error::last_os_error();
        return match source.raw_os_error() {
            // Past the last capability of this kernel.
            Some(libc::EINVAL) if number > 0 => Ok(()),
            _ => Err(PrivilegeError::Process { step: "prctl(PR_CAPBSET_DROP)", source }),
        };
    }
    Ok(())
}

pub(super) fn only_thread() -> Result<(), PrivilegeError> {
    let threads = std::fs::read_dir("/proc/self/task")
        .map_err(|source| PrivilegeError::Process { step: "reading /proc/self/task", source })?
        .count();
    if threads > 1 { Err(PrivilegeError::Threads(threads)) } else { Ok(()) }
}
