//! Messages between `onecli run` and the launcher, with file descriptors (`SCM_RIGHTS`, unix(7)).
//!
//! A frame is its length (4 bytes, little-endian) and JSON. The client first sends its [`LaunchIdentity`] and waits for
//! [`LauncherMessage::Permitted`]. Only then does it send the [`Request`], with
//! [`RequestDescriptors`](super::descriptors::RequestDescriptors) as its descriptors. After that the client sends
//! [`ClientMessage`]s and the launcher [`LauncherMessage`]s.
#![allow(unsafe_code, reason = "descriptors that arrive become owned")]

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::process::deadline::Deadline;

/// Longest frame, bytes: the longest command line and environment of execve(2) (2 MiB), encoded as JSON.
const MAX_FRAME: usize = 12 * 1024 * 1024;
/// Longest frame of a client that is not authorised yet, bytes.
const MAX_SUBJECT: usize = 4096;
/// Growth of a frame's buffer per step, as bytes arrive. An announced length alone allocates nothing.
const GROWTH: usize = 64 * 1024;
/// Directories that a caller may share with one command.
pub const MAX_SHARES: usize = 16;
/// Descriptors in one frame: standard input, output, error, the directory, and the shares.
const MAX_DESCRIPTORS: usize = 4 + MAX_SHARES;
/// Signals for the command, which the client passes on.
pub(crate) const PASSED_ON: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// The identity under which a client requests a command: all inputs of its authorisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchIdentity {
    /// The agent.
    pub agent: String,
    /// The user to run as, instead of the agent's own.
    pub user: Option<String>,
    /// Run as the caller's own user.
    pub scope: bool,
    /// The recipe of the program, whose rules the agent should have. Older launchers do not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
}

/// The command that a client requests.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The agent.
    pub agent: String,
    /// The user to run as, instead of the agent's own.
    pub user: Option<String>,
    /// Run as the caller's own user, in the host's view of the files: `--scope`.
    pub scope: bool,
    /// The command's name or path.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The part of the caller's environment that is for the agent.
    pub env: Vec<(OsString, OsString)>,
    /// Variables that are copied in addition to the usual ones.
    pub keep_env: Vec<OsString>,
    /// Which of standard input, output and error are terminals and are replaced by the launcher's.
    pub terminals: [bool; 3],
    /// Rows and columns of the caller's terminal.
    pub size: Option<(u16, u16)>,
    /// The use of the directory.
    pub project: Project,
    /// For each shared directory: whether the agent may change it.
    pub shares: Vec<bool>,
    /// The mode bits that are removed from new files (umask(2)).
    pub umask: u32,
    /// Files of git configuration that the caller's environment names.
    #[serde(default)]
    pub git_configs: Vec<PathBuf>,
    /// Whether the launcher omits the final summary of refused requests. Older launchers do not know it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quiet: bool,
    /// The recipe of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
}

impl Request {
    /// Returns the identity under which it is made.
    pub(crate) fn subject(&self) -> LaunchIdentity {
        let Request { agent, user, recipe, .. } = self;
        LaunchIdentity { agent: agent.clone(), user: user.clone(), scope: self.scope, recipe: recipe.clone() }
    }
}

/// Omits arguments and environment, which may contain the user's own credentials.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("agent", &self.agent)
            .field("user", &self.user)
            .field("scope", &self.scope)
            .field("program", &self.program)
            .field("project", &self.project)
            .finish_non_exhaustive()
    }
}

/// The use of the directory that is sent with a [`Request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Project {
    /// The command starts there, if its user may.
    Plain,
    /// It is the current directory. The agent may use it with the caller's rights, once the caller has confirmed it.
    Current {
        /// `$PWD` reaches it through a symbolic link that root did not make: an agent may have made it.
        linked: bool,
    },
    /// The caller named it.
    Named {
        /// The name is the physical path, so no link can have redirected it.
        physical: bool,
    },
}

/// A message of the client while its command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClientMessage {
    /// A signal for the command's process group, by number.
    Signal(i32),
    /// The answer to [`LauncherMessage::Confirm`].
    Answer(bool),
}

