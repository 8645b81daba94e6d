//! What the vault keeps in the store: key slots, its own sealed values, and every version of every secret as rows.

use async_trait::async_trait;
use jiff::Timestamp;
use onecli_model::{Sealed, Secret, SecretId};

use super::StoreError;

/// A root key, sealed under one of the keys that open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRow {
    /// Number of the slot, from 1. Slots of two root keys may share it, while one takes over from the other.
    pub number: u32,
    /// Id of the root key in it.
    pub root: [u8; 8],
    /// How the slot's key is had: JSON that the vault understands.
    pub method: String,
    /// The root key.
    pub sealed: Sealed,
    /// When it was made.
    pub created: Timestamp,
}

/// A version of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    /// The secret, with the number and the sealed value of this version.
    pub secret: Secret,
    /// Is it the one that is used?
    pub current: bool,
}

/// A change of what the vault keeps: all of it or nothing.
#[derive(Debug, Clone, Default)]
pub struct VaultChange {
    /// Facts to set.
    pub set: Vec<(&'static str, String)>,
    /// Facts to remove.
    pub unset: Vec<&'static str>,
    /// Slots to add.
    pub add_slots: Vec<SlotRow>,
    /// Slots to remove, by number and root key.
    pub remove_slots: Vec<(u32, [u8; 8])>,
    /// Sealed values of the daemon's own, by purpose; what is there is replaced.
    pub put_blobs: Vec<(String, Sealed)>,
    /// Sealed values of the daemon's own to remove.
    pub remove_blobs: Vec<&'static str>,
    /// Change nothing where a sealed value has these bytes at its key id's place.
    pub unless_used: Option<[u8; 8]>,
    /// Tell of it, as of a change of what [`super::Store::load`] returns.
    pub announce: bool,
}

/// A sealed value that changes its wrap: where, what is there, what takes its place.
#[derive(Debug, Clone)]
pub struct Rewrap {
    /// The secret.
    pub secret: SecretId,
    /// The version.
    pub version: u32,
    /// What is there; where it is not, nothing is changed.
    pub from: Sealed,
    /// What takes its place.
    pub to: Sealed,
}

/// The vault's side of the store. Every method is one transaction, as those of [`super::Store`] are.
#[async_trait]
pub trait KeyStore: Send + Sync + std::fmt::Debug {
    /// All slots, by number.
    async fn list_slots(&self) -> Result<Vec<SlotRow>, StoreError>;

    /// Makes the change; `false` where [`VaultChange::unless_used`] forbade it. What it removes is overwritten, see
    /// [`KeyStore::erased`].
    ///
    /// # Errors
    /// A slot to add is there already.
    async fn change_vault(&self, change: &VaultChange) -> Result<bool, StoreError>;

    /// Is all that was removed or replaced gone from the store's files? It is when the call that removed it returns, unless
    /// somebody reads the database: then it is as soon as nobody does. Not meant are copies of the files, and blocks that a
    /// disk or a file system keeps.
    ///
    /// # Errors
    /// [`StoreError::NotErased`].
    async fn erased(&self) -> Result<(), StoreError>;

    /// A sealed value of the daemon's own.
    async fn get_blob(&self, purpose: &str) -> Result<Option<Sealed>, StoreError>;

    /// All sealed values of the daemon's own, by purpose.
    async fn list_blobs(&self) -> Result<Vec<(String, Sealed)>, StoreError>;

    /// At most `limit` versions of secrets, those that follow `after` in the order of id and version.
    ///
    /// # Errors
    /// [`StoreError::BadRow`].
    async fn list_versions(
        &self,
        after: Option<(SecretId, u32)>,
        limit: u32,
    ) -> Result<Vec<VersionRow>, StoreError>;

    /// How many versions of secrets there are, and how many of them have these bytes at their key id's place.
    async fn count_versions(&self, root: [u8; 8]) -> Result<(u64, u64), StoreError>;

    /// Gives values other wraps. Not told as a change: what they open to is the same.
    async fn rewrap(&self, changes: &[Rewrap]) -> Result<(), StoreError>;

    /// Writes a consistent copy of the whole store to a file that must be there and empty, while others read and write.
    async fn copy_to(&self, path: &std::path::Path) -> Result<(), StoreError>;

    /// Looks whether the store is whole; says what is not.
    async fn check_integrity(&self) -> Result<Vec<String>, StoreError>;
}
