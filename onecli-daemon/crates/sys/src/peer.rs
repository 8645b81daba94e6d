//! Who is at the other end of a Unix socket.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerPidfd;

/// The cgroup of the process that connected `stream`, a Unix socket, by way of its pid. The pid could be another process's by now: the pidfd of the socket
/// (Linux 6.5) tells whether the process that connected still lives. Older kernels have no such proof; there
/// the uid and the groups are what counts.
///
/// # Errors
/// A sentence on why it is not known.
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
