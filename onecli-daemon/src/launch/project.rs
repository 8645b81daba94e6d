//! A directory of the caller's that the agent may use as its own, by a mount that exchanges the two users.
//!
//! In an id-mapped mount (`MOUNT_ATTR_IDMAP`, `mount_setattr(2)`, Linux 5.12) files of the caller's belong to the agent's
//! user, and what the agent makes there belongs to the caller outside. Nothing on the disk is changed for it.
#![allow(unsafe_code, reason = "open_tree(2), mount_setattr(2) and move_mount(2) have no wrappers")]

use std::ffi::CString;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::FileStat;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pipe, read, write};

use super::mounts::{directories, tmpfs};
use super::{LaunchError, LaunchUser};

/// linux/fcntl.h, linux/mount.h; the libc crate does not name them.
const AT_RECURSIVE: libc::c_int = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;

/// A directory on its way into the agent's view.
#[derive(Debug)]
pub(super) struct Mapped {
    tree: OwnedFd,
    path: PathBuf,
}

/// Why a directory stays as it is.
#[derive(Debug)]
pub(super) struct Unmapped(pub(super) String);

impl Mapped {
    /// Makes a mount of the directory that the caller opened, which is at `path`, in which the files of this uid and gid are the agent's. Comes before
    /// the process goes into a view of its own: the kernel clones mounts of its own view only.
    pub(super) fn new(
        directory: &FileStat,
        path: &Path,
        (uid, gid): (u32, u32),
        user: &LaunchUser,
    ) -> Result<Mapped, Unmapped> {
        let refused = |step: &str, error: io::Error| {
            Unmapped(format!(
                "cannot map {} to user '{}' ({step}: {error}); give it access: setfacl -R -m u:{}:rwX -d -m u:{}:rwX {}",
                path.display(),
                user.name,
                user.name,
                user.name,
                path.display()
            ))
        };
        let uids = Exchange(uid, user.uid.as_raw());
        let gids = Exchange(gid, user.gid.as_raw());
        let namespace = user_namespace(uids, gids).map_err(|error| refused("a user namespace", error))?;
        // By path: the kernel copies mounts of our own namespace alone, and the caller may be in another.
        let opened = open_same(path, directory).map_err(|error| refused("open", error))?;
        let tree = open_tree(opened.as_fd()).map_err(|error| refused("open_tree", error))?;
        map_ids(&tree, &namespace).map_err(|error| refused("mount_setattr", error))?;
        Ok(Mapped { tree, path: path.to_owned() })
    }

    /// Puts the mount where the directory is, in this process's own view. Where the way there is closed to the agent's
    /// user, as a home directory is, it is made anew with nothing else on it.
    pub(super) fn attach(self, user: &LaunchUser) -> Result<(), LaunchError> {
        let failed =
            |source| LaunchError::View { step: "mounting the project", path: self.path.clone(), source };
        let closed = self.path.parent().and_then(|parent| first_closed(parent, user));
        if let Some(closed) = &closed {
            tmpfs(closed, "mode=755,size=1m")?;
        }
        directories(&self.path)?;
        move_mount(&self.tree, &self.path).map_err(failed)
    }
}

/// May the agent have the directory at `path`, because somebody stands in it who says nothing more? One that holds
/// more than a project may not: root's, a home directory, what a home directory lies in.
pub(super) fn is_project(path: &Path, owner: u32, home: Option<&Path>) -> bool {
    let home = home.and_then(|home| fs::canonicalize(home).ok());
    let holds_home = home.is_some_and(|home| home.starts_with(path));
    owner != 0 && !holds_home && path.parent().is_some()
}

