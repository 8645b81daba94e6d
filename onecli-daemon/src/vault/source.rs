//! Where the root key comes from: a file in the data directory.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::error::VaultError;
use super::keyring::{Key, RootKey};
use crate::model::{PrivateDir, Random};

/// Name of the key file in the data directory.
const FILE: &str = "root.key";
/// Name under which a key file is written before it gets its name. One that is left over was never in use.
const UNFINISHED: &str = "root.key.new";

/// A key file that cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// A system call failed.
    #[error("cannot {action} the key file {}: {source}", path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A symbolic link, directory, pipe or device.
    #[error("the key file {} is no regular file; put the file itself there, not a link", path.display())]
    NotAFile {
        /// The key file.
        path: PathBuf,
    },
    /// Belongs to another user.
    #[error(
        "the key file {} belongs to uid {owner}, but the daemon runs as uid {ours}; fix: chown {ours} {}",
        path.display(),
        path.display()
    )]
    Owner {
        /// The key file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        ours: u32,
    },
    /// Not mode 0400.
    #[error(
        "the key file {} has mode {mode:04o} instead of 0400; fix: chmod 0400 {} (and replace the key if others \
         may have read it)",
        path.display(),
        path.display()
    )]
    Mode {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a key.
    #[error(
        "the key file {} has {found} bytes instead of 32: it is damaged or no key; restore it from its backup",
        path.display()
    )]
    Size {
        /// The key file.
        path: PathBuf,
        /// Its size.
        found: u64,
    },
}

/// A place that holds the root key.
#[derive(Debug, Clone)]
pub struct KeySource {
    dir: PrivateDir,
    path: PathBuf,
}

impl KeySource {
    /// The file `root.key` of a data directory: 32 bytes, ours, mode 0400, no symbolic link.
    pub fn file(dir: &PrivateDir) -> KeySource {
        KeySource { dir: dir.clone(), path: dir.join(FILE) }
    }

    /// Reads the key; `None` where there is none.
    ///
    /// # Errors
    /// [`KeyFileError`] for anything that is there and not a key for our eyes only.
    pub(super) fn load(&self) -> Result<Option<RootKey>, KeyFileError> {
        let path = &self.path;
        // O_NONBLOCK: opening a pipe must not wait for its writer.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // What O_NOFOLLOW answers at a symbolic link (open(2)).
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                return Err(KeyFileError::NotAFile { path: path.clone() });
            }
            Err(error) => return Err(self.failed("open")(error)),
        };
        self.check(&file)?;
        let mut bytes = Key::default();
        file.read_exact(bytes.as_mut()).map_err(self.failed("read"))?;
        Ok(Some(RootKey::new(bytes)))
    }

    fn check(&self, file: &File) -> Result<(), KeyFileError> {
        let path = || self.path.clone();
        let found = file.metadata().map_err(self.failed("inspect"))?;
        let ours = nix::unistd::Uid::effective().as_raw();
        if !found.is_file() {
            return Err(KeyFileError::NotAFile { path: path() });
        }
        if found.uid() != ours {
            return Err(KeyFileError::Owner { path: path(), owner: found.uid(), ours });
        }
        if found.mode() & 0o7777 != 0o400 {
            return Err(KeyFileError::Mode { path: path(), mode: found.mode() & 0o7777 });
        }
        if found.len() != RootKey::LEN as u64 {
            return Err(KeyFileError::Size { path: path(), found: found.len() });
        }
        Ok(())
    }

    /// Makes a key and puts it there: complete and on the disk, or not at all; a key that is there already is
    /// never replaced.
    ///
    /// # Errors
    /// [`VaultError::Random`], [`KeyFileError::Io`].
    pub(super) fn create(&self, random: &dyn Random) -> Result<RootKey, VaultError> {
        let mut bytes = Zeroizing::new([0; RootKey::LEN]);
        random.fill(bytes.as_mut())?;
        let root = RootKey::new(bytes);
        self.write(&root)?;
        Ok(root)
    }

    fn write(&self, root: &RootKey) -> Result<(), KeyFileError> {
        let unfinished = self.dir.join(UNFINISHED);
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.failed("prepare")(error));
            }
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(&unfinished)
            .map_err(self.failed("create"))?;
        file.write_all(root.expose()).map_err(self.failed("write"))?;
        file.sync_all().map_err(self.failed("sync"))?;
        // link(2) fails where the name is taken, rename(2) would replace the key.
        std::fs::hard_link(&unfinished, &self.path).map_err(self.failed("create"))?;
        std::fs::remove_file(&unfinished).map_err(self.failed("finish"))?;
        sync_dir(self.dir.path()).map_err(self.failed("sync the directory of"))
    }

    fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> KeyFileError {
        let path = self.path.clone();
        move |source| KeyFileError::Io { path: path.clone(), action, source }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
