//! A time limit for everything that a peer sends, however it spreads its bytes.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// A point in time that limits all later reads. A peer that spreads its bytes gets no more time.
#[derive(Debug)]
pub(crate) struct Deadline(TimerFd);

impl Deadline {
    /// Creates a deadline `limit` from now (`CLOCK_MONOTONIC`).
    ///
    /// # Errors
    /// Those of `timerfd_create(2)`.
    pub(crate) fn after(limit: Duration) -> io::Result<Deadline> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        timer.set(Expiration::OneShot(TimeSpec::from_duration(limit)), TimerSetTimeFlags::empty())?;
        Ok(Deadline(timer))
    }

    /// Whether the deadline has passed.
    pub(crate) fn has_passed(&self) -> bool {
        let mut timer = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        // An error means that waiting is impossible.
        poll(&mut timer, PollTimeout::ZERO) != Ok(0)
    }

    /// Waits until `file` can be read.
    ///
    /// # Errors
    /// `TimedOut` if the deadline has passed, even if bytes are available.
    pub(crate) fn wait(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            let mut waiting =
                [PollFd::new(file, PollFlags::POLLIN), PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waiting, PollTimeout::NONE) {
                Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) if waiting[1].any().unwrap_or(true) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the data did not arrive in time"));
                }
                Ok(_) => return Ok(()),
            }
        }
    }
}
