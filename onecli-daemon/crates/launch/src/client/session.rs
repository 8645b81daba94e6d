//! The client side: it connects the user's terminal to the command's terminal until the command ends.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{read, write};

use super::confirm::confirm;
use super::reset::{RESET, SAVE_TITLE};
use crate::process::terminal::{Raw, resize, size};
use crate::protocol::wire::{ClientMessage, LauncherMessage, LauncherSocket, PASSED_ON, Request};

/// The way the command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandOutcome {
    /// By exit, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// Before it started.
    NotStarted {
        /// The exit code of `run`.
        code: u8,
        /// The reason.
        message: String,
    },
}

/// The caller's open files.
#[derive(Debug, Clone, Copy)]
pub struct CallerFiles<'f> {
    /// Standard input, output, error.
    pub files: [BorrowedFd<'f>; 3],
    /// The directory in which the command starts.
    pub directory: BorrowedFd<'f>,
    /// Other directories to share.
    pub shares: &'f [BorrowedFd<'f>],
}

/// Typed bytes that the command's terminal has not yet accepted. At this limit nothing more is read until it does.
const MAX_TYPED: usize = 64 * 1024;
/// Time for the command's last output to pass its terminal, ms.
const LAST_OUTPUT: u16 = 50;

/// Sends `request` to the launcher at the other end of `socket`, and waits for the command to end. `notice` receives
/// messages for the user.
///
/// # Errors
/// The connection to the launcher was lost, or the terminal cannot be read.
pub fn run(
    socket: &LauncherSocket,
    request: &Request,
    standard: CallerFiles<'_>,
    notice: &mut dyn FnMut(&str),
) -> io::Result<CommandOutcome> {
    let signals: SigSet = PASSED_ON.iter().chain(&[Signal::SIGWINCH]).copied().collect();
    signals.thread_block()?;
    let signalled = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    if let Some(refused) = ask(socket, request, notice)? {
        return Ok(refused);
    }
    let [input, output, error] = standard.files;
    let descriptors = [&[input, output, error, standard.directory], standard.shares].concat();
    socket.send(request, &descriptors)?;
    let mut session = Session {
        socket,
        request,
        standard,
        inner: None,
        raw: None,
        typed: Vec::new(),
        late: None,
        outcome: None,
    };
    while session.outcome.is_none() {
        session.step(&signalled, notice)?;
    }
    session.drain();
    session.raw = None;
    session.report(notice);
    signals.thread_unblock()?;
    session.outcome.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Sends the subject of `request`, and waits until the launcher requests the rest. Returns `Some` if it refuses.
fn ask(
    socket: &LauncherSocket,
    request: &Request,
    notice: &mut dyn FnMut(&str),
) -> io::Result<Option<CommandOutcome>> {
    socket.send(&request.subject(), &[])?;
    loop {
        match socket.receive::<LauncherMessage>()? {
            Some((LauncherMessage::Permitted, _)) => return Ok(None),
            Some((LauncherMessage::Notice(text), _)) => notice(&text),
            Some((LauncherMessage::Failed { code, message }, _)) => {
                return Ok(Some(CommandOutcome::NotStarted { code, message }));
            }
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
            None => return Err(broken_off()),
        }
    }
}

fn broken_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")
}

struct Session<'s> {
    socket: &'s LauncherSocket,
    request: &'s Request,
    standard: CallerFiles<'s>,
    /// The client's end of the command's terminal.
    inner: Option<OwnedFd>,
    raw: Option<Raw<'s>>,
    typed: Vec<u8>,
    /// Notices since the command wrote to its terminal. They follow its last output.
    late: Option<Vec<String>>,
    outcome: Option<CommandOutcome>,
}

