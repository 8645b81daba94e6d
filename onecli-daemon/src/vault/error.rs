//! Why a key or a value could not be had.

use super::keyring::KeyId;
use super::source::KeyFileError;
use crate::model::random::RandomError;
use crate::store::StoreError;

/// What can go wrong in the vault. Never holds a key or a value.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key file cannot be used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// There are values, but no key to open them.
    #[error(
        "there is no key at {at}, but the store has been used{}: restore the key from its backup; \
         a new key cannot open what is stored",
        wanted.as_ref().map(|id| format!(" with the key {id}")).unwrap_or_default()
    )]
    KeyMissing {
        /// Where the key was looked for.
        at: String,
        /// The id of the key that is needed, where the store tells.
        wanted: Option<String>,
    },
    /// A key, but not the one.
    #[error("the key at {at} has the id {found}, but the store needs the key {wanted}")]
    WrongKey {
        /// Where the key came from.
        at: String,
        /// The id of the key that is needed.
        wanted: String,
        /// The id of the key that is there.
        found: KeyId,
    },
    /// The store's facts about the vault are incomplete or do not parse.
    #[error("the store's entry '{key}' is missing or damaged although the store is in use: restore a backup")]
    Meta {
        /// The entry.
        key: &'static str,
    },
    /// Sealed by a newer program, or no sealed value at all.
    #[error("{what} is sealed in format {format}, which this program does not know")]
    UnknownFormat {
        /// Which value.
        what: String,
        /// The format byte.
        format: u8,
    },
    /// Does not open: changed, cut, moved from another row, or sealed under another key.
    #[error("{what} cannot be decrypted: it was damaged, or moved here from another place")]
    Damaged {
        /// Which value.
        what: String,
    },
    /// No randomness to seal with.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl VaultError {
    /// Is it for the operator to bring the right key? Told before listening, with exit status 78 (`EX_CONFIG`,
    /// sysexits.h).
    pub fn is_key_problem(&self) -> bool {
        matches!(self, VaultError::KeyFile(_) | VaultError::KeyMissing { .. } | VaultError::WrongKey { .. })
    }
}
