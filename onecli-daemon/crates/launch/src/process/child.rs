//! A child process of this program.
#![allow(unsafe_code, reason = "_exit(2)")]

/// Runs `work`, and exits the process without running its parent's cleanup.
pub(crate) fn leave(work: impl FnOnce()) -> ! {
    // The panic hook logs a panic; the client sees the connection end.
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    // SAFETY: ends the process.
    unsafe { libc::_exit(i32::from(done.is_err())) }
}