/// A message of the launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LauncherMessage {
    /// The caller may run the agent: the launcher waits for the [`Request`].
    Permitted,
    /// The command's terminal: its other end is the frame's descriptor.
    Terminal,
    /// A message for the user.
    Notice(String),
    /// Asks whether the agent may use this directory, which the caller has not confirmed yet. The client answers with
    /// an [`ClientMessage::Answer`].
    Confirm(PathBuf),
    /// The command was not started.
    Failed {
        /// The exit code of `run`.
        code: u8,
        /// The reason.
        message: String,
    },
    /// The command was stopped by this signal.
    Stopped(i32),
    /// The command exited with this status.
    Exited(i32),
    /// The command was killed by this signal.
    Killed(i32),
}

/// One end of a connection between client and launcher.
#[derive(Debug)]
pub struct LauncherSocket(UnixStream);

impl LauncherSocket {
    /// Creates both ends.
    ///
    /// # Errors
    /// Those of socketpair(2).
    pub fn pair() -> io::Result<(LauncherSocket, LauncherSocket)> {
        let (one, other) = UnixStream::pair()?;
        Ok((LauncherSocket(one), LauncherSocket(other)))
    }

    /// Connects to the launcher's socket.
    ///
    /// # Errors
    /// Those of connect(2).
    pub fn connect(path: &Path) -> io::Result<LauncherSocket> {
        UnixStream::connect(path).map(LauncherSocket)
    }

    /// Creates an end from an accepted connection.
    pub(crate) fn accepted(stream: UnixStream) -> LauncherSocket {
        LauncherSocket(stream)
    }

