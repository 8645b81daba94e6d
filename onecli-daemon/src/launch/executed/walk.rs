//! Finds what other programs execute in a directory, what lies near its top first.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use nix::dir::Type;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;

use super::super::tree::{Links, Tree};
use super::names::{DEPENDENCIES, DIRECTORIES, FILES, GIT, GIT_FILES};
use super::print::Print;
use super::{Snapshot, git_config};

/// Entries of directories that are looked at. A large repository with its dependencies has some 100,000.
const MAX_ENTRIES: usize = 200_000;
/// The same of one directory, so that one does not keep others from being looked at.
const MAX_IN_ONE: usize = 20_000;
/// Directories in each other.
const MAX_DEPTH: usize = 64;
/// Files that are compared.
const MAX_FILES: usize = 20_000;
/// Bytes that are read of them.
const MAX_READ: u64 = 64 * 1024 * 1024;
/// Bytes of a git configuration, and of a file that names a git directory.
const MAX_CONFIG: u64 = 1024 * 1024;
/// Values of one git configuration that are looked up as paths.
const MAX_NAMED: usize = 256;

/// Why a directory is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// It may hold anything.
    Plain,
    /// It is a dependency's: git repositories count in it.
    Dependency,
    /// All files in it count.
    Executed,
    /// The same for hooks of git, but for the samples.
    Hooks,
    /// A git directory.
    Git,
    /// Git directories of submodules lie in it.
    Modules,
}

pub(super) struct Walk<'t> {
    tree: &'t Tree,
    /// Absolute path of the tree.
    place: &'t Path,
    found: Snapshot,
    tasks: VecDeque<(PathBuf, Reason)>,
    /// Looked at when all else was.
    dependencies: VecDeque<(PathBuf, Reason)>,
    git: BTreeSet<PathBuf>,
    entries: usize,
    unread: u64,
}

impl<'t> Walk<'t> {
    pub(super) fn new(tree: &'t Tree, place: &'t Path) -> Self {
        Self {
            tree,
            place,
            found: Snapshot::default(),
            tasks: VecDeque::from([(PathBuf::new(), Reason::Plain)]),
            dependencies: VecDeque::new(),
            git: BTreeSet::new(),
            entries: MAX_ENTRIES,
            unread: MAX_READ,
        }
    }

    pub(super) fn run(mut self) -> Snapshot {
        while let Some((path, reason)) = self.tasks.pop_front().or_else(|| self.dependencies.pop_front()) {
            match reason {
                Reason::Plain | Reason::Dependency => self.plain(&path, reason),
                Reason::Executed | Reason::Hooks => self.executed(&path, reason),
                Reason::Git => self.git(&path),
                Reason::Modules => self.modules(&path),
            }
        }
        self.found
    }

    fn later(&mut self, path: PathBuf, reason: Reason) {
        if path.components().count() > MAX_DEPTH {
            self.found.is_cut = true;
        } else if reason == Reason::Dependency {
            self.dependencies.push_back((path, reason));
        } else {
            self.tasks.push_back((path, reason));
        }
    }

