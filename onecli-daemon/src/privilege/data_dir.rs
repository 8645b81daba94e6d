//! The data directory: it holds the key, so nobody else may look into it or put things there.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use super::PrivilegeError;

/// Makes the data directory with mode 0700 if it is not there, and refuses one that is not ours alone.
///
/// # Errors
/// [`PrivilegeError`], with the command that puts it right.
pub fn prepare_data_dir(path: &Path) -> Result<(), PrivilegeError> {
    let failed = |source| PrivilegeError::DataDir { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }

    let found = std::fs::metadata(path).map_err(failed)?;
    let own = nix::unistd::geteuid().as_raw();
    let mode = found.mode() & 0o7777;
    if !found.is_dir() {
        Err(PrivilegeError::NotADirectory(path.to_owned()))
    } else if found.uid() != own {
        Err(PrivilegeError::Owner { path: path.to_owned(), owner: found.uid(), own })
    } else if mode & 0o077 != 0 {
        Err(PrivilegeError::Mode { path: path.to_owned(), mode })
    } else {
        Ok(())
    }
}
