//! Sources of the key that opens a slot: a systemd credential, a key file, a passphrase, the environment.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use onecli_model::Random;
use onecli_sys::PrivateDir;
use zeroize::Zeroizing;

use super::error::{KeyFileError, VaultError};
use super::key::Key;
use super::keyring::{SlotKey, random_key};
use super::slots::Opener;

/// The name of the key file in the data directory.
const FILE: &str = "root.key";
/// The temporary name of a new key file, before it is renamed.
const NEXT: &str = "root.key.new";
/// Names of the credentials, in the directory that systemd announces (`$CREDENTIALS_DIRECTORY`, systemd.exec(5)).
const CREDENTIAL_KEY: &str = "onecli.key";
const CREDENTIAL_PASSPHRASE: &str = "onecli.passphrase";
/// The most bytes of a passphrase. A longer file is a wrong file.
const MAX_PASSPHRASE: usize = 1024;
/// The length of a key, in bytes.
const KEY_LEN: usize = 32;

/// The required protection of a file.
#[derive(Clone, Copy, PartialEq)]
enum Protection {
    /// Owned by the daemon's user, mode 0400.
    OwnFile,
    /// Provided by systemd, which chooses the mode.
    SystemdCredential,
}

/// The sources of keys for the vault, in the order in which they are tried: a systemd credential, the key file, a
/// passphrase, the environment.
#[derive(Clone)]
pub struct KeySource {
    dir: PrivateDir,
    path: PathBuf,
    credentials: Option<PathBuf>,
    passphrase: Option<(String, Zeroizing<String>)>,
    variable: Option<(&'static str, Key)>,
}

impl KeySource {
    /// The file `root.key` of a data directory: 32 bytes, owned by the daemon's user, mode 0400, no symbolic link.
    pub fn file(dir: &PrivateDir) -> KeySource {
        KeySource {
            dir: dir.clone(),
            path: dir.join(FILE),
            credentials: None,
            passphrase: None,
            variable: None,
        }
    }

    /// Adds the credentials `onecli.key` and `onecli.passphrase` in this directory.
    #[must_use]
    pub fn with_credentials(mut self, dir: PathBuf) -> KeySource {
        self.credentials = Some(dir);
        self
    }

    /// Adds the passphrase or recovery key in this file, which is read immediately; `-` is standard input.
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

    /// Adds a key in base64 from an environment variable. Every process that may read this process's environment
    /// can read the key.
    ///
    /// # Errors
    /// [`KeyFileError::Variable`].
    pub fn with_variable(mut self, name: &'static str, text: &str) -> Result<KeySource, KeyFileError> {
        let bytes = data_encoding::BASE64.decode(text.trim().as_bytes()).map(Zeroizing::new);
        let key = bytes.ok().and_then(|bytes| bytes.as_slice().try_into().ok()).map(Zeroizing::new);
        self.variable = Some((name, key.ok_or(KeyFileError::Variable { name })?));
        Ok(self)
    }

    /// Passes one key after the other to `take` until it returns a result; returns that, and the key's source.
    ///
    /// # Errors
    /// The error of `take`, and [`KeyFileError`] for an existing file that other users could read.
    pub(super) fn find<T>(
        &self,
        mut take: impl FnMut(&str, Opener) -> Result<Option<T>, VaultError>,
    ) -> Result<Option<(String, T)>, VaultError> {
        let mut offer = |at: String, opener: Opener| -> Result<Option<(String, T)>, VaultError> {
            Ok(take(&at, opener)?.map(|taken| (at, taken)))
        };
        if let Some(dir) = &self.credentials {
            let path = dir.join(CREDENTIAL_KEY);
            if let Some(key) = read_key(&path, Protection::SystemdCredential)?
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

    /// The key in the key file; `None` if there is no file.
    pub(super) fn load(&self) -> Result<Option<SlotKey>, KeyFileError> {
        read_key(&self.path, Protection::OwnFile)
    }

    /// The path of the key file, which may not exist.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a key and its file: complete and on disk, or not at all. An existing key is never replaced.
    ///
    /// # Errors
    /// [`VaultError::Random`], [`KeyFileError::Io`].
    pub(super) fn create(&self, random: &dyn Random) -> Result<SlotKey, VaultError> {
        let key = self.prepare(random)?;
        // link(2) fails if the name exists; rename(2) would replace the key.
        std::fs::hard_link(self.next(), &self.path).map_err(failed(&self.path, "create"))?;
        self.discard_next()?;
        Ok(key)
    }

    fn next(&self) -> PathBuf {
        self.dir.join(NEXT)
    }

    /// Creates a key that is not active yet: see [`KeySource::settle`].
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

    /// Renames a prepared key file into place if `counts` confirms that a slot uses the key; otherwise removes it.
    /// Repeating this completes a change that a crash interrupted.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub(super) fn settle(&self, counts: impl FnOnce(&SlotKey) -> bool) -> Result<(), KeyFileError> {
        let path = self.next();
        let prepared = match read_key(&path, Protection::OwnFile) {
            Ok(None) => return Ok(()),
            Ok(Some(key)) => Some(key),
            // The file is incomplete because the machine went down. No slot can use the key.
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
        // The error for a symbolic link with O_NOFOLLOW (open(2)).
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            Err(KeyFileError::NotAFile { path: path.to_owned() })
        }
        Err(error) => Err(failed(path, "open")(error)),
    }
}

fn read_key(path: &Path, protection: Protection) -> Result<Option<SlotKey>, KeyFileError> {
    let Some(mut file) = open(path)? else { return Ok(None) };
    let found = file.metadata().map_err(failed(path, "inspect"))?;
    let ours = nix::unistd::Uid::effective().as_raw();
    let path_of = || path.to_owned();
    if !found.is_file() {
        return Err(KeyFileError::NotAFile { path: path_of() });
    }
    if protection == Protection::OwnFile && found.uid() != ours {
        return Err(KeyFileError::Owner { path: path_of(), owner: found.uid(), ours });
    }
    let good_mode = match protection {
        Protection::OwnFile => found.mode() & 0o7777 == 0o400,
        Protection::SystemdCredential => matches!(found.mode() & 0o007, 0),
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

/// Reads a text and removes one line end.
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
