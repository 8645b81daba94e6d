//! A directory that an agent may write, from before a command starts until it has ended.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use onecli_sys::SystemClock;

use crate::executed::{Snapshot, UserConfig};
use crate::files::mount::open_same;
use crate::files::start_time::StartTime;
use crate::files::tree::{Links, Tree};
use crate::process::permitted;
use crate::view::git_dir::{self, Guards};
use crate::view::project::Directory;

/// Files of git configuration that a caller's environment may name.
const MAX_CONFIGS: usize = 4;
/// Total size of the paths of placeholders in a directory, bytes. They are stored in the command's record.
const MAX_PLACEHOLDER_BYTES: usize = 1024 * 1024;

/// A directory and its content before the command.
#[derive(Debug)]
pub(crate) struct WatchedDirectory {
    tree: Tree,
    place: PathBuf,
    before: Snapshot,
    since: StartTime,
    /// The user who works there.
    ids: (u32, u32),
    /// Git configuration of that user, in addition to the usual files.
    configs: Vec<PathBuf>,
    /// Files and directories made for the time of the command, so that a mount has a target.
    placeholders: Vec<PathBuf>,
    /// It is inside another one, which reports it.
    is_inner: bool,
}

impl WatchedDirectory {
    /// Examines the directories that the agent may write and that are not its own. Protects the git directories in
    /// them, unless the agent may change them. `configs` are files of git configuration that the caller's environment
    /// names.
    pub(crate) fn all(
        directories: &mut [Directory],
        may_change_git: bool,
        configs: &[PathBuf],
    ) -> Vec<WatchedDirectory> {
        let mut all: Vec<WatchedDirectory> = Vec::new();
        for directory in directories.iter_mut().filter(|directory| directory.writable) {
            let Some(ids) = directory.ids else { continue };
            let Ok(opened) = open_same(&directory.path, &directory.found) else { continue };
            let mut watched =
                WatchedDirectory::begin(Tree::new(opened.into()), directory.path.clone(), ids, configs);
            let is_whole = may_change_git || watched.make_placeholders();
            if !may_change_git {
                directory.guards = Guards::of(watched.before.git());
            }
            directory.guards.is_unsearched = !is_whole || watched.before.is_cut();
            watched.is_inner = all.iter().any(|other| watched.place.starts_with(&other.place));
            all.push(watched);
        }
        all
    }

    fn begin(tree: Tree, place: PathBuf, ids: (u32, u32), configs: &[PathBuf]) -> WatchedDirectory {
        let configs: Vec<_> = configs.iter().take(MAX_CONFIGS).cloned().collect();
        let since = StartTime::now(&SystemClock);
        let before = Snapshot::take(&tree, &place, &UserConfig::read(ids, &configs));
        WatchedDirectory {
            tree,
            place,
            before,
            since,
            ids,
            configs,
            placeholders: Vec::new(),
            is_inner: false,
        }
    }

    /// Returns the changes that the command made, as lines for the caller.
    pub(crate) fn end(&self) -> Vec<String> {
        if self.is_inner {
            return Vec::new();
        }
        let after = Snapshot::take(&self.tree, &self.place, &UserConfig::read(self.ids, &self.configs));
        self.before.report(&after, &self.place, self.since)
    }

    /// Makes empty files and directories at the paths that the agent could otherwise create. A process with the
    /// caller's rights makes them: root creates nothing at a path that an agent may have redirected. Returns false if
    /// there are too many.
    fn make_placeholders(&mut self) -> bool {
        let git = self.before.git();
        let places = |names: &[&str]| {
            let all = git.repositories.iter().flat_map(|path| names.iter().map(|name| path.join(name)));
            all.collect::<Vec<PathBuf>>()
        };
        let is_missing = |path: &PathBuf| self.tree.stat(path) == Err(Errno::ENOENT);
        let directories = places(&[git_dir::HOOKS, git_dir::INFO, git_dir::REMOTES, git_dir::BRANCHES]);
        let files = [places(&["config", git_dir::ATTRIBUTES]), git.worktree_configs.clone()].concat();
        let mut room = MAX_PLACEHOLDER_BYTES;
        let mut is_whole = true;
        let mut fits = |path: &PathBuf| {
            let left = room.checked_sub(path.as_os_str().len());
            is_whole &= left.is_some();
            room = left.unwrap_or(room);
            left.is_some()
        };
        let directories: Vec<PathBuf> =
            directories.into_iter().filter(is_missing).filter(&mut fits).collect();
        let files: Vec<PathBuf> = files.into_iter().filter(is_missing).filter(&mut fits).collect();
        if directories.is_empty() && files.is_empty() {
            return is_whole;
        }
        // A path that cannot be made stays unprotected; the comparison at the end still covers it.
        let _ = permitted::as_user(self.ids, || {
            for path in &directories {
                let _ = self.make(path, make_directory);
            }
            for path in &files {
                let _ = self.make(path, make_file);
            }
        });
        self.placeholders = [directories, files].concat();
        is_whole
    }

    fn make(&self, path: &Path, make: fn(&OwnedFd, &OsStr) -> nix::Result<()>) -> nix::Result<()> {
        make(&parent(&self.tree, path)?, path.file_name().ok_or(Errno::EINVAL)?)
    }

    /// Returns its path.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// Returns the paths that were made in it for the time of the command, relative to it.
    pub(crate) fn placeholders(&self) -> &[PathBuf] {
        &self.placeholders
    }

    /// Leaves the placeholders in place.
    pub(crate) fn keep_placeholders(&mut self) {
        self.placeholders.clear();
    }
}

impl Drop for WatchedDirectory {
    fn drop(&mut self) {
        for path in self.placeholders.iter().rev() {
            let _ = remove_placeholder(&self.tree, path);
        }
    }
}

/// Removes a placeholder, if it is still empty.
pub(crate) fn remove_placeholder(tree: &Tree, path: &Path) -> nix::Result<()> {
    let parent = parent(tree, path)?;
    let name = path.file_name().ok_or(Errno::EINVAL)?;
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found = fstat(openat(&parent, name, flags, Mode::empty())?)?;
    match found.st_mode & libc::S_IFMT {
        // rmdir(2) removes empty ones.
        libc::S_IFDIR => unlinkat(&parent, name, UnlinkatFlags::RemoveDir),
        libc::S_IFREG if found.st_size == 0 => unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir),
        _ => Ok(()),
    }
}

fn parent(tree: &Tree, path: &Path) -> nix::Result<OwnedFd> {
    let parent = path.parent().unwrap_or(Path::new(""));
    tree.open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY, Links::Refuse)
}

fn make_directory(parent: &OwnedFd, name: &OsStr) -> nix::Result<()> {
    mkdirat(parent, name, Mode::from_bits_truncate(0o755))
}

fn make_file(parent: &OwnedFd, name: &OsStr) -> nix::Result<()> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::from_bits_truncate(0o644)).map(drop)
}
