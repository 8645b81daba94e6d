//! Terminals: a new one for the command, and the user's own while the client reads from it.
#![allow(unsafe_code, reason = "ioctl(2), and a process that restores the terminal")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use nix::pty::{Winsize, openpty};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fchown, fork, getpgrp, pipe, read, setsid, tcgetpgrp, write};

use crate::host::user::LaunchUser;

nix::ioctl_read_bad!(get_size, libc::TIOCGWINSZ, Winsize);
nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, Winsize);
nix::ioctl_write_int_bad!(take_terminal, libc::TIOCSCTTY);

/// Returns rows and columns of a terminal.
pub fn size(terminal: BorrowedFd<'_>) -> Option<(u16, u16)> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes a `winsize`, which is what `size` is.
    unsafe { get_size(terminal.as_raw_fd(), &raw mut size) }.ok()?;
    Some((size.ws_row, size.ws_col))
}

/// Sets the size of a terminal, and signals its programs.
pub(crate) fn resize(terminal: BorrowedFd<'_>, (rows, columns): (u16, u16)) -> io::Result<()> {
    let size = winsize(rows, columns);
    // SAFETY: the kernel reads a `winsize`, which lives as long as the call.
    unsafe { set_size(terminal.as_raw_fd(), &raw const size) }?;
    Ok(())
}

fn winsize(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A new terminal.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The end that is connected to the user's terminal.
    pub(crate) outer: OwnedFd,
    /// The end that programs run on.
    pub(crate) inner: OwnedFd,
}

impl Pair {
    /// Creates one that belongs to the agent's user.
    pub(crate) fn open(size: Option<(u16, u16)>, user: &LaunchUser) -> io::Result<Pair> {
        let size = size.map(|(rows, columns)| winsize(rows, columns));
        let pair = openpty(size.as_ref(), None)?;
        for end in [&pair.master, &pair.slave] {
            nix::fcntl::fcntl(end, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        }
        // Programs open it again, as /dev/tty or by its name.
        fchown(&pair.slave, Some(user.uid), Some(user.gid))?;
        fchmod(&pair.slave, Mode::S_IRUSR | Mode::S_IWUSR)?;
        Ok(Pair { outer: pair.master, inner: pair.slave })
    }
}

/// Makes a terminal the controlling one of this process's session, which has none.
pub(crate) fn control(terminal: &OwnedFd) -> io::Result<()> {
    // SAFETY: takes an integer and touches no memory.
    unsafe { take_terminal(terminal.as_raw_fd(), 0) }?;
    Ok(())
}

/// The user's terminal in raw mode: input goes to the command's terminal unchanged. Dropping it restores the terminal;
/// a separate process does so if this one is killed.
#[derive(Debug)]
pub(crate) struct Raw<'t> {
    terminal: BorrowedFd<'t>,
    saved: Termios,
    guardian: Guardian,
}

impl<'t> Raw<'t> {
    /// Returns `None` if the terminal belongs to another process group now, because it would stop this process.
    pub(crate) fn new(terminal: BorrowedFd<'t>) -> io::Result<Option<Raw<'t>>> {
        if tcgetpgrp(terminal) != Ok(getpgrp()) {
            return Ok(None);
        }
        let saved = tcgetattr(terminal)?;
        let guardian = Guardian::start(terminal, &saved)?;
        let mut raw = saved.clone();
        cfmakeraw(&mut raw);
        tcsetattr(terminal, SetArg::TCSADRAIN, &raw)?;
        Ok(Some(Raw { terminal, saved, guardian }))
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // A terminal that disappeared needs no reset.
        let _ = tcsetattr(self.terminal, SetArg::TCSADRAIN, &self.saved);
        self.guardian.dismiss();
    }
}

/// A process that restores the terminal if this one ends without doing so (SIGKILL).
#[derive(Debug)]
struct Guardian {
    line: Option<OwnedFd>,
    process: Pid,
}

impl Guardian {
    fn start(terminal: BorrowedFd<'_>, saved: &Termios) -> io::Result<Guardian> {
        let (heard, line) = pipe()?;
        nix::fcntl::fcntl(&line, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        // SAFETY: this process has one thread, and the child calls only the code below.
        match unsafe { fork() }? {
            ForkResult::Child => {
                drop(line);
                // Without a controlling terminal, it is not stopped for writing to one, nor reached by its signals.
                let _ = setsid();
                if read(&heard, &mut [0]) == Ok(0) {
                    let _ = tcsetattr(terminal, SetArg::TCSANOW, saved);
                }
                // SAFETY: ends the process without running cleanup that it shares with its parent.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => Ok(Guardian { line: Some(line), process: child }),
        }
    }

    fn dismiss(&mut self) {
        if let Some(line) = self.line.take() {
            let _ = write(&line, &[0]);
            let _ = waitpid(self.process, None);
        }
    }
}
