//! The process at the other end of a Unix socket.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerPidfd;

/// Returns the cgroup of the process that connected `stream`, a Unix socket, found by its pid. The pid may meanwhile
/// belong to another process. The pidfd of the socket (Linux 6.5) shows whether the process that connected still
/// lives. On older kernels this cannot be verified; there, callers rely on the uid and the groups.
///
/// # Errors
/// A sentence with the reason why the cgroup is unknown.
pub fn peer_cgroup(stream: &impl AsFd, pid: i32) -> Result<Option<String>, String> {
    if pid <= 0 {
        return Err("you are in a process namespace that the daemon cannot see".to_owned());
    }
    let pidfd = match getsockopt(stream, PeerPidfd) {
        Ok(pidfd) => Some(pidfd),
        Err(nix::Error::ENOPROTOOPT) => None,
        Err(_) => return Err("the process that connected has ended".to_owned()),
    };
    let path = format!("/proc/{pid}/cgroup");
    let memberships = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    if let Some(pidfd) = pidfd {
        let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ended, PollTimeout::ZERO) != Ok(0) {
            return Err("the process that connected has ended".to_owned());
        }
    }
    Ok(memberships.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned))
}