    /// What is in a directory, as far as there is room for it.
    fn list(&mut self, path: &Path, links: Links) -> Vec<(OsString, Type)> {
        let Ok(mut entries) = self.tree.entries(path, links) else { return Vec::new() };
        let mut listed = Vec::new();
        for (name, kind) in entries.by_ref().take(self.entries.min(MAX_IN_ONE)) {
            // Some file systems do not say.
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

    /// Names that count are looked for even where a directory has too many others.
    fn look_for_names(&self, path: &Path, listed: &mut Vec<(OsString, Type)>) {
        for name in FILES.iter().chain(DIRECTORIES).chain([&GIT]) {
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
            let is_in = |names: &[&str]| reason == Reason::Plain && names.iter().any(|known| name == *known);
            if name == GIT {
                self.git_entry(&place, kind);
            } else if is_in(FILES) {
                self.record(place);
            } else if is_in(DIRECTORIES) {
                self.record(place.clone());
                self.later(place, Reason::Executed);
            } else if kind == Type::Directory {
                let is_dependency = reason == Reason::Dependency || name == DEPENDENCIES;
                self.later(place, if is_dependency { Reason::Dependency } else { Reason::Plain });
            }
        }
    }

    /// All files below; through a link as well, while it stays in the tree.
    fn executed(&mut self, path: &Path, reason: Reason) {
        for (name, kind) in self.list(path, Links::Follow) {
            let place = path.join(&name);
            let is_sample = reason == Reason::Hooks && name.as_encoded_bytes().ends_with(b".sample");
            match kind {
                Type::Directory => self.later(place, reason),
                _ if is_sample => {}
                _ => self.record(place),
            }
        }
    }

    fn record(&mut self, path: PathBuf) {
        if self.found.files.len() >= MAX_FILES {
            self.found.is_cut = true;
        } else if let Some(print) = Print::take(self.tree, &path, &mut self.unread) {
            self.found.files.insert(path, print);
        }
    }

    /// `.git`: the directory itself, a file that names it (gitrepository-layout(5)), or a link to it.
    fn git_entry(&mut self, path: &Path, kind: Type) {
        self.record(path.to_owned());
        if kind != Type::File {
            return self.later(path.to_owned(), Reason::Git);
        }
        self.found.git.git_files.push(path.to_owned());
        let text = self.tree.read(path, MAX_CONFIG, Links::Refuse).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let named = text.strip_prefix("gitdir:").map(|named| Path::new(named.trim()));
        if let Some(place) = named.and_then(|named| self.place_of(path.parent()?, named)) {
            self.later(place, Reason::Git);
        }
    }

    /// Where a name leads from `directory`, if that is in the tree.
    fn place_of(&self, directory: &Path, name: &Path) -> Option<PathBuf> {
        match name.strip_prefix(self.place) {
            Ok(below) => Some(below.to_owned()),
            Err(_) => Tree::join(directory, name),
        }
    }

    fn git(&mut self, path: &Path) {
        if !self.git.insert(path.to_owned()) || kind_of_target(self.tree, path) != Some(Type::Directory) {
            return;
        }
        self.found.git.repositories.push(path.to_owned());
        for name in GIT_FILES {
            self.record(path.join(name));
        }
        let hooks = path.join("hooks");
        if kind_of(self.tree, &hooks) == Some(Type::Symlink) {
            self.record(hooks.clone());
        }
        self.later(hooks, Reason::Hooks);
        self.later(path.join("modules"), Reason::Modules);
        self.worktrees(&path.join("worktrees"));
        self.configuration(path);
    }

    fn worktrees(&mut self, path: &Path) {
        for (name, kind) in self.list(path, Links::Refuse) {
            let place = path.join(name);
            if kind == Type::Directory {
                for name in GIT_FILES {
                    self.record(place.join(name));
                }
                self.found.git.worktrees.push(place);
            }
        }
    }

    /// What the configuration names.
    fn configuration(&mut self, git: &Path) {
        let read =
            |name: &str| self.tree.read(&git.join(name), MAX_CONFIG, Links::Follow).unwrap_or_default();
        let text = [read("config"), read("config.worktree")].join(&b'\n');
        if git_config::reads_worktree_config(&text) {
            self.found.git.worktree_configs.push(git.join("config.worktree"));
        }
        let parent = git.parent().unwrap_or(git).to_owned();
        let worktree = git_config::worktree(&text).and_then(|named| self.place_of(git, &named));
        let bases = [Some(parent), Some(git.to_owned()), worktree];
        for named in git_config::named(&text).iter().take(MAX_NAMED) {
            for base in bases.iter().flatten() {
                if let Some(place) = self.place_of(base, &named.path) {
                    self.named(place, named.is_hooks);
                }
            }
        }
    }

    fn named(&mut self, place: PathBuf, is_hooks: bool) {
        match kind_of_target(self.tree, &place) {
            Some(Type::File) => self.record(place),
            Some(Type::Directory) if is_hooks && !place.as_os_str().is_empty() => {
                self.later(place, Reason::Hooks);
            }
            _ => {}
        }
    }

    /// Submodules may have names of several parts.
    fn modules(&mut self, path: &Path) {
        let entries = self.list(path, Links::Refuse);
        if is_git_directory(&entries) {
            return self.later(path.to_owned(), Reason::Git);
        }
        for (name, kind) in entries {
            if kind == Type::Directory {
                self.later(path.join(name), Reason::Modules);
            }
        }
    }
}

/// As git judges (`is_git_directory` in setup.c), without a look into them.
fn is_git_directory(entries: &[(OsString, Type)]) -> bool {
    let has = |wanted: &str| entries.iter().any(|(name, _)| name.as_os_str() == OsStr::new(wanted));
    // A linked working tree's has `commondir` in place of the other two.
    has("HEAD") && ((has("objects") && has("refs")) || has("commondir"))
}

fn kind_of(tree: &Tree, path: &Path) -> Option<Type> {
    tree.stat(path).ok().and_then(|found| from_mode(found.st_mode))
}

/// The same of what a link leads to.
fn kind_of_target(tree: &Tree, path: &Path) -> Option<Type> {
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
