//! The vault's part of the store: key slots, the vault's own sealed values, and every version of every secret as
//! rows.

use async_trait::async_trait;
use jiff::Timestamp;
use onecli_model::{Sealed, Secret, SecretId};

use super::error::StoreError;

/// A root key, sealed under one of the keys that unseal it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRow {
    /// The number of the slot, from 1. Slots of two root keys may share it while one replaces the other.
    pub number: u32,
    /// The id of the root key in it.
    pub root: [u8; 8],
    /// How the slot's key is obtained: JSON that the vault interprets.
    pub method: String,
    /// The root key.
    pub sealed: Sealed,
    /// The time of creation.
    pub created: Timestamp,
}

/// A version of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    /// The secret, with the number and the sealed value of this version.
    pub secret: Secret,
    /// Whether this is the version in use.
    pub current: bool,
}

/// An atomic change of the vault's data.
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
    /// Sealed values of the daemon itself, by purpose; existing ones are replaced.
    pub put_blobs: Vec<(String, Sealed)>,
    /// Sealed values of the daemon itself to remove.
    pub remove_blobs: Vec<&'static str>,
    /// If a sealed value refers to this root key id, the change is not made.
    pub unless_used: Option<[u8; 8]>,
    /// Whether to announce it as a change of the state that [`super::Store::load`] returns.
    pub announce: bool,
}

/// A new wrap for one sealed value.
#[derive(Debug, Clone)]
pub struct Rewrap {
    /// The secret.
    pub secret: SecretId,
    /// The version.
    pub version: u32,
    /// The expected value; if another one is stored, nothing changes.
    pub from: Sealed,
    /// The new value.
    pub to: Sealed,
}

/// The vault's interface to the store. Every method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait KeyStore: Send + Sync + std::fmt::Debug {
    /// All slots, by number.
    async fn list_slots(&self) -> Result<Vec<SlotRow>, StoreError>;

    /// Makes the change; returns `false` if [`VaultChange::unless_used`] prevented it. Removed data is overwritten,
    /// see [`KeyStore::erased`].
    ///
    /// # Errors
    /// A slot to add already exists.
    async fn change_vault(&self, change: &VaultChange) -> Result<bool, StoreError>;

    /// Checks that all removed and replaced data is gone from the store's files. It is gone when the call that
    /// removed it returns, unless a process reads the database; then it is gone as soon as no process does. Copies
    /// of the files, and blocks that a disk or a file system retains, are out of scope.
    ///
    /// # Errors
    /// [`StoreError::NotErased`].
    async fn erased(&self) -> Result<(), StoreError>;

    /// A sealed value of the daemon itself.
    async fn get_blob(&self, purpose: &str) -> Result<Option<Sealed>, StoreError>;

    /// All sealed values of the daemon itself, by purpose.
    async fn list_blobs(&self) -> Result<Vec<(String, Sealed)>, StoreError>;

    /// At most `limit` versions of secrets: those behind `after` in the order of id and version.
    ///
    /// # Errors
    /// [`StoreError::BadRow`].
    async fn list_versions(
        &self,
        after: Option<(SecretId, u32)>,
        limit: u32,
    ) -> Result<Vec<VersionRow>, StoreError>;

    /// The number of versions of secrets, and how many of them refer to this root key id.
    async fn count_versions(&self, root: [u8; 8]) -> Result<(u64, u64), StoreError>;

    /// Replaces the wraps of values. It is not announced as a change, because the values themselves stay the same.
    async fn rewrap(&self, changes: &[Rewrap]) -> Result<(), StoreError>;

    /// Writes a consistent copy of the whole store to an existing, empty file, while other tasks read and write.
    async fn copy_to(&self, path: &std::path::Path) -> Result<(), StoreError>;

    /// Checks the store's integrity; returns the problems.
    async fn check_integrity(&self) -> Result<Vec<String>, StoreError>;
}
