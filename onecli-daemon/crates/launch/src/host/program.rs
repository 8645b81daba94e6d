//! Looks up a command as a shell does.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// Returns the file that `program` names. A name with a `/` is the file itself. Otherwise it is the first file in
/// `path` that this process's user may execute, or else the first that exists.
///
/// execvp(3) fails with "permission denied" for a name that exists nowhere, if a directory of PATH is closed to the
/// user, as directories of root's PATH are.
pub fn find(program: &OsStr, path: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(program)).filter(|file| file.symlink_metadata().is_ok());
    }
    let files =
        || std::env::split_paths(path).map(|directory| directory.join(program)).filter(|file| file.is_file());
    files().find(|file| is_executable(file)).or_else(|| files().next())
}

fn is_executable(file: &Path) -> bool {
    access(file, AccessFlags::X_OK).is_ok()
}
