//! Access to a directory that an agent may change meanwhile: no name leads out of it.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{FileStat, fstat};

/// Whether symbolic links within the tree are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// They are followed if they stay in the tree.
    Follow,
    /// They are an error.
    Refuse,
}

/// A directory and everything below it. Paths are relative to it; the empty one is the directory itself.
#[derive(Debug)]
pub(crate) struct Tree(OwnedFd);

impl Tree {
    /// Creates a tree from the open `directory`.
    pub(crate) fn new(directory: OwnedFd) -> Tree {
        Tree(directory)
    }

    /// Opens the file at `path`.
    ///
    /// # Errors
    /// Those of openat2(2): `ELOOP` for a link, `EXDEV` for one that leads out, `EAGAIN` if something was renamed
    /// meanwhile.
    pub(crate) fn open(&self, path: &Path, flags: OFlag, links: Links) -> nix::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let mut flags = flags | OFlag::O_CLOEXEC;
        let mut resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        if links == Links::Refuse {
            resolve |= ResolveFlag::RESOLVE_NO_SYMLINKS;
            flags |= OFlag::O_NOFOLLOW;
        }
        openat2(self.0.as_fd(), path, OpenHow::new().flags(flags).resolve(resolve))
    }

    /// Returns names and types in a directory, in the order of the file system.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub(crate) fn entries(
        &self,
        path: &Path,
        links: Links,
    ) -> nix::Result<impl Iterator<Item = (OsString, Option<Type>)>> {
        let directory = self.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, links)?;
        let entries = Dir::from_fd(directory)?.into_iter().map_while(Result::ok);
        let entries = entries
            .map(|entry| (OsString::from_vec(entry.file_name().to_bytes().to_vec()), entry.file_type()));
        Ok(entries.filter(|(name, _)| name != "." && name != ".."))
    }

    /// Returns the metadata of the file at `path`. If the last component is a link, it is the link's.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub(crate) fn stat(&self, path: &Path) -> nix::Result<FileStat> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let Some(name) = path.file_name() else { return fstat(&self.0) };
        let parent = self.open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY, Links::Follow)?;
        nix::sys::stat::fstatat(&parent, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// Returns the target of a link.
    pub(crate) fn link(&self, path: &Path) -> Option<OsString> {
        let parent = path.parent()?;
        let parent = self.open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY, Links::Follow).ok()?;
        readlinkat(&parent, path.file_name()?).ok()
    }

    /// Reads a regular file of at most `most` bytes. No other type is opened, so a FIFO or a device is not woken.
    pub(crate) fn read(&self, path: &Path, most: u64, links: Links) -> Option<Vec<u8>> {
        let found = fstat(self.open(path, OFlag::O_PATH, links).ok()?).ok()?;
        if found.st_mode & libc::S_IFMT != libc::S_IFREG || u64::try_from(found.st_size).ok()? > most {
            return None;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let mut bytes = Vec::new();
        let file = File::from(self.open(path, flags, links).ok()?);
        file.take(most + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= most).then_some(bytes)
    }

    /// Joins `name` to `directory`, if the result stays in the tree. `..` is resolved as text.
    pub(crate) fn join(directory: &Path, name: &Path) -> Option<PathBuf> {
        let mut joined = directory.to_owned();
        for part in name.components() {
            match part {
                std::path::Component::Normal(name) => joined.push(name),
                std::path::Component::ParentDir if joined.pop() => {}
                std::path::Component::CurDir => {}
                _ => return None,
            }
        }
        Some(joined)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_outside_the_tree_are_not_reached() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("secret"), "x").unwrap();
        fs::write(dir.path().join("file"), "content").unwrap();
        symlink("file", dir.path().join("inner")).unwrap();
        symlink(outside.path().join("secret"), dir.path().join("outer")).unwrap();
        symlink("..", dir.path().join("up")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let tree = Tree::new(File::open(dir.path()).unwrap().into());
        let read = |name: &str, links| tree.read(Path::new(name), 7, links);
        assert_eq!(read("file", Links::Refuse).unwrap(), b"content");
        assert_eq!(read("inner", Links::Follow).unwrap(), b"content");
        for name in ["inner", "outer", "fifo", "up/x", ""] {
            assert_eq!(read(name, Links::Refuse), None, "{name}");
        }
        for name in ["outer", "fifo", "up", "/etc/hostname", "../x"] {
            assert_eq!(read(name, Links::Follow), None, "{name}");
        }
        assert_eq!(tree.read(Path::new("file"), 6, Links::Refuse), None, "too long");
        assert_eq!(tree.link(Path::new("inner")).unwrap(), "file");
        assert_eq!(tree.entries(Path::new(""), Links::Refuse).unwrap().count(), 5);
    }

    #[test]
    fn names_are_joined_within_the_tree() {
        let join = |directory: &str, name: &str| Tree::join(Path::new(directory), Path::new(name));
        assert_eq!(join("a/.git", "../hooks/./x"), Some("a/hooks/x".into()));
        assert_eq!(join("a", ".."), Some("".into()));
        assert_eq!(join("a", "../.."), None);
        assert_eq!(join("a", "/etc"), None);
    }
}
