//! The database file.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use onecli_sys::PrivateDir;

use crate::StoreError;

/// Makes sure that the file exists and is private before SQLite opens it. SQLite gives its `-wal` and `-shm` files
/// the same mode. Returns the path without symbolic links in its directories.
pub(super) fn prepare(path: &Path) -> Result<PathBuf, StoreError> {
    let bad = |problem: String| StoreError::File { path: path.to_owned(), problem };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(bad("is not a file name".to_owned()));
    };
    let path = PrivateDir::create(parent)?.join(name);
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(&path);
    let found = match file.and_then(|file| file.metadata()) {
        Ok(found) => found,
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(bad("is a symbolic link; name the file itself".to_owned()));
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(bad("is not writable by this user".to_owned()));
        }
        Err(error) => return Err(bad(format!("cannot be opened: {error}"))),
    };
    let ours = nix::unistd::Uid::effective().as_raw();
    if !found.is_file() {
        return Err(bad("is not a regular file".to_owned()));
    }
    if found.uid() != ours {
        return Err(bad(format!("belongs to uid {}; fix: chown {ours} {}", found.uid(), path.display())));
    }
    if found.mode() & 0o077 != 0 {
        return Err(bad(format!("is open to other users; fix: chmod 0600 {}", path.display())));
    }
    Ok(path)
}
