//! Searches a directory for files that other programs execute. Those near its top come first.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;

use super::file_version::FileVersion;
use super::git::Configuration;
use super::names::{DEPENDENCIES, DIRECTORIES, FILES, GIT, Kind};
use super::snapshot::{Executed, Snapshot};
use super::user_config::UserConfig;
use crate::files::tree::{Links, Tree};

/// Entries of directories that are examined. A large repository with its dependencies has about 100,000.
pub(super) const MAX_ENTRIES: usize = 200_000;
/// Entries of one directory that are examined, so that one directory does not use up the limit.
const MAX_IN_ONE: usize = 20_000;
/// Nesting of directories.
pub(super) const MAX_DEPTH: usize = 64;
/// Files that are compared.
const MAX_FILES: usize = 20_000;
/// Bytes that are read from them.
const MAX_READ: u64 = 64 * 1024 * 1024;
/// Names in git configurations that are looked up, about 3 µs each.
const MAX_NAMED: usize = 50_000;

/// The reason why a directory is examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It may hold any files.
    Plain,
    /// It belongs to a dependency, or is in a git directory: only git repositories count in it.
    Dependency,
    /// All files in it count.
    Executed(Kind),
    /// All files in it count as hooks of git, except the samples.
    Hooks,
    /// A git directory.
    Git,
    /// It contains git directories of submodules.
    Modules,
}

pub(super) struct Walk<'t> {
    pub(super) tree: &'t Tree,
    /// Absolute path of the tree.
    pub(super) place: &'t Path,
    /// The user's own configuration.
    pub(super) user: &'t UserConfig,
    pub(super) found: Snapshot,
    tasks: VecDeque<(PathBuf, Reason)>,
    /// Directories that are examined after all others.
    dependencies: VecDeque<(PathBuf, Reason)>,
    /// Directories that were examined as git directories.
    pub(super) git: BTreeSet<PathBuf>,
    /// Working trees of git directories.
    pub(super) trees: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
    pub(super) configurations: Vec<Configuration>,
    entries: usize,
    pub(super) unread: u64,
    /// Number of names that may still be looked up.
    names: usize,
}

impl Snapshot {
    /// Takes a snapshot of `tree`, whose absolute path is `place`. `user` is the configuration of the user who works
    /// there.
    pub(crate) fn take(tree: &Tree, place: &Path, user: &UserConfig) -> Snapshot {
        Walk::new(tree, place, user).run()
    }
}

impl<'t> Walk<'t> {
    pub(super) fn new(tree: &'t Tree, place: &'t Path, user: &'t UserConfig) -> Self {
        Self {
            tree,
            place,
            user,
            found: Snapshot::default(),
            tasks: VecDeque::from([(PathBuf::new(), Reason::Plain)]),
            dependencies: VecDeque::new(),
            git: BTreeSet::new(),
            trees: BTreeMap::new(),
            configurations: Vec::new(),
            entries: MAX_ENTRIES,
            unread: MAX_READ,
            names: MAX_NAMED,
        }
    }

    pub(super) fn run(mut self) -> Snapshot {
        self.look_at_tasks();
        self.follow_configurations();
        self.look_at_tasks();
        self.found
    }

    fn look_at_tasks(&mut self) {
        while let Some((path, reason)) = self.tasks.pop_front().or_else(|| self.dependencies.pop_front()) {
            match reason {
                Reason::Plain | Reason::Dependency => self.plain(&path, reason),
                Reason::Executed(_) | Reason::Hooks => self.executed(&path, reason),
                Reason::Git => self.git(&path),
                Reason::Modules => self.modules(&path),
            }
        }
    }

    pub(super) fn later(&mut self, path: PathBuf, reason: Reason) {
        if path.components().count() > MAX_DEPTH {
            self.found.is_cut = true;
        } else if reason == Reason::Dependency {
            self.dependencies.push_back((path, reason));
        } else {
            self.tasks.push_back((path, reason));
        }
    }

    /// Lists a directory, within the remaining limits.
    pub(super) fn list(&mut self, path: &Path, links: Links) -> Vec<(OsString, Type)> {
        let mut entries = match self.tree.entries(path, links) {
            Ok(entries) => entries,
            // Removed by now, or a link that is dangling or points out of the tree.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => return Vec::new(),
            Err(_) => {
                self.found.is_cut = true;
                return Vec::new();
            }
        };
        let mut listed = Vec::new();
        for (name, kind) in entries.by_ref().take(self.entries.min(MAX_IN_ONE)) {
            // Some file systems do not report the type.
            let kind = kind.or_else(|| kind_of(self.tree, &path.join(&name)));
            listed.extend(kind.map(|kind| (name, kind)));
        }
        let is_cut = entries.next().is_some();
        self.found.is_cut |= is_cut;
        if is_cut && self.entries > 0 {
            self.look_for_names(path, &mut listed);
        }
        self.entries = self.entries.saturating_sub(listed.len());
        listed
    }