impl Session<'_> {
    fn step(&mut self, signalled: &SignalFd, notice: &mut dyn FnMut(&str)) -> io::Result<()> {
        let mut waiting = vec![
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(signalled.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(inner) = &self.inner {
            let mut wanted = PollFlags::POLLIN;
            wanted.set(PollFlags::POLLOUT, !self.typed.is_empty());
            waiting.push(PollFd::new(inner.as_fd(), wanted));
            if self.raw.is_some() && self.typed.len() < MAX_TYPED {
                waiting.push(PollFd::new(self.standard.files[0], PollFlags::POLLIN));
            }
        }
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::Error::EINTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        let ready: Vec<bool> = waiting.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let is_ready = |at: usize| ready.get(at).copied().unwrap_or(false);
        if is_ready(2) {
            self.show()?;
            self.type_in()?;
        }
        if is_ready(3) {
            self.read_typed();
        }
        if is_ready(1) {
            while let Some(signal) = signalled.read_signal()? {
                if let Ok(signal) = Signal::try_from(signal.ssi_signo.cast_signed()) {
                    self.pass_on(signal)?;
                }
            }
        }
        if is_ready(0) {
            self.receive_message(signalled, notice)?;
        }
        Ok(())
    }

    fn receive_message(&mut self, signalled: &SignalFd, notice: &mut dyn FnMut(&str)) -> io::Result<()> {
        let Some((event, mut descriptors)) = self.socket.receive::<LauncherMessage>()? else {
            return Err(broken_off());
        };
        match event {
            LauncherMessage::Terminal => {
                if let Some(inner) = descriptors.pop() {
                    fcntl(&inner, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
                    self.inner = Some(inner);
                    self.claim()?;
                }
            }
            LauncherMessage::Permitted => {}
            LauncherMessage::Notice(text) => match &mut self.late {
                Some(late) => late.push(text),
                None => notice(&text),
            },
            LauncherMessage::Confirm(directory) => {
                let answer =
                    confirm(&self.request.agent, &directory, self.standard.files, signalled, notice)?;
                self.socket.send(&ClientMessage::Answer(answer), &[])?;
            }
            LauncherMessage::Failed { code, message } => {
                self.outcome = Some(CommandOutcome::NotStarted { code, message });
            }
            LauncherMessage::Stopped(signal) => self.stop(signal)?,
            LauncherMessage::Exited(status) => self.outcome = Some(CommandOutcome::Exited(status)),
            LauncherMessage::Killed(signal) => self.outcome = Some(CommandOutcome::Killed(signal)),
        }
        Ok(())
    }

    /// Stops as the command did, until the shell continues this process. Without a shell with job control the kernel
    /// does not stop this process for these signals. Then the command continues at once, unless the signal was SIGSTOP:
    /// its sender continues the command.
    fn stop(&mut self, signal: i32) -> io::Result<()> {
        self.raw = None;
        let typed = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];
        let typed = typed.into_iter().find(|typed| *typed as i32 == signal);
        let signal = typed.unwrap_or(Signal::SIGTSTP);
        let alone = SigSet::from(signal);
        alone.thread_unblock()?;
        raise(signal)?;
        alone.thread_block()?;
        if typed.is_none() {
            // If a shell has continued this process, its SIGCONT waits to be read and passed on.
            return self.claim();
        }
        self.pass_on(Signal::SIGCONT)
    }

    /// Switches the user's terminal to raw mode, if this process may.
    fn claim(&mut self) -> io::Result<()> {
        if self.request.terminals[0] && self.inner.is_some() && self.raw.is_none() {
            self.raw = Raw::new(self.standard.files[0])?;
        }
        Ok(())
    }

    fn pass_on(&mut self, signal: Signal) -> io::Result<()> {
        if matches!(signal, Signal::SIGCONT | Signal::SIGWINCH) {
            self.claim()?;
            let terminals = self.standard.files.into_iter().zip(self.request.terminals);
            let size = terminals.filter(|(_, is_terminal)| *is_terminal).find_map(|(file, _)| size(file));
            if let (Some(inner), Some(size)) = (&self.inner, size) {
                resize(inner.as_fd(), size)?;
            }
        }
        if signal != Signal::SIGWINCH {
            self.socket.send(&ClientMessage::Signal(signal as i32), &[])?;
        }
        Ok(())
    }

    /// Copies from the command's terminal to the user's.
    fn show(&mut self) -> io::Result<()> {
        let Some(inner) = &self.inner else { return Ok(()) };
        let mut buffer = [0; 16 * 1024];
        match read(inner, &mut buffer) {
            Ok(0) | Err(nix::Error::EIO) => self.inner = None,
            Ok(length) => {
                if self.late.is_none() {
                    self.late = Some(Vec::new());
                    self.print(SAVE_TITLE)?;
                }
                self.print(&buffer[..length])?;
            }
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Writes to the terminal to which the command's output belongs.
    fn print(&self, mut bytes: &[u8]) -> io::Result<()> {
        let at = [1, 2, 0].into_iter().find(|&at| self.request.terminals[at]).unwrap_or(1);
        while !bytes.is_empty() {
            match write(self.standard.files[at], bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => {
                    let mut waiting = [PollFd::new(self.standard.files[at], PollFlags::POLLOUT)];
                    let _ = poll(&mut waiting, PollTimeout::from(LAST_OUTPUT));
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn read_typed(&mut self) {
        let mut buffer = [0; 4096];
        match read(self.standard.files[0], &mut buffer) {
            Ok(length) if length > 0 => self.typed.extend_from_slice(&buffer[..length]),
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
            // The terminal hung up: SIGHUP handles the rest.
            _ => self.raw = None,
        }
    }

    fn type_in(&mut self) -> io::Result<()> {
        let Some(inner) = &self.inner else { return Ok(()) };
        match write(inner, &self.typed) {
            Ok(written) => {
                self.typed.drain(..written);
            }
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
            Err(nix::Error::EIO) => self.inner = None,
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Resets the terminal if the command wrote to it, and prints the notices that came since. The command's output may
    /// have left the terminal in a state in which they would not show.
    fn report(&mut self, notice: &mut dyn FnMut(&str)) {
        let Some(late) = self.late.take() else { return };
        // A terminal that hung up needs no reset.
        let _ = self.print(RESET);
        if !late.is_empty() {
            let _ = self.print(b"\r\n");
        }
        for text in &late {
            notice(text);
        }
    }

    /// Reads the command's last output, which passes its terminal a little later.
    fn drain(&mut self) {
        while let Some(inner) = &self.inner {
            let mut waiting = [PollFd::new(inner.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waiting, PollTimeout::from(LAST_OUTPUT)) {
                Ok(1..) if self.show().is_ok() => {}
                _ => return,
            }
        }
    }
}
