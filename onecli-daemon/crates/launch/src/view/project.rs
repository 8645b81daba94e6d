//! A directory of the caller that the agent may use as its own, by a mount that exchanges the two users.
//!
//! In an id-mapped mount (`MOUNT_ATTR_IDMAP`, `mount_setattr(2)`, Linux 5.12) files of the caller belong to the agent's
//! user, and files that the agent makes there belong to the caller outside. The disk is not changed.
#![allow(unsafe_code, reason = "fork(2)")]

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::FileStat;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pipe, read, write};

use super::git_dir::Guards;
use super::mount_path::MountPaths;
use super::protect::Protected;
use crate::error::LaunchError;
use crate::files::mount::{move_mount, open_directory, open_same, open_tree, set_attributes};
use crate::host::user::LaunchUser;
use crate::text::shown;

/// A directory of the caller that goes into the agent's view.
#[derive(Debug)]
pub(crate) struct Directory {
    /// Metadata of the directory that the caller opened.
    pub(crate) found: FileStat,
    /// Its physical path in this process's view.
    pub(crate) path: PathBuf,
    /// Uid and gid whose files belong to the agent in the view; `None` leaves all owners unchanged.
    pub(crate) ids: Option<(u32, u32)>,
    /// Whether the agent may change its contents.
    pub(crate) writable: bool,
    /// Whether the command is not started without it.
    pub(crate) required: bool,
    /// The paths in it that the agent must not change.
    pub(crate) guards: Guards,
}

/// A directory on its way into the agent's view.
#[derive(Debug)]
pub(crate) struct Mapped<'d> {
    tree: OwnedFd,
    path: PathBuf,
    protected: Protected,
    guards: Option<&'d Guards>,
}

/// The reason why a directory cannot be mapped.
#[derive(Debug)]
pub(crate) struct MappingError(pub(crate) String);

impl<'d> Mapped<'d> {
    /// Makes a mount of a directory, in which the files of its uid and gid belong to the agent. Runs before the process
    /// enters its own view, because the kernel clones only mounts of the caller's view.
    pub(crate) fn new(directory: &'d Directory, user: &LaunchUser) -> Result<Self, MappingError> {
        let path = &directory.path;
        let refused = |step: &str, error: io::Error| {
            MappingError(format!(
                "cannot map {} to user '{}' ({step}: {error}); give it access: setfacl -R -m u:{}:rwX -d -m u:{}:rwX {}",
                shown(path),
                user.name,
                user.name,
                user.name,
                shown(path)
            ))
        };
        let namespace = directory.ids.map(|(uid, gid)| {
            user_namespace(Exchange(uid, user.uid.as_raw()), Exchange(gid, user.gid.as_raw()))
        });
        let namespace = namespace.transpose().map_err(|error| refused("a user namespace", error))?;
        // By path: the kernel copies only mounts of its own namespace, and the caller may be in another.
        let opened = open_same(path, &directory.found).map_err(|error| refused("open", error))?;
        let tree = open_tree(opened.as_fd()).map_err(|error| refused("open_tree", error))?;
        set_attributes(&tree, namespace.as_ref(), directory.writable)
            .map_err(|error| refused("mount_setattr", error))?;
        let mut protected = Protected::find(&opened.into(), path).map_err(MappingError)?;
        protected
            .open_in(&tree)
            .map_err(|why| MappingError(format!("cannot protect a file in {}: {why}", shown(path))))?;
        Ok(Mapped { tree, path: path.to_owned(), protected, guards: Some(&directory.guards) })
    }

    /// Returns a message for the caller about the directory's content.
    pub(crate) fn notice(&self) -> Option<String> {
        self.protected.notice(&self.path)
    }

    /// Makes a mount of `source`, which belongs to root or to the agent, for `path`. Only the agent's commands write
    /// there, so it contains no privileged file.
    pub(crate) fn own(source: &Path, path: &Path) -> io::Result<Self> {
        let tree = open_tree(open_directory(source)?.as_fd())?;
        set_attributes(&tree, None, true)?;
        Ok(Mapped { tree, path: path.to_owned(), protected: Protected::default(), guards: None })
    }

    /// Makes a mount of the agent's home. The home may be older than the agent, and contain privileged files of its
    /// user.
    pub(crate) fn home(source: &Path, path: &Path) -> io::Result<Self> {
        let protected = Protected::find(&open_directory(source)?.into(), source).map_err(io::Error::other)?;
        Ok(Mapped { protected, ..Mapped::own(source, path)? })
    }

    /// Its path in the view.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Attaches the mount at its path, in this process's own view, and protects the paths that the agent must not
    /// change. If the way there is closed to the agent's user, as a home directory is, it is covered by an empty
    /// directory.
    pub(crate) fn attach(
        self,
        user: &LaunchUser,
        paths: &mut MountPaths,
        notice: &mut dyn FnMut(&str),
    ) -> Result<(), LaunchError> {
        let failed =
            |source| LaunchError::View { step: "mounting the agent's own", path: self.path.clone(), source };
        let place = paths.open(&self.path, user).map_err(failed)?;
        move_mount(&self.tree, &place).map_err(failed)?;
        self.protected.apply(&self.tree).map_err(|source| LaunchError::View {
            step: "protecting a set-user-ID file in",
            path: self.path.clone(),
            source,
        })?;
        let Some(guards) = self.guards else { return Ok(()) };
        let unprotected = |(path, source)| LaunchError::View { step: "protecting", path, source };
        guards.place(self.tree, &self.path, notice).map_err(unprotected)
    }
}

/// Two ids that are exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exchange(u32, u32);

impl Exchange {
    /// Returns the content of `/proc/PID/uid_map`: ids on the disk, ids in the mount, count (`user_namespaces(7)`). All
    /// other ids are unchanged. The last id means "no id" and is not mapped.
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

/// Makes a user namespace with these maps, which contains no process.
fn user_namespace(uids: Exchange, gids: Exchange) -> io::Result<OwnedFd> {
    let (ready, tell) = pipe()?;
    let (wait, release) = pipe()?;
    // SAFETY: this process has one thread, and the child calls only the code below.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(release);
            let made = unshare(CloneFlags::CLONE_NEWUSER);
            let _ = write(&tell, &[u8::from(made.is_ok())]);
            // Until the parent has the namespace, or has exited.
            let _ = read(&wait, &mut [0]);
            // SAFETY: ends the process without running cleanup that it shares with its parent.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop((tell, wait));
            let mut made = [0];
            let namespace = read(&ready, &mut made).map_err(io::Error::from).and_then(|_| {
                if made == [0] {
                    return Err(io::Error::other(
                        "the kernel or its limit user.max_user_namespaces refuses it",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_map_exchanges_two_ids_and_leaves_others() {
        assert_eq!(
            Exchange(1000, 990).map(),
            "0 0 990\n991 991 9\n1001 1001 4294966294\n990 1000 1\n1000 990 1\n"
        );
        assert_eq!(Exchange(5, 5).map(), "0 0 5\n5 5 4294967290\n");
        assert_eq!(Exchange(0, 1).map(), "2 2 4294967293\n0 1 1\n1 0 1\n");
    }
}
