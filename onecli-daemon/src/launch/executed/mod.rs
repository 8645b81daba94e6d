//! What an agent changed that other programs execute: git hooks and configuration, editor tasks, package scripts.
//!
//! An agent may write its project. A program that somebody starts there later (git, an editor, npm, a shell with direnv)
//! takes commands from files of the project, and runs them as that person. The launcher compares these files before and
//! after a command, and reports the differences.

mod git_config;
mod names;
mod print;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::tree::{Tree, shown};
use print::Print;
use walk::Walk;

/// Files that a report names.
const MAX_REPORTED: usize = 20;

/// The files in a directory that other programs execute. Paths are relative to it.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    files: BTreeMap<PathBuf, Print>,
    git: GitPlaces,
    /// There was more than is looked at.
    is_cut: bool,
}

/// What belongs to git repositories in a directory.
#[derive(Debug, Default)]
pub(super) struct GitPlaces {
    /// Git directories.
    pub(super) repositories: Vec<PathBuf>,
    /// Directories of linked working trees in git directories.
    pub(super) worktrees: Vec<PathBuf>,
    /// Files that stand where a git directory is expected, and name it.
    pub(super) git_files: Vec<PathBuf>,
    /// `config.worktree` of the git directories that read it.
    pub(super) worktree_configs: Vec<PathBuf>,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    New,
    Changed,
    Removed,
    Repository,
}

impl Snapshot {
    /// Of `tree`, whose absolute path is `place`.
    pub(super) fn take(tree: &Tree, place: &Path) -> Snapshot {
        Walk::new(tree, place).run()
    }

    /// Its git repositories.
    pub(super) fn git(&self) -> &GitPlaces {
        &self.git
    }

    /// What changed up to `after`, as lines for the caller. `place` is the directory's path, and `since` the second since
    /// 1970 at which this snapshot was taken.
    pub(super) fn report(&self, after: &Snapshot, place: &Path, since: i64) -> Vec<String> {
        let changes = self.changes(after, since);
        let mut lines = Vec::new();
        if !changes.is_empty() {
            lines.push(format!(
                "WARNING: the agent changed files in {} that other programs execute. Read them before you use git, an \
                 editor, npm or a shell there:",
                shown(place)
            ));
        }
        lines.extend(changes.iter().take(MAX_REPORTED).map(|(path, change)| {
            let path = shown(&place.join(path));
            match change {
                Change::New => format!("  new: {path}"),
                Change::Changed => format!("  changed: {path}"),
                Change::Removed => format!("  removed: {path}"),
                Change::Repository => format!("  new git repository: {path}"),
            }
        }));
        if changes.len() > MAX_REPORTED {
            lines.push(format!("  and {} more", changes.len() - MAX_REPORTED));
        }
        if self.is_cut || after.is_cut {
            lines.push(format!(
                "{} holds more files than the launcher looks at: some changes of files that other programs execute may not \
                 be listed",
                shown(place)
            ));
        }
        lines
    }

    fn changes(&self, after: &Snapshot, since: i64) -> Vec<(PathBuf, Change)> {
        let made: Vec<&PathBuf> =
            after.git.repositories.iter().filter(|path| !self.git.repositories.contains(path)).collect();
        // Those in a new one go without saying.
        let is_in_new = |path: &Path| made.iter().any(|new| path.starts_with(new));
        let mut changes: Vec<_> = made
            .iter()
            .filter(|path| path.parent().is_none_or(|parent| !is_in_new(parent)))
            .map(|path| ((*path).clone(), Change::Repository))
            .collect();
        for (path, print) in &after.files {
            let change = match self.files.get(path) {
                Some(old) if old.is_same(print) => None,
                Some(_) => Some(Change::Changed),
                // Where not all was looked at before, an old file may be new to us.
                None if self.is_cut && !print.is_since(since) => None,
                None => Some(Change::New).filter(|_| !is_in_new(path)),
            };
            changes.extend(change.map(|change| (path.clone(), change)));
        }
        let gone = self.files.keys().filter(|path| !after.is_cut && !after.files.contains_key(*path));
        changes.extend(gone.map(|path| (path.clone(), Change::Removed)));
        changes.sort_by(|(one, _), (other, _)| one.cmp(other));
        changes
    }
}
