//! The file of the admin socket: its path and its permissions.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why the admin socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A file operation failed.
    #[error("cannot open the admin socket: {step} {}: {source}", path.display())]
    File {
        /// The operation that failed.
        step: &'static str,
        /// The path.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The path exists and is not a socket.
    #[error("cannot open the admin socket: {} exists and is not a socket; remove it, or choose another \
             --admin-socket", .0.display())]
    NotASocket(PathBuf),
    /// A daemon already listens on the path.
    #[error("another daemon listens on {}; stop it first, or choose another --admin-socket", .0.display())]
    InUse(PathBuf),
}

/// Opens the admin socket with mode 0666, as the socket unit does. Any user may be a permitted runner of an agent, so
/// every user may connect, and the daemon authorizes each peer. Creates the directory (0755) if it does not exist, and
/// replaces a socket without a listener.
///
/// # Errors
/// [`SocketError`].
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| SocketError::File { step, path, source }
    };
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(failed("creating", directory))?;
        // The daemon's umask (077) removed these bits.
        fs::set_permissions(directory, Permissions::from_mode(0o755))
            .map_err(failed("setting the mode of", directory))?;
    }
    remove_stale(path)?;

    let listener = UnixListener::bind(path).map_err(failed("binding", path))?;
    listener.set_nonblocking(true).map_err(failed("binding", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(failed("setting the mode of", path))?;
    Ok(listener)
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |step| move |source| SocketError::File { step, path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("looking at")(error)),
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("removing the stale socket"))
        }
        Err(error) => Err(failed("asking")(error)),
    }
}
