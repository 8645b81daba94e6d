//! The question on the caller's terminal whether an agent may use a directory.

use std::io::{self, IsTerminal as _};
use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::unistd::read;

use crate::text::shown;

/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 64;

/// Asks if standard input and error are a terminal; otherwise the answer is no. `notice` prints the question.
pub(crate) fn confirm(
    agent: &str,
    directory: &Path,
    [input, _, error]: [BorrowedFd<'_>; 3],
    signalled: &SignalFd,
    notice: &mut dyn FnMut(&str),
) -> io::Result<bool> {
    if !input.is_terminal() || !error.is_terminal() {
        return Ok(false);
    }
    notice(&format!("let agent '{agent}' read and change the files in {}? [y/N]", shown(directory)));
    let answer = read_line(input, signalled)?;
    Ok(is_yes(&answer))
}

/// Reads one line, byte by byte, because input typed ahead belongs to the command. A signal that would end this process
/// ends the line.
fn read_line(input: BorrowedFd<'_>, signalled: &SignalFd) -> io::Result<Vec<u8>> {
    use std::os::fd::AsFd as _;
    let mut line = Vec::new();
    loop {
        let mut waiting =
            [PollFd::new(input, PollFlags::POLLIN), PollFd::new(signalled.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::Error::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        if waiting[1].any().unwrap_or(false) && ends(signalled)? {
            return Ok(Vec::new());
        }
        if !waiting[0].any().unwrap_or(false) {
            continue;
        }
        let mut byte = [0];
        match read(input, &mut byte) {
            Ok(1) if byte != *b"\n" && line.len() < MAX_ANSWER => line.extend(byte),
            Ok(1) if byte != *b"\n" => {}
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
            _ => return Ok(line),
        }
    }
}

fn ends(signalled: &SignalFd) -> io::Result<bool> {
    let ends = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].map(|signal| signal as u32);
    Ok(signalled.read_signal()?.is_some_and(|signal| ends.contains(&signal.ssi_signo)))
}

fn is_yes(answer: &[u8]) -> bool {
    let answer = answer.trim_ascii().to_ascii_lowercase();
    answer == b"y" || answer == b"yes"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_y_and_yes_confirm() {
        for (answer, expected) in [("y", true), (" YES ", true), ("", false), ("n", false), ("yess", false)] {
            assert_eq!(is_yes(answer.as_bytes()), expected, "{answer:?}");
        }
    }
}
