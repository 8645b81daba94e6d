//! Messages between `onecli run` and the launcher, with file descriptors (`SCM_RIGHTS`, unix(7)).
//!
//! A frame is its length (4 bytes, little-endian) and JSON. The client first names its [`Subject`] and waits for
//! [`Event::Permitted`]. Only then does it send the [`Request`], with [`Handed`] as its descriptors; after it the client sends
//! [`Order`]s and the launcher [`Event`]s.
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

use super::deadline::Deadline;

/// Longest frame, bytes: a command line and environment as long as execve(2) takes them (2 MiB), as JSON has them.
const MAX_FRAME: usize = 12 * 1024 * 1024;
/// Longest frame of a client that nobody authorised yet, bytes.
const MAX_SUBJECT: usize = 4096;
/// A frame's buffer grows by so much at once, as bytes arrive: an announced length alone costs nothing.
const GROWTH: usize = 64 * 1024;
/// Directories that a caller may share with one command.
pub const MAX_SHARES: usize = 16;
/// Descriptors in one frame: standard input, output, error, the directory, and what is shared.
const MAX_DESCRIPTORS: usize = 4 + MAX_SHARES;
/// Signals that are the command's: the client passes them on.
pub(super) const PASSED_ON: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// As whom a client wants a command started: all that its authorisation depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The agent.
    pub agent: String,
    /// Run as this user in place of the agent's own.
    pub user: Option<String>,
    /// Run as the caller's own user.
    pub scope: bool,
    /// The recipe of the program, whose rules the agent should have. An older launcher does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
}

/// What a client wants started.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The agent.
    pub agent: String,
    /// Run as this user in place of the agent's own.
    pub user: Option<String>,
    /// Run as the caller's own user, in the host's view of the files: `--scope`.
    pub scope: bool,
    /// The command's name or path.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The caller's environment, as far as it is for the agent.
    pub env: Vec<(OsString, OsString)>,
    /// Variables that are taken over besides the usual ones.
    pub keep_env: Vec<OsString>,
    /// Which of standard input, output and error are terminals, and get the launcher's in their place.
    pub terminals: [bool; 3],
    /// Rows and columns of the caller's terminal.
    pub size: Option<(u16, u16)>,
    /// Whether the directory is made the agent's.
    pub project: Project,
    /// For each directory that is shared besides: whether the agent may change it.
    pub shares: Vec<bool>,
    /// The mode bits that new files do not get (umask(2)).
    pub umask: u32,
    /// Files of the caller's git configuration that their environment names.
    #[serde(default)]
    pub git_configs: Vec<PathBuf>,
    /// Whether the launcher leaves out what the agent was refused when the command ends. An older launcher does not know it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quiet: bool,
    /// The recipe of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
}

impl Request {
    /// As whom it is.
    pub(super) fn subject(&self) -> Subject {
        let Request { agent, user, recipe, .. } = self;
        Subject { agent: agent.clone(), user: user.clone(), scope: self.scope, recipe: recipe.clone() }
    }
}

/// Without arguments and environment: a person's own credentials may be among them.
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

/// What becomes of the directory that comes with a [`Request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Project {
    /// The command starts there, if its user may.
    Plain,
    /// It is the current directory: the agent may use it as its caller may, once the caller has confirmed it.
    Current {
        /// `$PWD` reaches it through a symbolic link that root did not make: an agent may have put it there.
        linked: bool,
    },
    /// The caller named it.
    Named {
        /// By its physical path, so that no link can have led elsewhere.
        physical: bool,
    },
}

/// What a client asks for while its command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    /// A signal for the command's process group, by number.
    Signal(i32),
    /// The answer to [`Event::Confirm`].
    Answer(bool),
}

/// What the launcher tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Event {
    /// The caller may run the agent: the launcher waits for the [`Request`].
    Permitted,
    /// The command's terminal: its other end is the frame's descriptor.
    Terminal,
    /// Something that the person should know.
    Notice(String),
    /// Asks whether the agent may use this directory, which the caller has not confirmed yet. The client sends an
    /// [`Order::Answer`].
    Confirm(PathBuf),
    /// The command was not started.
    Failed {
        /// The exit code of `run`.
        code: u8,
        /// Why.
        message: String,
    },
    /// The command is stopped, by this signal.
    Stopped(i32),
    /// It ended by itself, with this status.
    Exited(i32),
    /// It was ended by this signal.
    Killed(i32),
}

