//! A time limit for all that a peer sends, however it spreads its bytes.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// A point in time for all that follows. However a peer spreads its bytes, it gets no more time.
#[derive(Debug)]
pub(super) struct Deadline(TimerFd);

impl Deadline {
    /// So long from now (`CLOCK_MONOTONIC`).
    ///
    /// # Errors
    /// What `timerfd_create(2)` says.
    pub(super) fn after(limit: Duration) -> io::Result<Deadline> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        timer.set(Expiration::OneShot(TimeSpec::from_duration(limit)), TimerSetTimeFlags::empty())?;
        Ok(Deadline(timer))
    }

    /// Whether the time is over.
    pub(super) fn has_passed(&self) -> bool {
        let mut timer = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        // An error means that nothing can be waited for.
        poll(&mut timer, PollTimeout::ZERO) != Ok(0)
    }

    /// Waits until `file` can be read.
    ///
    /// # Errors
    /// `TimedOut` when the deadline has passed, bytes or not.
    pub(super) fn wait(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            let mut waiting =
                [PollFd::new(file, PollFlags::POLLIN), PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waiting, PollTimeout::NONE) {
                Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) if waiting[1].any().unwrap_or(true) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not arrive in time"));
                }
                Ok(_) => return Ok(()),
            }
        }
    }
}
