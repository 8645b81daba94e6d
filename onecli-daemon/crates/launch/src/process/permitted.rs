//! Checks with the kernel whether a caller may use a directory that it passed.
#![allow(unsafe_code, reason = "fork(2) and faccessat2(2) have no safe wrappers")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, User, fork, getgrouplist, setgroups, setresgid, setresuid};

use super::deadline::Deadline;

/// Time for a process that has become the user. The user may stop it, while processes of other agents are frozen
/// ([`crate::running::freeze`]).
const USER_TIME: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(1);

/// Checks that the caller may read the contents of `directory`, and change them if `writable`. The caller has opened
/// it, so it can reach it.
///
/// # Errors
/// Those of the kernel, or the reason why the check failed to run.
pub(crate) fn check(directory: &OwnedFd, (uid, gid): (u32, u32), writable: bool) -> io::Result<()> {
    if uid == 0 {
        return Ok(());
    }
    let groups = groups(uid, gid);
    let wanted = libc::R_OK | libc::X_OK | if writable { libc::W_OK } else { 0 };
    // SAFETY: this process has one thread, and the child calls only the code below.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let code = become_user(uid, gid, &groups).and_then(|()| access(directory, wanted));
            let code = code.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
            // SAFETY: ends the process without running cleanup that it shares with its parent.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => match end_of(child)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, code) => Err(io::Error::from_raw_os_error(code)),
            _ => Err(io::Error::other("the check was interrupted")),
        },
    }
}

/// Runs `work` in a process that has become this user.
///
/// # Errors
/// The process cannot be made or cannot become the user.
pub(crate) fn as_user((uid, gid): (u32, u32), work: impl FnOnce()) -> io::Result<()> {
    let groups = groups(uid, gid);
    // SAFETY: this process has one thread, and the child ends without unwinding.
    match unsafe { fork() }? {
        ForkResult::Child => crate::process::child::leave(|| {
            if become_user(uid, gid, &groups).is_ok() {
                work();
            }
        }),
        ForkResult::Parent { child } => end_of(child).map(drop),
    }
}

/// Waits for the child, and kills it after the time limit.
fn end_of(child: Pid) -> io::Result<WaitStatus> {
    let deadline = Deadline::after(USER_TIME);
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive => {}
            status => return Ok(status),
        }
        if deadline.as_ref().map_or(true, Deadline::has_passed) {
            kill(child, Signal::SIGKILL)?;
            return Ok(waitpid(child, None)?);
        }
        std::thread::sleep(POLL);
    }
}

fn groups(uid: u32, gid: u32) -> Vec<Gid> {
    let own = Gid::from_raw(gid);
    let name =
        User::from_uid(Uid::from_raw(uid)).ok().flatten().and_then(|user| CString::new(user.name).ok());
    name.and_then(|name| getgrouplist(&name, own).ok()).unwrap_or_else(|| vec![own])
}

fn become_user(uid: u32, gid: u32, groups: &[Gid]) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(groups)?;
    setresgid(gid, gid, gid)?;
    Ok(setresuid(uid, uid, uid)?)
}

fn access(directory: &OwnedFd, wanted: libc::c_int) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | libc::AT_EACCESS;
    // SAFETY: the path is a C string that lives as long as the call (faccessat2(2), Linux 5.8).
    let done =
        unsafe { libc::syscall(libc::SYS_faccessat2, directory.as_raw_fd(), c"".as_ptr(), wanted, flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_stopped_process_of_the_user_is_killed() {
        // SAFETY: the child ends without unwinding.
        let child = match unsafe { fork() }.unwrap() {
            ForkResult::Child => crate::process::child::leave(|| {
                let _ = kill(nix::unistd::getpid(), Signal::SIGSTOP);
            }),
            ForkResult::Parent { child } => child,
        };
        assert_eq!(end_of(child).unwrap(), WaitStatus::Signaled(child, Signal::SIGKILL, false));
    }

    #[test]
    fn access_is_checked_with_the_callers_rights() {
        if !nix::unistd::geteuid().is_root() {
            println!("not run: becoming another user (needs root)");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let may = |mode: u32, writable: bool| {
            std::fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            check(&File::open(dir.path()).unwrap().into(), (2, 2), writable).is_ok()
        };
        assert!(may(0o755, false) && !may(0o755, true));
        assert!(may(0o777, true) && !may(0o711, false) && !may(0o700, false));
        assert!(check(&File::open(dir.path()).unwrap().into(), (0, 0), true).is_ok());
    }
}
