//! Checks that the peer of a socket is the daemon.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use onecli_sys::privilege::Channel;
use socket2::SockRef;

/// Returns the owner of the socket's file, which is the daemon's user (`SocketUser=`, systemd.socket(5)).
pub(crate) fn owner(listener: &OwnedFd) -> io::Result<u32> {
    let address = SockRef::from(listener).local_addr()?;
    let path = address.as_pathname().ok_or_else(|| io::Error::other("the helper's socket has no path"))?;
    Ok(fs::metadata(path)?.uid())
}

/// Checks that the peer is the daemon. Only its user can open the socket, and other processes of that user are
/// refused too.
pub(crate) fn check(daemon: &Channel, user: u32, cgroup: &Path) -> Result<(), String> {
    let (uid, pid) = daemon.peer().map_err(|error| error.to_string())?;
    if uid != user {
        return Err(format!("uid {uid} is not the daemon's"));
    }
    let path = format!("/proc/{pid}/cgroup");
    let memberships = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    if is_within(&memberships, cgroup) {
        Ok(())
    } else {
        Err(format!("process {pid} is not in {}", cgroup.display()))
    }
}

/// Returns whether this `/proc/PID/cgroup` (cgroups(7)) names the cgroup2 cgroup `cgroup` or one below it.
pub(crate) fn is_within(memberships: &str, cgroup: &Path) -> bool {
    let mut paths = memberships.lines().filter_map(|line| line.strip_prefix("0::/"));
    paths.any(|path| Path::new(path).starts_with(cgroup))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_is_matched_by_whole_path_components() {
        let slice = Path::new("onecli.slice/onecli-daemon.slice");
        for (memberships, within) in [
            ("0::/onecli.slice/onecli-daemon.slice/onecli-daemon.service\n", true),
            ("1:name=systemd:/x\n0::/onecli.slice/onecli-daemon.slice\n", true),
            ("0::/onecli.slice/onecli-daemon.slice2/a\n", false),
            ("0::/user.slice/onecli.slice/onecli-daemon.slice\n", false),
            ("1:name=systemd:/onecli.slice/onecli-daemon.slice\n", false),
            ("", false),
        ] {
            assert_eq!(is_within(memberships, slice), within, "{memberships}");
        }
    }
}
