//! Errors of the vault.

use std::io;
use std::path::PathBuf;

use onecli_model::random::RandomError;
use onecli_store::StoreError;

use super::key::KeyId;

/// Errors of the vault. They never contain a key or a value.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key file cannot be used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// There are values, but no key to open them.
    #[error(
        "there is no key at {at}, but the store is in use and opens with {wanted}: restore the key from its \
         backup (a new key cannot open the stored values), or start once with --passphrase-file and a \
         passphrase or recovery key"
    )]
    KeyMissing {
        /// Where the daemon searched for the key.
        at: String,
        /// The keys that would open it.
        wanted: String,
    },
    /// A key was found, but it is the wrong one.
    #[error("{found}, but the store opens with {wanted}")]
    WrongKey {
        /// The keys that were tried, and where they came from.
        found: String,
        /// The keys that would open it.
        wanted: String,
    },
    /// A slot that does not parse, or was changed.
    #[error("key slot {number} was damaged or edited: {reason}")]
    Slot {
        /// Its number.
        number: u32,
        /// The reason.
        reason: String,
    },
    /// The store's entries about the vault are incomplete or do not parse.
    #[error("the store's entry '{key}' is missing or damaged although the store is in use: restore a backup")]
    Meta {
        /// The entry.
        key: &'static str,
    },
    /// Sealed by a newer program, or not a sealed value at all.
    #[error("{what} is sealed in format {format}, which this program does not support")]
    UnknownFormat {
        /// The description of the value.
        what: String,
        /// The format byte.
        format: u8,
    },
    /// Sealed under a root key of another vault.
    #[error(
        "{what} is sealed under the root key {key}, which this vault does not have: it was damaged, or copied from another vault"
    )]
    UnknownKey {
        /// The description of the value.
        what: String,
        /// The root key.
        key: KeyId,
    },
    /// The value cannot be opened: changed, cut, moved from another row, or sealed under another key.
    #[error(
        "{what} cannot be decrypted: it was damaged, copied from another row, or its destination was edited \
         in the database"
    )]
    Damaged {
        /// The description of the value.
        what: String,
    },
    /// The database was edited to make an older version the current one.
    #[error(
        "{what} is not used: a newer version replaced it, and an edit of the database put the old one back"
    )]
    RolledBack {
        /// The description of the value.
        what: String,
    },
    /// The change of keys is impossible in the present state.
    #[error("{0}")]
    Refused(String),
    /// There is not enough memory for Argon2.
    #[error("cannot derive a key from the passphrase: there is not enough memory")]
    Stretch,
    /// The system returned no random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl VaultError {
    /// Reports whether the operator must supply the right key. The daemon reports such an error before it listens,
    /// with exit status 78 (`EX_CONFIG`, sysexits.h).
    pub fn is_key_problem(&self) -> bool {
        matches!(
            self,
            VaultError::KeyFile(_)
                | VaultError::KeyMissing { .. }
                | VaultError::WrongKey { .. }
                | VaultError::Slot { .. }
        )
    }
}

/// A problem with a key file, and its fix.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// A system call failed.
    #[error("cannot {action} the key file {}: {source}", path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// The action that failed.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A symbolic link, directory, pipe or device.
    #[error("the key file {} is not a regular file; put the file itself there, not a link", path.display())]
    NotAFile {
        /// The key file.
        path: PathBuf,
    },
    /// The file belongs to another user.
    #[error(
        "the key file {} belongs to uid {owner}, but the daemon runs as uid {ours}; fix: chown {ours} {}",
        path.display(),
        path.display()
    )]
    Owner {
        /// The key file.
        path: PathBuf,
        /// The file's owner.
        owner: u32,
        /// The daemon's user id.
        ours: u32,
    },
    /// The mode is not 0400.
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
    /// The content is not a key.
    #[error(
        "the key file {} has {found} bytes instead of 32: it is damaged or not a key; restore it from its backup",
        path.display()
    )]
    Size {
        /// The key file.
        path: PathBuf,
        /// Its size.
        found: u64,
    },
    /// The content is not a passphrase.
    #[error("the passphrase in {} is empty, longer than 1024 bytes, or not UTF-8 text", path.display())]
    Passphrase {
        /// The file.
        path: PathBuf,
    },
    /// The text is not a key in base64.
    #[error("the variable {name} does not contain a key: it needs 32 bytes in base64")]
    Variable {
        /// The environment variable.
        name: &'static str,
    },
}
