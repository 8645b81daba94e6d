//! The files of a directory at one time, and the changes between two times.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::file_version::FileVersion;
use super::names::Kind;
use crate::files::start_time::StartTime;

/// The files in a directory that other programs execute. Paths are relative to it.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(super) files: BTreeMap<PathBuf, Executed>,
    /// Files that have the form git gives them in a linked working tree. A new one is not reported.
    pub(super) ordinary: BTreeSet<PathBuf>,
    pub(super) git: GitPlaces,
    /// The directory holds more than the walk examines.
    pub(super) is_cut: bool,
}

/// A file that other programs execute.
#[derive(Debug)]
pub(super) struct Executed {
    pub(super) kind: Kind,
    pub(super) version: FileVersion,
}

/// The parts of git repositories in a directory.
#[derive(Debug, Default)]
pub(crate) struct GitPlaces {
    /// Git directories.
    pub(crate) repositories: Vec<PathBuf>,
    /// Directories of linked working trees in git directories.
    pub(crate) worktrees: Vec<PathBuf>,
    /// Files in place of a git directory, which contain its path.
    pub(crate) git_files: Vec<PathBuf>,
    /// `config.worktree` of the git directories that read it.
    pub(crate) worktree_configs: Vec<PathBuf>,
}

/// The change of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    Changed,
    New,
    Removed,
    Repository,
}

impl Snapshot {
    /// The git repositories in it.
    pub(crate) fn git(&self) -> &GitPlaces {
        &self.git
    }

    /// Whether the directory holds more than the walk examined.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Returns the changed files from this snapshot to `after`.
    pub(super) fn changes(&self, after: &Snapshot, since: StartTime) -> Vec<(PathBuf, Change)> {
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
        for (path, Executed { version, .. }) in &after.files {
            let change = match self.files.get(path) {
                Some(old) if old.version.is_same(version) => None,
                Some(_) => Some(Change::Changed),
                // If the earlier snapshot was cut, an old file may be missing from it.
                None if self.is_cut && !version.is_since(since) => None,
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
