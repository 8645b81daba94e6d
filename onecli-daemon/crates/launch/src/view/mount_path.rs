//! The way to a path in the agent's view at which a mount is attached.
//!
//! A part of the way may belong to the agent, as its `/tmp` and a project do: a symbolic link there would redirect
//! root.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, mkdirat, umask};

use crate::host::user::LaunchUser;
use crate::text::shown;

/// Flags that open a directory without any permission on it.
const LOOK: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Directories that are the agent's own in its view. The other directories are on the host's disks, where root creates
/// nothing: a running process of the agent could have moved a directory that is missing there.
const OWN: &[&str] = &["/dev/shm", "/run", "/tmp", "/var/tmp"];
/// Size and mode of file systems for directories on the way.
const SIZE: &str = "mode=755,size=1m";

/// Opens the paths in a view at which mounts are attached.
#[derive(Debug, Default)]
pub(crate) struct MountPaths {
    /// Mounts that are the agent's own, or empty ones that cover directories closed to it. Missing directories are
    /// created there.
    own: Vec<u64>,
}

impl MountPaths {
    /// Opens the directory at `path`, which is absolute. The first directory on the way that is closed to `user` is
    /// covered by an empty one. Missing directories there, and in the agent's own directories, are created so that
    /// every user may enter them. No symbolic link is followed.
    pub(crate) fn open(&mut self, path: &Path, user: &LaunchUser) -> io::Result<OwnedFd> {
        let names: Vec<_> = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let mut here = nix::fcntl::open("/", LOOK, Mode::empty())?;
        let mut walked = PathBuf::from("/");
        for (at, name) in names.iter().enumerate() {
            let mut next = enter(&here, name, &self.own)?;
            walked.push(name);
            let is_last = at + 1 == names.len();
            if !is_last && !is_open(&File::from(next.try_clone()?).metadata()?, user) {
                cover(&next)?;
                next = enter(&here, name, &self.own)?;
                self.own.push(mount_id(&next)?);
            } else if is_own(&walked) && mount_id(&next)? != mount_id(&here)? {
                self.own.push(mount_id(&next)?);
            }
            here = next;
        }
        Ok(here)
    }
}

fn is_own(path: &Path) -> bool {
    OWN.iter().any(|place| path == Path::new(place))
}

fn enter(directory: &OwnedFd, name: &Component<'_>, own: &[u64]) -> io::Result<OwnedFd> {
    let name = name.as_os_str();
    match openat(directory, name, LOOK, Mode::empty()) {
        Err(nix::Error::ENOENT) if own.contains(&mount_id(directory)?) => {
            let theirs = umask(Mode::empty());
            let made = mkdirat(directory, name, Mode::from_bits_truncate(0o755));
            umask(theirs);
            match made {
                Ok(()) | Err(nix::Error::EEXIST) => Ok(openat(directory, name, LOOK, Mode::empty())?),
                Err(errno) => Err(errno.into()),
            }
        }
        Err(nix::Error::ENOENT) => Err(io::Error::other(format!(
            "{} was moved away: end the agent's running processes, and try again",
            shown(Path::new(name))
        ))),
        Err(nix::Error::ELOOP | nix::Error::ENOTDIR) => Err(io::Error::other(format!(
            "{} is not a directory, but a file or a symbolic link that the agent made: remove it",
            shown(Path::new(name))
        ))),
        opened => Ok(opened?),
    }
}

/// Returns the id of the mount in which a file was opened (`proc_pid_fdinfo(5)`).
fn mount_id(file: &OwnedFd) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::other("/proc does not report the mount of an open file"))
}

/// Covers the directory at `path`, if it exists, with one that no user can read. No symbolic link is followed.
pub(crate) fn hide(path: &Path) -> io::Result<()> {
    let root = nix::fcntl::open("/", LOOK, Mode::empty())?;
    let below = path.strip_prefix("/").unwrap_or(path);
    let how = OpenHow::new().flags(LOOK).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let place = match openat2(&root, below, how) {
        Err(nix::Error::ENOENT | nix::Error::ENOTDIR | nix::Error::ELOOP) => return Ok(()),
        opened => opened?,
    };
    let place = format!("/proc/self/fd/{}", place.as_raw_fd());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    Ok(mount(Some("onecli"), place.as_str(), Some("tmpfs"), flags, Some("mode=000,size=4k"))?)
}

/// Mounts an empty file system on a directory.
fn cover(directory: &OwnedFd) -> io::Result<()> {
    let place = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("onecli"), place.as_str(), Some("tmpfs"), flags, Some(SIZE))?)
}

/// Judges by the mode alone: a user who has access through an access control list no longer sees the other files beside
/// the project.
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
        let own = mount_id(&nix::fcntl::open(&root, LOOK, Mode::empty()).unwrap()).unwrap();
        let mut paths = MountPaths { own: vec![own] };
        paths.open(&way, &user()).unwrap();
        assert_eq!(std::fs::metadata(&way).unwrap().permissions().mode() & 0o777, 0o755);
        std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        for name in ["link", "link/x", "file/x"] {
            assert!(
                paths.open(&root.join(name), &user()).unwrap_err().to_string().contains("remove it"),
                "{name}"
            );
        }
        assert!(!Path::new("/etc/x").exists());
    }

    /// A process of the agent may have moved a directory of the host away.
    #[test]
    fn no_directory_is_made_on_host_disks() {
        let dir = tempfile::tempdir_in("/var/lib").unwrap();
        let missing = dir.path().join("moved/project");
        let error = MountPaths::default().open(&missing, &user()).unwrap_err().to_string();
        assert!(error.contains("moved was moved away"), "{error}");
        assert!(!dir.path().join("moved").exists());
    }
}
