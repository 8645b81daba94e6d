//! Drops privileges, and checks that they are gone.

use std::io;

use caps::CapSet;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Uid, setgroups, setresgid, setresuid};

use crate::error::LaunchError;
use crate::host::user::LaunchUser;

fn failed(step: &'static str) -> impl Fn(nix::Error) -> LaunchError {
    move |error| LaunchError::Confine { step, source: error.into() }
}

/// Closes all descriptors but stdin, stdout and stderr at exec. An inherited socket would not belong to the agent, and
/// its connections would pass no hook.
#[expect(unsafe_code, reason = "close_range(2) has no wrapper")]
pub(crate) fn close_inherited_files() -> Result<(), LaunchError> {
    // SAFETY: takes three integers and touches no memory. With CLOSE_RANGE_CLOEXEC (Linux 5.11) no file is closed now,
    // so descriptors that this process still owns stay valid.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_uint)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(LaunchError::Confine { step: "close_range", source: io::Error::last_os_error() })
    }
}

/// A core file of the agent would contain its placeholders and session token.
pub(crate) fn forbid_core_files() -> Result<(), LaunchError> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed("setrlimit(RLIMIT_CORE)"))
}

/// Groups first: they cannot be changed once the uid is not 0.
pub(crate) fn become_user(user: &LaunchUser) -> Result<(), LaunchError> {
    // Done while uid 0 still has CAP_SETPCAP.
    drop_bounding_set()?;
    setgroups(&user.groups).map_err(failed("setgroups"))?;
    setresgid(user.gid, user.gid, user.gid).map_err(failed("setresgid"))?;
    setresuid(user.uid, user.uid, user.uid).map_err(failed("setresuid"))
}

/// Iterates by number up to the kernel's last one, so capabilities newer than the library's list are removed too.
#[expect(unsafe_code, reason = "the wrappers know only the capabilities of their release")]
fn drop_bounding_set() -> Result<(), LaunchError> {
    // Capability sets have 64 bits at most (capabilities(7)).
    for capability in 0..64 as libc::c_ulong {
        // SAFETY: PR_CAPBSET_DROP takes an integer and touches no memory.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } == 0 {
            continue;
        }
        let source = io::Error::last_os_error();
        return match source.raw_os_error() {
            // Past the last capability of this kernel.
            Some(libc::EINVAL) if capability > 0 => Ok(()),
            _ => Err(LaunchError::Confine { step: "prctl(PR_CAPBSET_DROP)", source }),
        };
    }
    Ok(())
}

/// setresuid(2) clears the effective and permitted sets unless securebits forbid it. It never clears the inheritable
/// set.
pub(crate) fn drop_capabilities() -> Result<(), LaunchError> {
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
        caps::clear(None, set).map_err(|error| LaunchError::Confine {
            step: "clearing capabilities",
            source: io::Error::other(error.to_string()),
        })?;
    }
    Ok(())
}

/// Asks the kernel whether any privilege is left.
pub(crate) fn check_unprivileged(user: &LaunchUser) -> Result<(), LaunchError> {
    for set in [CapSet::Ambient, CapSet::Bounding, CapSet::Effective, CapSet::Inheritable, CapSet::Permitted]
    {
        let left = caps::read(None, set)
            .map_err(|error| LaunchError::StillPrivileged(format!("cannot read capabilities: {error}")))?;
        if !left.is_empty() {
            return Err(LaunchError::StillPrivileged(format!("the {set:?} set still holds {left:?}")));
        }
    }
    let root = Uid::from_raw(0);
    if setresuid(root, root, root).is_ok() || nix::unistd::setuid(root).is_ok() {
        return Err(LaunchError::StillPrivileged("uid 0 can be regained".to_owned()));
    }
    let ids = nix::unistd::getresuid().map_err(failed("getresuid"))?;
    if [ids.real, ids.effective, ids.saved].iter().any(|uid| *uid != user.uid) {
        return Err(LaunchError::StillPrivileged(format!("the user ids are {ids:?}")));
    }
    Ok(())
}

/// Set-user-ID programs run, but give no privileges (`PR_SET_NO_NEW_PRIVS`). seccomp requires it too.
pub(crate) fn forbid_new_privileges() -> Result<(), LaunchError> {
    nix::sys::prctl::set_no_new_privs().map_err(failed("prctl(PR_SET_NO_NEW_PRIVS)"))
}