    /// Makes [`send`](Self::send) fail if the peer reads nothing within `limit`; `None` waits for ever.
    pub(crate) fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.0.set_write_timeout(limit)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// Those of sendmsg(2); `InvalidInput` for a frame that is too long.
    pub fn send<T: Serialize>(&self, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut frame = vec![0; 4];
        serde_json::to_writer(&mut frame, message)?;
        let length = frame.len() - 4;
        if length > MAX_FRAME || descriptors.len() > MAX_DESCRIPTORS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command line is too long"));
        }
        frame[..4].copy_from_slice(&u32::try_from(length).map_err(io::Error::other)?.to_le_bytes());
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let mut control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let mut rest = &frame[..];
        while !rest.is_empty() {
            let sent = sendmsg::<()>(
                self.0.as_raw_fd(),
                &[IoSlice::new(rest)],
                control,
                MsgFlags::MSG_NOSIGNAL,
                None,
            );
            match sent {
                Ok(length) => {
                    rest = &rest[length..];
                    control = &[];
                }
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for a frame. Returns `None` if the other end is closed.
    ///
    /// # Errors
    /// Those of recvmsg(2); `InvalidData` for data that is not a frame of this type.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        self.receive_frame(MAX_FRAME, None)
    }

    /// Waits for a frame until `deadline`.
    ///
    /// # Errors
    /// As for [`receive`](Self::receive), and `TimedOut`.
    pub(crate) fn receive_before<T: DeserializeOwned>(
        &self,
        deadline: &Deadline,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        self.receive_frame(MAX_FRAME, Some(deadline))
    }

    /// Receives the first frame of an unauthorised client: short, before `deadline`, and without descriptors.
    ///
    /// # Errors
    /// As for [`receive_before`](Self::receive_before).
    pub(crate) fn receive_subject(&self, deadline: &Deadline) -> io::Result<Option<LaunchIdentity>> {
        match self.receive_frame(MAX_SUBJECT, Some(deadline))? {
            Some((subject, descriptors)) if descriptors.is_empty() => Ok(Some(subject)),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
            None => Ok(None),
        }
    }

    fn receive_frame<T: DeserializeOwned>(
        &self,
        most: usize,
        deadline: Option<&Deadline>,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut descriptors = Vec::new();
        let mut length = [0; 4];
        if !self.fill(&mut length, &mut descriptors, deadline)? {
            return Ok(None);
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > most {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = Vec::new();
        while body.len() < length {
            let filled = body.len();
            body.resize(length.min(filled + GROWTH), 0);
            if !self.fill(&mut body[filled..], &mut descriptors, deadline)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Some((serde_json::from_slice(&body)?, descriptors)))
    }

    /// Fills `buffer`. Returns `false` at the end of the stream.
    fn fill(
        &self,
        buffer: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
        deadline: Option<&Deadline>,
    ) -> io::Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            if let Some(deadline) = deadline {
                deadline.wait(self.0.as_fd())?;
            }
            let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
            let mut buffers = [IoSliceMut::new(&mut buffer[filled..])];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = match recvmsg::<()>(self.0.as_raw_fd(), &mut buffers, Some(&mut control), flags) {
                Ok(message) => message,
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            own(message.cmsgs()?, descriptors);
            if message.flags.contains(MsgFlags::MSG_CTRUNC) || descriptors.len() > MAX_DESCRIPTORS {
                return Err(io::ErrorKind::InvalidData.into());
            }
            match message.bytes {
                0 if filled == 0 => return Ok(false),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => filled += bytes,
            }
        }
        Ok(true)
    }
}

impl AsFd for LauncherSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Appends the descriptors that came with a message.
fn own(control: impl Iterator<Item = ControlMessageOwned>, all: &mut Vec<OwnedFd>) {
    for part in control {
        if let ControlMessageOwned::ScmRights(descriptors) = part {
            // SAFETY: the kernel has just made these descriptors for this process, and nothing else refers to them.
            all.extend(descriptors.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_descriptors_arrive_in_order() {
        let (one, other) = LauncherSocket::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        one.send(&LauncherMessage::Terminal, &[file.as_fd()]).unwrap();
        one.send(&LauncherMessage::Exited(3), &[]).unwrap();
        let (first, passed) = other.receive::<LauncherMessage>().unwrap().unwrap();
        assert_eq!((first, passed.len()), (LauncherMessage::Terminal, 1));
        let (second, passed) = other.receive::<LauncherMessage>().unwrap().unwrap();
        assert_eq!((second, passed.len()), (LauncherMessage::Exited(3), 0));
        drop(one);
        assert!(other.receive::<LauncherMessage>().unwrap().is_none());
    }

    #[test]
    fn a_long_command_line_arrives_whole() {
        let (one, other) = LauncherSocket::pair().unwrap();
        let message = "x".repeat(3 << 20);
        let expected = message.clone();
        let sender = std::thread::spawn(move || one.send(&LauncherMessage::Notice(message), &[]).unwrap());
        let (got, _) = other.receive::<LauncherMessage>().unwrap().unwrap();
        sender.join().unwrap();
        assert!(got == LauncherMessage::Notice(expected));
    }

    #[test]
    fn invalid_frames_are_refused() {
        use std::io::Write as _;
        for bytes in [&u32::MAX.to_le_bytes()[..], &[2, 0, 0, 0, b'x', b'y'], &[9, 0, 0, 0, b'"']] {
            let (one, other) = LauncherSocket::pair().unwrap();
            (&one.0).write_all(bytes).unwrap();
            drop(one);
            assert!(other.receive::<LauncherMessage>().is_err(), "{bytes:?}");
        }
    }

    /// Sending one byte at a time must not extend the time limit.
    #[test]
    fn deadline_covers_the_whole_frame() {
        use std::io::Write as _;
        let (slow, other) = LauncherSocket::pair().unwrap();
        (&slow.0).write_all(&[200, 0, 0, 0]).unwrap();
        let drip = std::thread::spawn(move || {
            while (&slow.0).write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let deadline = Deadline::after(Duration::from_millis(200)).unwrap();
        let received = other.receive_before::<LauncherMessage>(&deadline);
        assert_eq!(received.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(other);
        drip.join().unwrap();
    }

    #[test]
    fn subject_is_short_and_has_no_descriptors() {
        let deadline = Deadline::after(Duration::from_secs(5)).unwrap();
        let subject = LaunchIdentity { agent: "a".to_owned(), user: None, scope: false, recipe: None };
        let (one, other) = LauncherSocket::pair().unwrap();
        one.send(&subject, &[]).unwrap();
        assert_eq!(other.receive_subject(&deadline).unwrap(), Some(subject.clone()));
        let file = tempfile::tempfile().unwrap();
        one.send(&subject, &[file.as_fd()]).unwrap();
        assert_eq!(other.receive_subject(&deadline).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (one, other) = LauncherSocket::pair().unwrap();
        one.send(&LaunchIdentity { agent: "a".repeat(MAX_SUBJECT), ..subject }, &[]).unwrap();
        assert_eq!(other.receive_subject(&deadline).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