/// The first directory on the way to `path` that the user cannot go through.
fn first_closed(path: &Path, user: &LaunchUser) -> Option<PathBuf> {
    let mut way: Vec<&Path> = path.ancestors().collect();
    way.reverse();
    way.into_iter()
        .find(|step| fs::metadata(step).is_ok_and(|found| !is_open(&found, user)))
        .map(Path::to_owned)
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

/// Two ids that stand for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exchange(u32, u32);

impl Exchange {
    /// `/proc/PID/uid_map`: ids on the disk, ids in the mount, how many (`user_namespaces(7)`). All others stay as they
    /// are. The last id stands for none.
    fn map(self) -> String {
        let Exchange(one, other) = self;
        let (low, high) = (one.min(other), one.max(other));
        let mut lines = Vec::new();
        let mut keep = |from: u32, to: u32| {
            if from < to {
                lines.push((from, from, to - from));
            }
        };
        keep(0, low);
        if low == high {
            keep(low, u32::MAX);
        } else {
            keep(low + 1, high);
            keep(high + 1, u32::MAX);
            lines.extend([(low, high, 1), (high, low, 1)]);
        }
        let lines = lines.iter().map(|(disk, mount, count)| format!("{disk} {mount} {count}\n"));
        lines.collect::<Vec<_>>().concat()
    }
}

/// A user namespace with these maps, in which no process is.
fn user_namespace(uids: Exchange, gids: Exchange) -> io::Result<OwnedFd> {
    let (ready, tell) = pipe()?;
    let (wait, release) = pipe()?;
    // SAFETY: this process has one thread, and the child calls nothing but what is below.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(release);
            let made = unshare(CloneFlags::CLONE_NEWUSER);
            let _ = write(&tell, &[u8::from(made.is_ok())]);
            // Until the parent has the namespace, or is gone.
            let _ = read(&wait, &mut [0]);
            // SAFETY: ends the process, and runs nothing of what it shares with its parent.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop((tell, wait));
            let mut made = [0];
            let namespace = read(&ready, &mut made).map_err(io::Error::from).and_then(|_| {
                if made == [0] {
                    return Err(io::Error::other(
                        "the kernel or its limit user.max_user_namespaces refuses one",
                    ));
                }
                fs::write(format!("/proc/{child}/uid_map"), uids.map())?;
                fs::write(format!("/proc/{child}/gid_map"), gids.map())?;
                fs::File::open(format!("/proc/{child}/ns/user"))
            });
            drop(release);
            let _ = waitpid(child, None);
            Ok(namespace?.into())
        }
    }
}

/// What is at `path`, if it is the directory that the caller opened.
fn open_same(path: &Path, expected: &FileStat) -> io::Result<fs::File> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let opened = fs::File::options().read(true).custom_flags(flags).open(path)?;
    let found = opened.metadata()?;
    if (found.dev(), found.ino()) == (expected.st_dev, expected.st_ino) {
        Ok(opened)
    } else {
        Err(io::Error::other("another directory is there for the launcher"))
    }
}

/// A copy of the mount that holds `directory`, with it as its root, and of the mounts below.
fn open_tree(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | libc::AT_EMPTY_PATH.cast_unsigned()
        | AT_RECURSIVE.cast_unsigned();
    // SAFETY: the path is a C string that lives as long as the call.
    let opened = unsafe { libc::syscall(libc::SYS_open_tree, directory.as_raw_fd(), c"".as_ptr(), flags) };
    let opened = RawFd::try_from(opened).unwrap_or(-1);
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

fn map_ids(tree: &OwnedFd, namespace: &OwnedFd) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(namespace.as_raw_fd().cast_unsigned()),
    };
    let flags = libc::AT_EMPTY_PATH | AT_RECURSIVE;
    // SAFETY: path and attributes live as long as the call, and the size is the attributes'.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn move_mount(tree: &OwnedFd, place: &Path) -> io::Result<()> {
    let place = CString::new(place.as_os_str().as_bytes())?;
    // SAFETY: both paths are C strings that live as long as the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            place.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ids_change_places_and_the_others_stay() {
        assert_eq!(
            Exchange(1000, 990).map(),
            "0 0 990\n991 991 9\n1001 1001 4294966294\n990 1000 1\n1000 990 1\n"
        );
        assert_eq!(Exchange(5, 5).map(), "0 0 5\n5 5 4294967290\n");
        assert_eq!(Exchange(0, 1).map(), "2 2 4294967293\n0 1 1\n1 0 1\n");
    }

    #[test]
    fn what_holds_more_than_a_project_is_not_given_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(dir.path()).unwrap();
        let project = home.join("src/project");
        for (path, owner, expected) in [
            (project.as_path(), 1000, true),
            (project.as_path(), 0, false),
            (home.as_path(), 1000, false),
            (home.parent().unwrap(), 1000, false),
            (Path::new("/"), 1000, false),
            (Path::new("/srv/project"), 1000, true),
        ] {
            assert_eq!(is_project(path, owner, Some(&home)), expected, "{} {owner}", path.display());
        }
    }
}
