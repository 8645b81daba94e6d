//! The way to a place in the agent's view, where something is to be mounted.
//!
//! A part of the way may be the agent's, as its `/tmp` and a project are: a symbolic link there would lead root elsewhere.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};

use nix::fcntl::{OFlag, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, mkdirat, umask};

use super::LaunchUser;

/// A directory, whatever may be done with it.
const LOOK: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Bytes for directories that lead somewhere.
const SIZE: &str = "mode=755,size=1m";

/// Opens the directory at `path`, an absolute one, and makes what is missing on the way for everybody to go through. The
/// first directory on the way that is closed to `user` is covered by an empty one. No symbolic link is followed.
pub(super) fn open(path: &Path, user: &LaunchUser) -> io::Result<OwnedFd> {
    let names: Vec<_> = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let mut here = nix::fcntl::open("/", LOOK, Mode::empty())?;
    for (at, name) in names.iter().enumerate() {
        let mut next = enter(&here, name)?;
        let is_last = at + 1 == names.len();
        if !is_last && !is_open(&File::from(next.try_clone()?).metadata()?, user) {
            cover(&next)?;
            next = enter(&here, name)?;
        }
        here = next;
    }
    Ok(here)
}

fn enter(directory: &OwnedFd, name: &Component<'_>) -> io::Result<OwnedFd> {
    let name = name.as_os_str();
    match openat(directory, name, LOOK, Mode::empty()) {
        Err(nix::Error::ENOENT) => {
            let theirs = umask(Mode::empty());
            let made = mkdirat(directory, name, Mode::from_bits_truncate(0o755));
            umask(theirs);
            match made {
                Ok(()) | Err(nix::Error::EEXIST) => Ok(openat(directory, name, LOOK, Mode::empty())?),
                Err(errno) => Err(errno.into()),
            }
        }
        Err(nix::Error::ELOOP | nix::Error::ENOTDIR) => Err(io::Error::other(format!(
            "{} is no directory there, but a file or a symbolic link that the agent made; remove it",
            name.display()
        ))),
        opened => Ok(opened?),
    }
}

/// Mounts an empty file system on a directory.
fn cover(directory: &OwnedFd) -> io::Result<()> {
    let place = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("onecli"), place.as_str(), Some("tmpfs"), flags, Some(SIZE))?)
}

/// By the mode alone: who is let in by an access control list loses what lies beside the project.
fn is_open(directory: &Metadata, user: &LaunchUser) -> bool {
    let bit = if directory.uid() == user.uid.as_raw() {
        0o100
    } else if user.groups.iter().any(|group| group.as_raw() == directory.gid()) {
        0o010
    } else {
        0o001
    };
    directory.mode() & bit != 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn user() -> LaunchUser {
        let uid = nix::unistd::geteuid();
        let gid = nix::unistd::getegid();
        LaunchUser {
            name: "me".to_owned(),
            uid,
            gid,
            groups: vec![gid],
            home: "/".into(),
            shell: "/bin/sh".into(),
        }
    }

    #[test]
    fn missing_directories_are_made_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(dir.path()).unwrap();
        let way = root.join("a/b");
        open(&way, &user()).unwrap();
        assert_eq!(std::fs::metadata(&way).unwrap().permissions().mode() & 0o777, 0o755);
        std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        for name in ["link", "link/x", "file/x"] {
            assert!(open(&root.join(name), &user()).unwrap_err().to_string().contains("remove it"), "{name}");
        }
        assert!(!Path::new("/etc/x").exists());
    }
}
