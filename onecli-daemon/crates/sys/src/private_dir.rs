//! Directories that other users cannot access.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A directory that was verified to belong to the running user, with no access for group or others. Another user can
/// therefore neither read nor replace files that are created in it. Root still has access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateDir(PathBuf);

/// The reason why a directory was refused.
#[derive(Debug, thiserror::Error)]
pub enum PrivateDirError {
    /// A system call failed.
    #[error("cannot {action} the directory {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The failed action.
        action: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The path exists, but is not a directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The directory belongs to another user.
    #[error(
        "the directory {} belongs to uid {owner}, but the daemon runs as uid {ours}; fix: chown {ours} {}",
        path.display(),
        path.display()
    )]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The daemon's uid.
        ours: u32,
    },
    /// Group or others have access.
    #[error(
        "the directory {} has mode {mode:04o}, so other users can access it; fix: chmod 0700 {}",
        path.display(),
        path.display()
    )]
    Mode {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl PrivateDir {
    /// Checks the directory, and creates it with mode 0700 if it is missing. Missing parents get the default mode.
    /// Symbolic links on the way are followed, and their target is checked.
    ///
    /// # Errors
    /// [`PrivateDirError`]. An existing directory is never changed.
    pub fn create(path: &Path) -> Result<PrivateDir, PrivateDirError> {
        let failed = |action| move |source| PrivateDirError::Io { path: path.to_owned(), action, source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed("create the parents of"))?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("create")(error)),
        }
        PrivateDir::open(path)
    }

    /// Checks an existing directory.
    ///
    /// # Errors
    /// [`PrivateDirError`].
    pub fn open(path: &Path) -> Result<PrivateDir, PrivateDirError> {
        let failed = |action| move |source| PrivateDirError::Io { path: path.to_owned(), action, source };
        let path = path.canonicalize().map_err(failed("find"))?;
        let found = std::fs::symlink_metadata(&path).map_err(failed("inspect"))?;
        let ours = nix::unistd::Uid::effective().as_raw();
        if !found.is_dir() {
            return Err(PrivateDirError::NotADirectory { path });
        }
        if found.uid() != ours {
            return Err(PrivateDirError::Owner { path, owner: found.uid(), ours });
        }
        if found.mode() & 0o077 != 0 {
            return Err(PrivateDirError::Mode { path, mode: found.mode() & 0o7777 });
        }
        Ok(PrivateDir(path))
    }

    /// Returns the directory's path, absolute and without symbolic links.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the path of a file in the directory.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A directory that is removed with the first of the two, for tests.
    ///
    /// # Panics
    /// It cannot be created.
    #[cfg(any(test, feature = "testing"))]
    #[allow(clippy::unwrap_used, reason = "a fixture")]
    pub fn temporary() -> (tempfile::TempDir, PrivateDir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = PrivateDir::create(&temp.path().join("private")).unwrap();
        (temp, dir)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_a_private_directory_is_accepted() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let made = PrivateDir::create(&path).unwrap();
        assert_eq!(std::fs::metadata(made.path()).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(PrivateDir::create(&path).unwrap(), made);

        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o750)).unwrap();
        let error = PrivateDir::create(&path).unwrap_err();
        assert!(error.to_string().contains("fix: chmod 0700"), "{error}");

        let file = temp.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(PrivateDir::create(&file), Err(PrivateDirError::NotADirectory { .. })));
        assert!(matches!(PrivateDir::open(&temp.path().join("none")), Err(PrivateDirError::Io { .. })));
    }
}
