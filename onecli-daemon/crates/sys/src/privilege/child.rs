//! Child processes of the daemon: those that retain the privileges it drops, and those that do one thing and exit.
#![allow(unsafe_code, reason = "fork(2), and closing what the child inherits")]

use std::io;
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork as fork_process, getpid, getppid};

use super::process::only_thread;
use super::{Channel, PrivilegeError};

/// Descriptor of the child's end: the first after the standard ones.
const CHILD_END: libc::c_int = 3;

/// Forks a child named `name` that runs `main` with its end of a [`Channel`]. Returns the other end.
///
/// The child has the standard descriptors and that end, and no others. It is killed when the daemon exits, and exits
/// when `main` returns. The rest of the daemon's state is copied, so the daemon calls this before it holds any secret.
///
/// # Errors
/// [`PrivilegeError::Threads`]: of several threads only the calling one would be copied, with the others' locks held.
/// [`PrivilegeError::Fork`].
pub fn fork(name: &std::ffi::CStr, main: impl FnOnce(Channel)) -> Result<Channel, PrivilegeError> {
    let (ours, theirs) =
        Channel::pair().map_err(|source| PrivilegeError::Fork { step: "socketpair", source })?;
    let parent = getpid();
    fork_keeping(name, theirs.into_descriptor(), |theirs| {
        prctl::set_pdeathsig(Some(Signal::SIGKILL))?;
        // Otherwise the parent exited before the signal was set.
        if getppid() == parent {
            main(Channel::from_descriptor(theirs));
        }
        Ok(())
    })?;
    Ok(ours)
}

/// Forks a child named `name` that runs `main` and exits. The child continues if its parent exits first. It has the
/// standard descriptors and `descriptor`, and no others. The caller waits for it (wait(2)).
///
/// # Errors
/// As for [`fork`].
pub fn fork_off(
    name: &std::ffi::CStr,
    descriptor: OwnedFd,
    main: impl FnOnce(OwnedFd),
) -> Result<Pid, PrivilegeError> {
    fork_keeping(name, descriptor, |descriptor| {
        main(descriptor);
        Ok(())
    })
}

fn fork_keeping(
    name: &std::ffi::CStr,
    kept: OwnedFd,
    main: impl FnOnce(OwnedFd) -> io::Result<()>,
) -> Result<Pid, PrivilegeError> {
    only_thread()?;
    // SAFETY: this thread is the only one, so the child finds every lock as this thread left it.
    let forked = unsafe { fork_process() };
    match forked.map_err(|errno| PrivilegeError::Fork { step: "fork", source: errno.into() })? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let run = || {
                prctl::set_name(name)?;
                main(only_this(kept)?)
            };
            let status = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
                Ok(Ok(())) => 0,
                Ok(Err(error)) => {
                    let error: io::Error = error;
                    tracing::error!(%error, "the helper process cannot start");
                    1
                }
                // The panic hook has logged it.
                Err(_) => 101,
            };
            leave(status)
        }
    }
}

/// Moves the descriptor to [`CHILD_END`] and closes everything behind it.
fn only_this(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    let from = descriptor.into_raw_fd();
    // SAFETY: both calls take integers. The descriptors that they close are owned by values that this process never
    // drops: it came here from `fork`, and leaves by `_exit`.
    unsafe {
        // dup2(2) would leave it open in programs that the child executes.
        if from != CHILD_END && libc::dup3(from, CHILD_END, libc::O_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::syscall(libc::SYS_close_range, CHILD_END + 1, libc::c_uint::MAX, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(CHILD_END))
    }
}

/// Exits the child without running any of the daemon's cleanup.
fn leave(status: libc::c_int) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}
