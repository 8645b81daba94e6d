//! Where the key comes from that opens a slot: a credential of systemd's, a key file, a passphrase, the environment.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use onecli_model::Random;
use onecli_sys::PrivateDir;
use zeroize::Zeroizing;

use super::error::VaultError;
use super::keyring::{Key, SlotKey, random_key};
use super::slots::Opener;

/// Name of the key file in the data directory.
const FILE: &str = "root.key";
/// Name under which a key file is written before it gets its name.
const NEXT: &str = "root.key.new";
/// Names of the credentials, in the directory that systemd names (`$CREDENTIALS_DIRECTORY`, systemd.exec(5)).
const CREDENTIAL_KEY: &str = "onecli.key";
const CREDENTIAL_PASSPHRASE: &str = "onecli.passphrase";
/// Longer is no passphrase but a wrong file.
const MAX_PASSPHRASE: usize = 1024;
/// How many bytes a key has.
const KEY_LEN: usize = 32;

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
    /// Not a passphrase.
    #[error("the passphrase in {} is empty, longer than 1024 bytes, or no UTF-8 text", path.display())]
    Passphrase {
        /// The file.
        path: PathBuf,
    },
    /// Not a key in base64.
    #[error("the variable {name} holds no key: 32 bytes in base64")]
    Variable {
        /// The environment variable.
        name: &'static str,
    },
}

/// Who may look at a file.
#[derive(Clone, Copy, PartialEq)]
enum Care {
    /// Ours, mode 0400.
    Ours,
    /// Put there for us by systemd, which says with what mode.
    Given,
}

/// The places that may hold what opens the vault, in the order in which they are tried: a credential of systemd's, the key
/// file, a passphrase, the environment.
#[derive(Clone)]
pub struct KeySource {
    dir: PrivateDir,
    path: PathBuf,
    credentials: Option<PathBuf>,
    passphrase: Option<(String, Zeroizing<String>)>,
    variable: Option<(&'static str, Key)>,
}

impl KeySource {
    /// The file `root.key` of a data directory: 32 bytes, ours, mode 0400, no symbolic link.
    pub fn file(dir: &PrivateDir) -> KeySource {
        KeySource {
            dir: dir.clone(),
            path: dir.join(FILE),
            credentials: None,
            passphrase: None,
            variable: None,
        }
    }

    /// Also the credentials `onecli.key` and `onecli.passphrase` in this directory.
    #[must_use]
    pub fn with_credentials(mut self, dir: PathBuf) -> KeySource {
        self.credentials = Some(dir);
        self
    }

    /// Also the passphrase or recovery key in this file; `-` is standard input. It is read now.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn with_passphrase_file(mut self, path: &Path) -> Result<KeySource, KeyFileError> {
        let text = if path == Path::new("-") {
            read_text(io::stdin().lock(), path)?
        } else {
            let file = open(path)?.ok_or_else(|| failed(path, "open")(io::ErrorKind::NotFound.into()))?;
            let found = file.metadata().map_err(failed(path, "inspect"))?;
            let ours = nix::unistd::Uid::effective().as_raw();
            if found.is_file() && found.uid() != ours {
                return Err(KeyFileError::Owner { path: path.to_owned(), owner: found.uid(), ours });
            }
            if found.is_file() && found.mode() & 0o077 != 0 {
                return Err(KeyFileError::Mode { path: path.to_owned(), mode: found.mode() & 0o7777 });
            }
            read_text(file, path)?
        };
        self.passphrase = Some((path.display().to_string(), text));
        Ok(self)
    }

    /// Also a key in base64, from an environment variable: everybody who may read this process's environment has it.
    ///
    /// # Errors
    /// [`KeyFileError::Variable`].
    pub fn with_variable(mut self, name: &'static str, text: &str) -> Result<KeySource, KeyFileError> {
        let bytes = data_encoding::BASE64.decode(text.trim().as_bytes()).map(Zeroizing::new);
        let key = bytes.ok().and_then(|bytes| bytes.as_slice().try_into().ok()).map(Zeroizing::new);
        self.variable = Some((name, key.ok_or(KeyFileError::Variable { name })?));
        Ok(self)
    }

    /// Looks at one place after the other until `take` is content with what it is given; tells which.
    ///
    /// # Errors
    /// `take`'s, and [`KeyFileError`] for anything that is there and not for our eyes only.
    pub(super) fn find<T>(
        &self,
        mut take: impl FnMut(&str, Opener) -> Result<Option<T>, VaultError>,
    ) -> Result<Option<(String, T)>, VaultError> {
        let mut offer = |at: String, opener: Opener| -> Result<Option<(String, T)>, VaultError> {
            Ok(take(&at, opener)?.map(|taken| (at, taken)))
        };
        if let Some(dir) = &self.credentials {
            let path = dir.join(CREDENTIAL_KEY);
            if let Some(key) = read_key(&path, Care::Given)?
                && let Some(found) = offer(path.display().to_string(), Opener::Key(key))?
            {
                return Ok(Some(found));
            }
        }
        if let Some(key) = self.load()?
            && let Some(found) = offer(self.path.display().to_string(), Opener::Key(key))?
        {
            return Ok(Some(found));
        }
        if let Some(dir) = &self.credentials {
            let path = dir.join(CREDENTIAL_PASSPHRASE);
            if let Some(file) = open(&path)?
                && let Some(found) = offer(path.display().to_string(), Opener::Text(read_text(file, &path)?))?
            {
                return Ok(Some(found));
            }
        }
        if let Some((at, text)) = &self.passphrase
            && let Some(found) = offer(at.clone(), Opener::Text(text.clone()))?
        {
            return Ok(Some(found));
        }
        if let Some((name, key)) = &self.variable
            && let Some(found) = offer(format!("the variable {name}"), Opener::Key(SlotKey(key.clone())))?
        {
            return Ok(Some(found));
        }
        Ok(None)
    }

