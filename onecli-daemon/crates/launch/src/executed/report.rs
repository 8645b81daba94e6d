//! Reports changes as lines for the caller. Files that programs execute without a question come first.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::names::{GIT_INTERRUPTED, Kind};
use super::snapshot::{Change, Snapshot};
use super::walk::{MAX_DEPTH, MAX_ENTRIES};
use crate::files::start_time::StartTime;
use crate::text::shown;

/// Files of one kind that a report names. An agent may make many, of one kind or of all.
pub(super) const MAX_REPORTED: usize = 10;

impl Snapshot {
    /// Returns the changes up to `after`, as lines for the caller. `place` is the directory's path, and `since` the
    /// time of this snapshot.
    pub(crate) fn report(&self, after: &Snapshot, place: &Path, since: StartTime) -> Vec<String> {
        let changes = self.changes(after, since);
        let mut lines = Vec::new();
        if !changes.is_empty() {
            lines.push(format!(
                "WARNING: the agent changed files in {} that other programs execute. Read them before you use git, an \
                 editor, npm or a shell there:",
                shown(place)
            ));
        }
        let kinds = Kind::ALL.map(|kind| (kind, self.of_kind(after, kind, &changes, place)));
        for (kind, of_kind) in kinds.iter().filter(|(_, of_kind)| !of_kind.is_empty()) {
            lines.push(format!(" {} ({}):", kind.heading(), of_kind.len()));
            lines.extend(of_kind.iter().take(MAX_REPORTED).cloned());
            if of_kind.len() > MAX_REPORTED {
                lines.push(format!("  and {} more", of_kind.len() - MAX_REPORTED));
            }
        }
        if kinds.iter().any(|(_, of_kind)| of_kind.len() > MAX_REPORTED) {
            lines.push(format!(
                "to list all changes since the start, run in {}: find . -newerct @{}",
                shown(place),
                since.second()
            ));
        }
        if self.is_cut || after.is_cut {
            lines.push(format!(
                "{}, and changes of files that other programs execute may be missing from this list",
                cut(place)
            ));
        }
        lines
    }

    /// Returns lines for the changes of one kind: existing files before new ones, paths near the top first.
    fn of_kind(&self, after: &Snapshot, kind: Kind, all: &[(PathBuf, Change)], place: &Path) -> Vec<String> {
        let mut changes: Vec<_> =
            all.iter().filter(|(path, change)| self.kind(after, path, *change) == kind).collect();
        changes.sort_by_key(|(path, change)| (*change, path.components().count()));
        let mut seen = BTreeSet::new();
        let lines = changes.into_iter().map(|(path, change)| match change {
            _ if kind == Kind::Interrupted => format!("  {}", shown(&place.join(operation(path)))),
            Change::New => format!("  new: {}", shown(&place.join(path))),
            Change::Changed => format!("  changed: {}", shown(&place.join(path))),
            Change::Removed => format!("  removed: {}", shown(&place.join(path))),
            Change::Repository => format!("  new git repository: {}", shown(&place.join(path))),
        });
        lines.filter(|line| seen.insert(line.clone())).collect()
    }

    fn kind(&self, after: &Snapshot, path: &Path, change: Change) -> Kind {
        if change == Change::Repository {
            return Kind::Repository;
        }
        let file = after.files.get(path).or_else(|| self.files.get(path));
        file.map_or(Kind::Git, |file| file.kind)
    }
}

/// The directory of an interrupted operation.
fn operation(path: &Path) -> &Path {
    let is_operation = |path: &&Path| GIT_INTERRUPTED.iter().any(|name| path.ends_with(name));
    path.ancestors().find(is_operation).unwrap_or(path)
}

/// Returns a message that a directory holds more than the launcher examines.
pub(crate) fn cut(place: &Path) -> String {
    format!(
        "{} holds more files than the launcher examines ({MAX_ENTRIES} entries, {MAX_DEPTH} levels): git \
         repositories beyond these are not protected from the agent",
        shown(place)
    )
}
