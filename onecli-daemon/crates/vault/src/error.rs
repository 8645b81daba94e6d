//! Why a key or a value could not be had.

use onecli_model::random::RandomError;
use onecli_store::StoreError;

use super::keyring::KeyId;
use super::source::KeyFileError;

/// What can go wrong in the vault. Never holds a key or a value.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key file cannot be used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// There are values, but no key to open them.
    #[error(
        "there is no key at {at}, but the store has been used; it opens with {wanted}: restore the key from its backup \
         (a new key cannot open what is stored), or start once with --passphrase-file and a passphrase or recovery key"
    )]
    KeyMissing {
        /// Where the key was looked for.
        at: String,
        /// What would open it.
        wanted: String,
    },
    /// A key, but not the one.
    #[error("{found}, but the store opens with {wanted}")]
    WrongKey {
        /// What was tried, and where it came from.
        found: String,
        /// What would open it.
        wanted: String,
    },
    /// A slot that does not parse, or was changed.
    #[error("key slot {number} was damaged or changed by hand: {reason}")]
    Slot {
        /// Its number.
        number: u32,
        /// What is wrong with it.
        reason: String,
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
    /// Sealed under a root key that is not this vault's.
    #[error(
        "{what} is sealed under the root key {key}, which this vault does not have: it was damaged, or moved here"
    )]
    UnknownKey {
        /// Which value.
        what: String,
        /// The root key.
        key: KeyId,
    },
    /// Does not open: changed, cut, moved from another row, or sealed under another key.
    #[error(
        "{what} cannot be decrypted: it was damaged, moved here from another place, or where it may go was changed \
         in the database by hand"
    )]
    Damaged {
        /// Which value.
        what: String,
    },
    /// An older version was made the current one by hand.
    #[error(
        "{what} is not used: a newer version took its place, and somebody put the old one back in the database"
    )]
    RolledBack {
        /// Which value.
        what: String,
    },
    /// A change of keys that cannot be made as things are.
    #[error("{0}")]
    Refused(String),
    /// Argon2 has no memory.
    #[error("the passphrase cannot be made a key: there is not enough memory")]
    Stretch,
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
        matches!(
            self,
            VaultError::KeyFile(_)
                | VaultError::KeyMissing { .. }
                | VaultError::WrongKey { .. }
                | VaultError::Slot { .. }
        )
    }
}