    /// The key in the key file; `None` where there is none.
    pub(super) fn load(&self) -> Result<Option<SlotKey>, KeyFileError> {
        read_key(&self.path, Care::Ours)
    }

    /// Where the key file is, or would be.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a key and puts it there: complete and on the disk, or not at all; a key that is there already is
    /// never replaced.
    ///
    /// # Errors
    /// [`VaultError::Random`], [`KeyFileError::Io`].
    pub(super) fn create(&self, random: &dyn Random) -> Result<SlotKey, VaultError> {
        let key = self.prepare(random)?;
        // link(2) fails where the name is taken, rename(2) would replace the key.
        std::fs::hard_link(self.next(), &self.path).map_err(failed(&self.path, "create"))?;
        self.discard_next()?;
        Ok(key)
    }

    fn next(&self) -> PathBuf {
        self.dir.join(NEXT)
    }

    /// Makes a key that does not count yet: see [`KeySource::settle`].
    pub(super) fn prepare(&self, random: &dyn Random) -> Result<SlotKey, VaultError> {
        let key = SlotKey(random_key(random)?);
        self.discard_next()?;
        let path = self.next();
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(&path)
            .map_err(failed(&path, "create"))?;
        file.write_all(key.0.as_ref()).map_err(failed(&path, "write"))?;
        file.sync_all().map_err(failed(&path, "sync"))?;
        sync_dir(self.dir.path()).map_err(failed(&path, "sync the directory of"))?;
        Ok(key)
    }

    /// Puts a prepared key in the key file's place if `counts` says that a slot has it, else removes it. What a crash
    /// left half done is finished by doing this again.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub(super) fn settle(&self, counts: impl FnOnce(&SlotKey) -> bool) -> Result<(), KeyFileError> {
        let path = self.next();
        let prepared = match read_key(&path, Care::Ours) {
            Ok(None) => return Ok(()),
            Ok(Some(key)) => Some(key),
            // Written in part when the machine went down: no slot can have it.
            Err(KeyFileError::Size { .. }) => None,
            Err(error) => return Err(error),
        };
        if prepared.is_some_and(|key| counts(&key)) {
            std::fs::rename(&path, &self.path).map_err(failed(&path, "rename"))?;
            return sync_dir(self.dir.path()).map_err(failed(&path, "sync the directory of"));
        }
        self.discard_next()
    }

    fn discard_next(&self) -> Result<(), KeyFileError> {
        let path = self.next();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path, "remove")(error)),
            _ => sync_dir(self.dir.path()).map_err(failed(&path, "sync the directory of")),
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySource({self}, ..)")
    }
}

fn open(path: &Path) -> Result<Option<File>, KeyFileError> {
    // O_NONBLOCK: opening a pipe must not wait for its writer.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path);
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // What O_NOFOLLOW answers at a symbolic link (open(2)).
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            Err(KeyFileError::NotAFile { path: path.to_owned() })
        }
        Err(error) => Err(failed(path, "open")(error)),
    }
}

fn read_key(path: &Path, care: Care) -> Result<Option<SlotKey>, KeyFileError> {
    let Some(mut file) = open(path)? else { return Ok(None) };
    let found = file.metadata().map_err(failed(path, "inspect"))?;
    let ours = nix::unistd::Uid::effective().as_raw();
    let path_of = || path.to_owned();
    if !found.is_file() {
        return Err(KeyFileError::NotAFile { path: path_of() });
    }
    if care == Care::Ours && found.uid() != ours {
        return Err(KeyFileError::Owner { path: path_of(), owner: found.uid(), ours });
    }
    let good_mode = match care {
        Care::Ours => found.mode() & 0o7777 == 0o400,
        Care::Given => matches!(found.mode() & 0o007, 0),
    };
    if !good_mode {
        return Err(KeyFileError::Mode { path: path_of(), mode: found.mode() & 0o7777 });
    }
    if found.len() != KEY_LEN as u64 {
        return Err(KeyFileError::Size { path: path_of(), found: found.len() });
    }
    let mut bytes = Key::default();
    file.read_exact(bytes.as_mut()).map_err(failed(path, "read"))?;
    Ok(Some(SlotKey(bytes)))
}

/// One line end after the text is cut.
fn read_text(source: impl Read, path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_PASSPHRASE + 4));
    let bad = || KeyFileError::Passphrase { path: path.to_owned() };
    source.take(MAX_PASSPHRASE as u64 + 3).read_to_string(&mut text).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => bad(),
        _ => failed(path, "read")(error),
    })?;
    if text.ends_with('\n') {
        text.pop();
    }
    if text.ends_with('\r') {
        text.pop();
    }
    if text.is_empty() || text.len() > MAX_PASSPHRASE { Err(bad()) } else { Ok(text) }
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> KeyFileError {
    let path = path.to_owned();
    move |source| KeyFileError::Io { path, action, source }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
