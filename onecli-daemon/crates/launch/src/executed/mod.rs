//! Detects changes by an agent to files that other programs execute: git hooks and configuration, editor tasks, package
//! scripts.
//!
//! An agent may write its project. A program that the user later starts there (git, an editor, npm, a shell with
//! direnv) takes commands from files of the project, and runs them as that user. The launcher compares these files
//! before and after a command, and reports the differences.

mod git;
mod git_config;
mod names;
mod print;
mod report;
#[cfg(test)]
mod tests;
mod user_config;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::start::Start;
use super::tree::Tree;
use names::Kind;
use print::Print;
use walk::Walk;

pub(super) use report::cut;
pub(super) use user_config::UserConfig;
pub use user_config::configs_of_environment;

/// The files in a directory that other programs execute. Paths are relative to it.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    files: BTreeMap<PathBuf, Executed>,
    /// Files that have the form git gives them in a linked working tree. A new one is not reported.
    ordinary: BTreeSet<PathBuf>,
    git: GitPlaces,
    /// The directory holds more than the walk examines.
    is_cut: bool,
}

/// A file that other programs execute.
#[derive(Debug)]
struct Executed {
    kind: Kind,
    print: Print,
}

/// The parts of git repositories in a directory.
#[derive(Debug, Default)]
pub(super) struct GitPlaces {
    /// Git directories.
    pub(super) repositories: Vec<PathBuf>,
    /// Directories of linked working trees in git directories.
    pub(super) worktrees: Vec<PathBuf>,
    /// Files in place of a git directory, which contain its path.
    pub(super) git_files: Vec<PathBuf>,
    /// `config.worktree` of the git directories that read it.
    pub(super) worktree_configs: Vec<PathBuf>,
}

/// The change of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Changed,
    New,
    Removed,
    Repository,
}

impl Snapshot {
    /// Takes a snapshot of `tree`, whose absolute path is `place`. `user` is the configuration of the user who works
    /// there.
    pub(super) fn take(tree: &Tree, place: &Path, user: &UserConfig) -> Snapshot {
        Walk::new(tree, place, user).run()
    }

    /// The git repositories in it.
    pub(super) fn git(&self) -> &GitPlaces {
        &self.git
    }

    /// Whether the directory holds more than the walk examined.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    fn changes(&self, after: &Snapshot, since: Start) -> Vec<(PathBuf, Change)> {
        let known: BTreeSet<&PathBuf> = self.git.repositories.iter().collect();
        let made = after.git.repositories.iter().filter(|path| !known.contains(path));
        let made: BTreeSet<&Path> = made.map(PathBuf::as_path).collect();
        // Repositories in a new one are implied.
        let is_in_new = |path: &Path| path.ancestors().any(|place| made.contains(place));
        let mut changes: Vec<_> = made
            .iter()
            .filter(|path| path.parent().is_none_or(|parent| !is_in_new(parent)))
            .map(|path| ((*path).to_owned(), Change::Repository))
            .collect();
        for (path, Executed { print, .. }) in &after.files {
            let change = match self.files.get(path) {
                Some(old) if old.print.is_same(print) => None,
                Some(_) => Some(Change::Changed),
                // If the earlier snapshot was cut, an old file may be missing from it.
                None if self.is_cut && !print.is_since(since) => None,
                None => Some(Change::New).filter(|_| !is_in_new(path) && !after.ordinary.contains(path)),
            };
            changes.extend(change.map(|change| (path.clone(), change)));
        }
        let gone = self.files.iter().filter(|(path, _)| !after.is_cut && !after.files.contains_key(*path));
        // A finished operation or a removed linked working tree: git executes less than before.
        let gone =
            gone.filter(|(path, file)| file.kind != Kind::Interrupted && !self.ordinary.contains(*path));
        changes.extend(gone.map(|(path, _)| (path.clone(), Change::Removed)));
        changes.sort_by(|(one, _), (other, _)| one.cmp(other));
        changes
    }
}
