//! Hints for a command that the caller can run but the agent cannot see.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use onecli_launch::{Homes, shown};

/// Returns the options that would make a command in a home directory visible to the agent. The lookup runs as the
/// caller, so it reveals nothing about other users' homes.
pub(crate) fn hint(program: &OsStr) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::path::absolute(onecli_launch::find_program(program, &path)?).ok()?;
    let homes = Homes::of_host(&[nix::unistd::getuid().as_raw()]);
    let hidden = hidden(&found, &std::fs::canonicalize(&found).ok()?, &homes);
    if hidden.is_empty() {
        return None;
    }
    let options = hidden.iter().map(|directory| format!(" --share {}", shown(directory)));
    Some(format!(
        "{} is in a home directory, which agents do not see; to share the command with them, add{}",
        shown(&found),
        options.collect::<String>()
    ))
}

/// Returns the directories of the command and of its link target that are in home directories.
fn hidden(found: &Path, physical: &Path, homes: &Homes) -> BTreeSet<PathBuf> {
    let parent = found.parent().and_then(|parent| std::fs::canonicalize(parent).ok());
    let parents = [parent, physical.parent().map(Path::to_owned)];
    parents.into_iter().flatten().filter(|parent| homes.around(parent).is_some()).collect()
}