/// One end of a connection between client and launcher.
#[derive(Debug)]
pub struct Wire(UnixStream);

impl Wire {
    /// Both ends.
    ///
    /// # Errors
    /// socketpair(2)'s.
    pub fn pair() -> io::Result<(Wire, Wire)> {
        let (one, other) = UnixStream::pair()?;
        Ok((Wire(one), Wire(other)))
    }

    /// Connects to the launcher's socket.
    ///
    /// # Errors
    /// connect(2)'s.
    pub fn connect(path: &Path) -> io::Result<Wire> {
        UnixStream::connect(path).map(Wire)
    }

    /// A connection that was accepted.
    pub(super) fn accepted(stream: UnixStream) -> Wire {
        Wire(stream)
    }

    /// Makes [`send`](Self::send) fail when the peer takes nothing for so long; `None` waits for ever.
    pub(super) fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.0.set_write_timeout(limit)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// sendmsg(2)'s; `InvalidInput` for one that is too long.
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

    /// Waits for a frame; `None` when the other end is gone.
    ///
    /// # Errors
    /// recvmsg(2)'s; `InvalidData` for what is no frame of this type.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        self.receive_frame(MAX_FRAME, None)
    }

    /// The same, before `deadline`.
    ///
    /// # Errors
    /// `TimedOut` besides.
    pub(super) fn receive_before<T: DeserializeOwned>(
        &self,
        deadline: &Deadline,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        self.receive_frame(MAX_FRAME, Some(deadline))
    }

    /// What a client that nobody authorised yet sends: little, before `deadline`, and without descriptors.
    ///
    /// # Errors
    /// As [`receive_before`](Self::receive_before).
    pub(super) fn receive_subject(&self, deadline: &Deadline) -> io::Result<Option<Subject>> {
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

    /// Fills `buffer`; `false` at the end of the stream.
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

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The descriptors that came with a message.
fn own(control: impl Iterator<Item = ControlMessageOwned>, all: &mut Vec<OwnedFd>) {
    for part in control {
        if let ControlMessageOwned::ScmRights(descriptors) = part {
            // SAFETY: the kernel has just made these descriptors for this process, and nobody else knows of them.
            all.extend(descriptors.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
}

/// The descriptors of a [`Request`].
#[derive(Debug)]
pub(super) struct Handed {
    /// Standard input, output, error.
    pub(super) standard: [OwnedFd; 3],
    /// The directory that the command starts in.
    pub(super) directory: OwnedFd,
    /// The directories that are shared besides.
    pub(super) shares: Vec<OwnedFd>,
}

impl Handed {
    /// Takes what came with a request. Directories would lead around the private view of the files; sockets of the
    /// network were made outside of the cgroup, and what is sent over them passes no hook.
    pub(super) fn check(descriptors: Vec<OwnedFd>) -> Result<Handed, String> {
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or("the request has too few descriptors");
        let (standard, directory) = ([next()?, next()?, next()?], next()?);
        for (name, descriptor) in ["input", "output", "error"].into_iter().zip(&standard) {
            let kind =
                nix::sys::stat::fstat(descriptor).map_err(|errno| errno.to_string())?.st_mode & libc::S_IFMT;
            if kind == libc::S_IFDIR {
                return Err(format!("standard {name} is a directory"));
            }
            if kind == libc::S_IFSOCK && !is_unix(descriptor.as_fd()) {
                return Err(format!("standard {name} is a network connection made outside: use a pipe"));
            }
        }
        Ok(Handed { standard, directory, shares: descriptors.collect() })
    }

    /// Where the directory is. Empty if it is gone, or in another process's view alone.
    pub(super) fn path(&self) -> PathBuf {
        physical_path(&self.directory).unwrap_or_default()
    }
}

/// The path of a directory in this process's view of the files. None if it is gone, or in another process's view alone.
pub(super) fn physical_path(directory: &OwnedFd) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()?;
    let (there, here) = (nix::sys::stat::stat(&path).ok()?, nix::sys::stat::fstat(directory).ok()?);
    let is_same = (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino);
    (is_same && here.st_mode & libc::S_IFMT == libc::S_IFDIR).then_some(path)
}

fn is_unix(socket: BorrowedFd<'_>) -> bool {
    let mut domain: libc::c_int = 0;
    // A c_int.
    let mut length: libc::socklen_t = 4;
    // SAFETY: the kernel writes at most `length` bytes to `domain`, which is that large.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DOMAIN,
            (&raw mut domain).cast(),
            &raw mut length,
        )
    };
    asked == 0 && domain == libc::AF_UNIX
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn frames_and_descriptors_arrive_in_order() {
        let (one, other) = Wire::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        one.send(&Event::Terminal, &[file.as_fd()]).unwrap();
        one.send(&Event::Exited(3), &[]).unwrap();
        let (first, passed) = other.receive::<Event>().unwrap().unwrap();
        assert_eq!((first, passed.len()), (Event::Terminal, 1));
        let (second, passed) = other.receive::<Event>().unwrap().unwrap();
        assert_eq!((second, passed.len()), (Event::Exited(3), 0));
        drop(one);
        assert!(other.receive::<Event>().unwrap().is_none());
    }

    #[test]
    fn a_long_command_line_arrives_whole() {
        let (one, other) = Wire::pair().unwrap();
        let message = "x".repeat(3 << 20);
        let expected = message.clone();
        let sender = std::thread::spawn(move || one.send(&Event::Notice(message), &[]).unwrap());
        let (got, _) = other.receive::<Event>().unwrap().unwrap();
        sender.join().unwrap();
        assert!(got == Event::Notice(expected));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        use std::io::Write as _;
        for bytes in [&u32::MAX.to_le_bytes()[..], &[2, 0, 0, 0, b'x', b'y'], &[9, 0, 0, 0, b'"']] {
            let (one, other) = Wire::pair().unwrap();
            (&one.0).write_all(bytes).unwrap();
            drop(one);
            assert!(other.receive::<Event>().is_err(), "{bytes:?}");
        }
    }

    /// One byte now and then must not buy more time.
    #[test]
    fn deadline_covers_the_whole_frame() {
        use std::io::Write as _;
        let (slow, other) = Wire::pair().unwrap();
        (&slow.0).write_all(&[200, 0, 0, 0]).unwrap();
        let drip = std::thread::spawn(move || {
            while (&slow.0).write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let deadline = Deadline::after(Duration::from_millis(200)).unwrap();
        let received = other.receive_before::<Event>(&deadline);
        assert_eq!(received.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(other);
        drip.join().unwrap();
    }

    #[test]
    fn subject_is_short_and_has_no_descriptors() {
        let deadline = Deadline::after(Duration::from_secs(5)).unwrap();
        let subject = Subject { agent: "a".to_owned(), user: None, scope: false, recipe: None };
        let (one, other) = Wire::pair().unwrap();
        one.send(&subject, &[]).unwrap();
        assert_eq!(other.receive_subject(&deadline).unwrap(), Some(subject.clone()));
        let file = tempfile::tempfile().unwrap();
        one.send(&subject, &[file.as_fd()]).unwrap();
        assert_eq!(other.receive_subject(&deadline).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (one, other) = Wire::pair().unwrap();
        one.send(&Subject { agent: "a".repeat(MAX_SUBJECT), ..subject }, &[]).unwrap();
        assert_eq!(other.receive_subject(&deadline).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn directories_and_network_sockets_are_no_standard_files() {
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        let directory = || OwnedFd::from(std::fs::File::open("/").unwrap());
        let network = || OwnedFd::from(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let unix = || OwnedFd::from(UnixStream::pair().unwrap().0);
        assert_eq!(Handed::check(vec![file(), unix(), file(), directory()]).unwrap().path(), Path::new("/"));
        let swapped = Handed::check(vec![file(), directory(), file(), directory()]);
        assert!(swapped.unwrap_err().contains("output"));
        assert!(Handed::check(vec![network(), file(), file(), directory()]).unwrap_err().contains("input"));
        assert!(Handed::check(vec![file(), file(), file()]).is_err());
        // What is no directory is nowhere to start in.
        assert_eq!(Handed::check(vec![file(), file(), file(), file()]).unwrap().path(), Path::new(""));
    }
}
