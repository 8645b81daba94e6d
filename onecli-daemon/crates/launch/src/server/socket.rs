//! The launcher's socket: a process for each client.
#![allow(unsafe_code, reason = "fork(2), and a descriptor that the service manager opened")]

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd as _, FromRawFd as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{ForkResult, fork};
use onecli_sys::peer::peer_cgroup;

use super::client_list::ClientList;
use crate::host::subordinate;
use crate::process::child::leave;
use crate::protocol::wire::LauncherSocket;
use crate::worker::permission::{Authorised, Caller};

/// The default path of the launcher's socket.
pub const DEFAULT_SOCKET: &str = "/run/onecli/launch.sock";

/// Pause after accept(2) or fork(2) failed.
const PAUSE: Duration = Duration::from_millis(100);
/// Interval at which ended commands are counted without a new connection, ms.
const COUNT_EVERY: u16 = 10_000;
/// Interval at which a waiting connection is checked again, ms.
const AGAIN: u16 = 50;
/// The first descriptor that a service manager passes (`sd_listen_fds(3)`).
const FIRST_PASSED: libc::c_int = 3;

/// Reasons why the launcher cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A system call failed.
    #[error("cannot listen on {}: {source}", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// A file of another type has this path, or a launcher answers there.
    #[error("cannot listen on {}: another launcher answers there, or it is not a socket", .0.display())]
    InUse(PathBuf),
    /// The launcher is not root.
    #[error("the launcher must run as root, because it starts commands as other users")]
    NotRoot,
}

/// The launcher's socket for the admin socket `admin`: in the same directory.
pub fn beside(admin: &Path) -> PathBuf {
    admin.with_file_name("launch.sock")
}

/// Returns the socket that the service manager passed, or a new one at `path` to which every process may connect. The
/// daemon decides what each caller may do.
///
/// # Errors
/// [`ServerError`].
pub fn listener(path: &Path) -> Result<UnixListener, ServerError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(ServerError::NotRoot);
    }
    if passed_one() {
        // SAFETY: the service manager passed the descriptor open, and only to this process.
        return Ok(unsafe { UnixListener::from_raw_fd(FIRST_PASSED) });
    }
    let failed = |source| ServerError::Bind { path: path.to_owned(), source };
    if let Ok(found) = fs::symlink_metadata(path) {
        let is_stale = found.file_type().is_socket()
            && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if !is_stale {
            return Err(ServerError::InUse(path.to_owned()));
        }
        fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(listener)
}

/// Whether `LISTEN_PID` and `LISTEN_FDS` pass one socket to this process.
fn passed_one() -> bool {
    let is = |name: &str, expected: u32| {
        std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok()) == Some(expected)
    };
    is("LISTEN_PID", std::process::id()) && is("LISTEN_FDS", 1)
}

/// Forks a process for every client, which runs `work` for it. Returns only on failure.
///
/// # Errors
/// The listener is broken.
pub fn serve(
    listener: &UnixListener,
    work: &dyn Fn(&LauncherSocket, &Caller, Authorised<'_>),
) -> Result<std::convert::Infallible, io::Error> {
    let mut clients = ClientList::default();
    listener.set_nonblocking(true)?;
    loop {
        wait(listener, &clients)?;
        clients.settle();
        match listener.accept() {
            Ok((stream, _)) => {
                if let Ok(caller) = caller(&stream)
                    && stream.set_nonblocking(false).is_ok()
                {
                    let account = subordinate::owner(caller.uid);
                    clients.add(stream, caller, account);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => std::thread::sleep(PAUSE),
        }
        if clients.start(work).is_err() {
            std::thread::sleep(PAUSE);
        }
    }
}

/// Waits until a process connects, a caller is authorised or a command ended (noticed a little later).
fn wait(listener: &UnixListener, clients: &ClientList) -> io::Result<()> {
    let mut waiting = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    waiting.extend(clients.gates().map(|gate| PollFd::new(gate, PollFlags::POLLIN)));
    let patience = if clients.is_full() { AGAIN } else { COUNT_EVERY };
    match poll(&mut waiting, PollTimeout::from(patience)) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Identifies the process at the other end of `stream`.
fn caller(stream: &UnixStream) -> Result<Caller, String> {
    let credentials = getsockopt(stream, PeerCredentials).map_err(|errno| errno.to_string())?;
    let cgroup = peer_cgroup(stream, credentials.pid())?;
    Ok(Caller { uid: credentials.uid(), gid: credentials.gid(), cgroup })
}

/// Runs `work` in a child process of the caller. Returns the other end of the socket. For root, who needs no launcher.
///
/// # Errors
/// Those of fork(2).
pub fn in_process(work: impl FnOnce(&LauncherSocket, &Caller)) -> io::Result<LauncherSocket> {
    let (ours, theirs) = LauncherSocket::pair()?;
    let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let cgroup = crate::process::cgroup::unified_path(&memberships).map(str::to_owned);
    let caller =
        Caller { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw(), cgroup };
    // SAFETY: the process has one thread, so the child finds every lock as this thread left it.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(ours);
            leave(|| work(&theirs, &caller))
        }
        ForkResult::Parent { .. } => Ok(ours),
    }
}
