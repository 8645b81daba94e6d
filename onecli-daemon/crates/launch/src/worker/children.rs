//! State changes of the worker's children.
//!
//! An agent influences which processes these are. With `CLONE_PARENT` (clone(2)) the command makes other processes
//! children of the worker. With `PTRACE_TRACEME` (ptrace(2)) it makes the worker the tracer of its threads. A traced
//! thread stops at each signal until the tracer lets it continue, and the kernel reports the end of a process only
//! after its tracer has reaped its threads. So the worker waits for every child and traces none.
#![allow(unsafe_code, reason = "waitid(2) by a wrapper fails for real-time signals; ptrace(2) has no other")]

use std::io;
use std::ptr;

use nix::unistd::Pid;

use crate::protocol::wire::LauncherMessage;

/// Children that are handled before the loop serves other events. An agent can make them faster than the worker reaps
/// them.
pub(super) const MAX_AT_ONCE: usize = 64;

/// A state change of one child.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// No further child has changed.
    None,
    /// A change of a child other than the command, or one that the client need not know.
    Other,
    /// A change of the command.
    Command(LauncherMessage),
}

/// Handles one child that has ended or stopped. A child that waits for a tracer continues.
///
/// # Errors
/// Those of waitid(2).
pub(super) fn change(command: Pid) -> io::Result<Change> {
    // SAFETY: all bytes zero is a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::__WALL;
    // SAFETY: the kernel writes a `siginfo_t`, which is what `info` is.
    if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) } < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ECHILD) { Ok(Change::None) } else { Err(error) };
    }
    // SAFETY: waitid(2) has set these fields, or left them 0 if no child has changed.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(Change::None);
    }
    if info.si_code == libc::CLD_TRAPPED {
        release(pid, status);
        return Ok(Change::Other);
    }
    Ok(match (pid == command.as_raw(), info.si_code) {
        (true, libc::CLD_EXITED) => Change::Command(LauncherMessage::Exited(status)),
        (true, libc::CLD_KILLED | libc::CLD_DUMPED) => Change::Command(LauncherMessage::Killed(status)),
        (true, libc::CLD_STOPPED) => Change::Command(LauncherMessage::Stopped(status)),
        _ => Change::Other,
    })
}

/// Ends the tracing of a thread. The signal that stopped it takes effect. The trap of an execve(2) has no effect, as
/// without a tracer.
fn release(thread: libc::pid_t, signal: i32) {
    let signal = if signal == libc::SIGTRAP { 0 } else { signal & 0x7f };
    // SAFETY: PTRACE_DETACH takes a thread and the number of a signal, and touches no memory of this process.
    let _ = unsafe {
        libc::ptrace(
            libc::PTRACE_DETACH,
            thread,
            ptr::null_mut::<libc::c_void>(),
            ptr::without_provenance_mut::<libc::c_void>(usize::try_from(signal).unwrap_or(0)),
        )
    };
}
