//! Git directories, and the files that their configuration names.

use std::path::{Path, PathBuf};

use nix::dir::Type;

use super::git_config::{self, MAX_CONFIG, Named, Use};
use super::names::{GIT_FILES, GIT_INTERRUPTED, GIT_REMOTES, Kind};
use super::walk::{Reason, Walk, is_git_directory, kind_of, kind_of_target};
use crate::files::tree::{Links, Tree};

/// Largest file that names a git directory, bytes: a path (`PATH_MAX`) and the prefix before it.
const MAX_LINK: u64 = 4096 + 64;
/// Nesting of configurations that include each other. Git allows 10.
const MAX_INCLUDES: usize = 10;
/// The content of `commondir` of a linked working tree, as git writes it.
const TO_REPOSITORY: &[u8] = b"../..";

/// A configuration that was read.
#[derive(Debug)]
pub(super) struct Configuration {
    git: PathBuf,
    text: Vec<u8>,
}

impl Walk<'_> {
    /// Handles `.git`: the directory itself, a file that names it (gitrepository-layout(5)), or a link to it.
    pub(super) fn git_entry(&mut self, path: &Path, kind: Type) {
        self.record(path.to_owned(), Kind::Repository);
        let tree = path.parent().unwrap_or(path).to_owned();
        if kind != Type::File {
            return self.working_tree(path.to_owned(), tree);
        }
        self.found.git.git_files.push(path.to_owned());
        let text = self.tree.read(path, MAX_LINK, Links::Refuse).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let named = text.strip_prefix("gitdir:").map(|named| Path::new(named.trim()));
        let Some(place) = named.and_then(|named| self.place_of(&tree, named)) else { return };
        match self.linked_repository(&place) {
            Some(repository) => {
                self.found.ordinary.insert(path.to_owned());
                self.working_tree(repository, tree);
            }
            None => self.working_tree(place, tree),
        }
    }

    fn working_tree(&mut self, git: PathBuf, tree: PathBuf) {
        self.trees.entry(git.clone()).or_default().insert(tree);
        self.later(git, Reason::Git);
    }

    /// Returns the repository to which the git directory of a linked working tree belongs, if it has the form that
    /// `git worktree add` makes.
    fn linked_repository(&self, path: &Path) -> Option<PathBuf> {
        let repository = path.parent().filter(|parent| parent.ends_with("worktrees"))?.parent()?;
        let text = self.tree.read(&path.join("commondir"), MAX_LINK, Links::Refuse)?;
        (text.trim_ascii() == TO_REPOSITORY).then(|| repository.to_owned())
    }

    pub(super) fn git(&mut self, path: &Path) {
        if !self.git.insert(path.to_owned()) || kind_of_target(self.tree, path) != Some(Type::Directory) {
            return;
        }
        if let Some(repository) = self.linked_repository(path) {
            return self.later(repository, Reason::Git);
        }
        self.found.git.repositories.push(path.to_owned());
        self.git_files(path);
        self.directory(path.join("hooks"), Reason::Hooks, Kind::Git);
        for name in GIT_REMOTES {
            self.directory(path.join(name), Reason::Executed(Kind::Git), Kind::Git);
        }
        self.later(path.join("modules"), Reason::Modules);
        self.worktrees(&path.join("worktrees"));
        self.configuration(path);
        // A repository may be at any place in it: `objects` contains directories, too.
        self.later(path.to_owned(), Reason::Dependency);
    }

    /// Records the files that git reads in a git directory, or in that of a linked working tree.
    fn git_files(&mut self, path: &Path) {
        for name in GIT_FILES {
            self.record(path.join(name), Kind::Git);
        }
        for name in GIT_INTERRUPTED {
            self.directory(path.join(name), Reason::Executed(Kind::Interrupted), Kind::Interrupted);
        }
    }

    /// Visits a directory, which may be a link.
    fn directory(&mut self, path: PathBuf, reason: Reason, kind: Kind) {
        if kind_of(self.tree, &path) == Some(Type::Symlink) {
            self.record(path.clone(), kind);
        }
        self.later(path, reason);
    }

    fn worktrees(&mut self, path: &Path) {
        for (name, kind) in self.list(path, Links::Refuse) {
            let place = path.join(name);
            if kind != Type::Directory {
                continue;
            }
            self.git_files(&place);
            if self.linked_repository(&place).is_some() {
                let own = ["commondir", "gitdir"].map(|name| place.join(name));
                self.found.ordinary.extend(own);
            }
            self.found.git.worktrees.push(place);
        }
    }

    fn configuration(&mut self, git: &Path) {
        let text =
            ["config", "config.worktree"].map(|name| self.read_configuration(&git.join(name))).join(&b'\n');
        if git_config::reads_worktree_config(&text) {
            self.found.git.worktree_configs.push(git.join("config.worktree"));
        }
        if let Some(tree) = git_config::worktree(&text).and_then(|named| self.place_of(git, &named)) {
            self.trees.entry(git.to_owned()).or_default().insert(tree);
        }
        self.configurations.push(Configuration { git: git.to_owned(), text });
    }

    fn read_configuration(&mut self, path: &Path) -> Vec<u8> {
        let text = self.tree.read(path, MAX_CONFIG.min(self.unread), Links::Follow).unwrap_or_default();
        self.unread = self.unread.saturating_sub(text.len() as u64);
        self.found.is_cut |= self.unread == 0;
        text
    }

    /// Follows the names in the configurations. All working trees are known by then.
    pub(super) fn follow_configurations(&mut self) {
        for Configuration { git, text } in std::mem::take(&mut self.configurations) {
            let mut places: Vec<PathBuf> = self.trees.get(&git).into_iter().flatten().cloned().collect();
            // Hooks of git-receive-pack(1) run there.
            places.push(git.clone());
            self.follow(&text, &git, &places, MAX_INCLUDES);
        }
        self.follow_user();
    }

    /// Follows the user's own configuration, which applies to every repository. Repositories near the top come first.
    fn follow_user(&mut self) {
        let user = self.user;
        for file in user.files() {
            if let Ok(below) = file.path.strip_prefix(self.place) {
                self.record(below.to_owned(), Kind::Git);
            }
        }
        let names: Vec<Named> =
            user.files().iter().flat_map(|file| git_config::named(file.text.as_bytes())).collect();
        // Its includes are already among the files.
        let names: Vec<&Named> = names.iter().filter(|named| named.used != Use::Include).collect();
        let mut places: Vec<PathBuf> =
            self.trees.values().flatten().chain(&self.found.git.repositories).cloned().collect();
        places.sort_by_key(|place| place.components().count());
        for place in &places {
            for named in &names {
                self.named(&named.path, std::slice::from_ref(place), named.used == Use::Hooks);
            }
            if self.found.is_cut {
                break;
            }
        }
    }

    /// Follows the names in one configuration, in `places`. Files that it includes are relative to `directory`.
    fn follow(&mut self, text: &[u8], directory: &Path, places: &[PathBuf], includes: usize) {
        for named in git_config::named(text) {
            match named.used {
                Use::Include if includes > 0 => self.include(directory, &named.path, places, includes - 1),
                Use::Include => {}
                used => self.named(&named.path, places, used == Use::Hooks),
            }
        }
    }

    fn include(&mut self, directory: &Path, name: &Path, places: &[PathBuf], includes: usize) {
        let name = git_config::expanded(name, self.user.home());
        let place = name.and_then(|name| self.place_of(directory, &name));
        let Some(place) = place.filter(|_| self.may_look()) else { return };
        let text = self.read_configuration(&place);
        self.record(place.clone(), Kind::Git);
        self.follow(&text, place.parent().unwrap_or(Path::new("")), places, includes);
    }

    fn named(&mut self, name: &Path, places: &[PathBuf], is_hooks: bool) {
        let Some(name) = &git_config::expanded(name, self.user.home()) else { return };
        for base in places {
            if !self.may_look() {
                return;
            }
            // A word such as `HEAD` is not a command in the git directory.
            let is_plain = self.git.contains(base) && name.components().count() < 2;
            let place = self.place_of(base, name).filter(|_| is_hooks || !is_plain);
            let Some(place) = place else { continue };
            match kind_of_target(self.tree, &place) {
                Some(Type::File) => self.record(place, Kind::Git),
                Some(Type::Directory) if is_hooks && !place.as_os_str().is_empty() => {
                    self.directory(place, Reason::Hooks, Kind::Git);
                }
                _ => {}
            }
        }
    }

    /// Returns the path of `name` seen from `directory`, if it is in the tree.
    fn place_of(&self, directory: &Path, name: &Path) -> Option<PathBuf> {
        match name.strip_prefix(self.place) {
            Ok(below) => Some(below.to_owned()),
            Err(_) => Tree::join(directory, name),
        }
    }

    /// Visits `modules`. Names of submodules may have several components.
    pub(super) fn modules(&mut self, path: &Path) {
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