    /// Looks up the names that count if a directory has too many other entries.
    fn look_for_names(&self, path: &Path, listed: &mut Vec<(OsString, Type)>) {
        let names = FILES.iter().chain(DIRECTORIES).map(|(name, _)| *name);
        for name in names.chain([GIT]) {
            let is_listed = listed.iter().any(|(other, _)| other == name);
            if let Some(kind) = kind_of(self.tree, &path.join(name)).filter(|_| !is_listed) {
                listed.push((name.into(), kind));
            }
        }
    }

    fn plain(&mut self, path: &Path, reason: Reason) {
        let entries = self.list(path, Links::Refuse);
        if is_git_directory(&entries) {
            self.later(path.to_owned(), Reason::Git);
        }
        for (name, kind) in entries {
            let place = path.join(&name);
            let of = |known: &[(&str, Kind)]| {
                let found = known.iter().find(|(known, _)| reason == Reason::Plain && name == *known);
                found.map(|(_, kind)| *kind)
            };
            if name == GIT {
                self.git_entry(&place, kind);
            } else if let Some(kind) = of(FILES) {
                self.record(place, kind);
            } else if let Some(kind) = of(DIRECTORIES) {
                self.record(place.clone(), kind);
                self.later(place, Reason::Executed(kind));
            } else if kind == Type::Directory {
                let is_dependency = reason == Reason::Dependency || name == DEPENDENCIES;
                self.later(place, if is_dependency { Reason::Dependency } else { Reason::Plain });
            }
        }
    }

    /// Visits all files below, also through a link that stays in the tree.
    fn executed(&mut self, path: &Path, reason: Reason) {
        let executed_by = if let Reason::Executed(kind) = reason { kind } else { Kind::Git };
        for (name, kind) in self.list(path, Links::Follow) {
            let place = path.join(&name);
            let is_sample = reason == Reason::Hooks && name.as_encoded_bytes().ends_with(b".sample");
            match kind {
                Type::Directory => self.later(place, reason),
                _ if is_sample => {}
                _ => self.record(place, executed_by),
            }
        }
    }

    pub(super) fn record(&mut self, path: PathBuf, kind: Kind) {
        let is_full = self.found.files.len() >= MAX_FILES;
        match self.found.files.entry(path) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.kind = known.kind.min(kind);
            }
            Entry::Vacant(_) if is_full => self.found.is_cut = true,
            Entry::Vacant(place) => {
                if let Some(version) = FileVersion::take(self.tree, place.key(), &mut self.unread) {
                    place.insert(Executed { kind, version });
                }
            }
        }
    }

    /// Whether one more name may be looked up.
    pub(super) fn may_look(&mut self) -> bool {
        self.found.is_cut |= self.names == 0;
        self.names = self.names.saturating_sub(1);
        self.names > 0
    }
}

/// Judges as git does (`is_git_directory` in setup.c), without opening the entries.
pub(super) fn is_git_directory(entries: &[(OsString, Type)]) -> bool {
    let has = |wanted: &str| entries.iter().any(|(name, _)| name.as_os_str() == OsStr::new(wanted));
    // The git directory of a linked working tree has `commondir` instead of the other two.
    has("HEAD") && ((has("objects") && has("refs")) || has("commondir"))
}

pub(super) fn kind_of(tree: &Tree, path: &Path) -> Option<Type> {
    tree.stat(path).ok().and_then(|found| from_mode(found.st_mode))
}

/// Returns the type of the file that a link points to.
pub(super) fn kind_of_target(tree: &Tree, path: &Path) -> Option<Type> {
    let opened = tree.open(path, OFlag::O_PATH, Links::Follow).ok()?;
    from_mode(fstat(opened).ok()?.st_mode)
}

fn from_mode(mode: u32) -> Option<Type> {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => Some(Type::Directory),
        libc::S_IFREG => Some(Type::File),
        libc::S_IFLNK => Some(Type::Symlink),
        libc::S_IFIFO => Some(Type::Fifo),
        _ => None,
    }
}
