//! Questions and answers about keys, and about the certificate authority.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::de::{Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::WireValue;

/// `key status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// The id of the root key.
    pub key_id: String,
    /// Where the key came from that opened it when the daemon started.
    pub opened_at: String,
    /// The slot that it opened.
    pub opened_slot: u32,
    /// The root key's slots.
    pub slots: Vec<SlotView>,
    /// A new root key that is taking over.
    pub rekey: Option<RekeyView>,
    /// Why what was removed is still in the database's files; absent where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unerased: Option<String>,
}

/// A key slot, without what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// Its number.
    pub number: u32,
    /// `key`, `passphrase`, `recovery`, or `damaged`.
    pub kind: String,
    /// The id of its key, where it has one.
    pub key_id: Option<String>,
    /// When it was made; absent for the first one.
    pub created: Option<Timestamp>,
}

/// How far a new root key has taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RekeyView {
    /// The old root key.
    pub from: String,
    /// The new one.
    pub to: String,
    /// Values in the store; 0 until they are counted.
    pub total: u64,
    /// Of these, under the new root key.
    pub done: u64,
    /// What keeps it from going on.
    pub fault: Option<String>,
}

/// `key add-...`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SlotAdd {
    /// A new key file at the daemon's usual place.
    KeyFile {},
    /// A key that the operator keeps.
    Key {
        /// 32 bytes.
        key: WireKey,
    },
    /// A passphrase.
    Passphrase {
        /// The passphrase.
        passphrase: WireValue,
    },
    /// A recovery key, which the daemon makes.
    Recovery {},
}

/// A slot that was added.
#[derive(Clone, Serialize, Deserialize)]
pub struct SlotAdded {
    /// The slot.
    pub slot: SlotView,
    /// The recovery key, which is shown here and never again.
    pub recovery_key: Option<String>,
}

impl fmt::Debug for SlotAdded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotAdded").field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// `key rotate`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRotate {
    /// The passphrases of passphrase slots, which the daemon does not keep.
    #[serde(default)]
    pub passphrases: Vec<WireValue>,
    /// Drop slots whose keys are not there.
    #[serde(default)]
    pub drop_other_slots: bool,
}

/// A new root key is taking over.
#[derive(Clone, Serialize, Deserialize)]
pub struct KeyRotated {
    /// Its id.
    pub key_id: String,
    /// The key file that has a new key.
    pub key_file: Option<String>,
    /// Slots that are gone.
    pub dropped_slots: Vec<u32>,
    /// New recovery keys, which are shown here and never again.
    pub recovery_keys: Vec<RecoveryKey>,
}

/// A recovery key.
#[derive(Clone, Serialize, Deserialize)]
pub struct RecoveryKey {
    /// Its slot.
    pub slot: u32,
    /// The key.
    pub recovery_key: String,
}

impl fmt::Debug for KeyRotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRotated").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoveryKey").field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// 32 bytes of key on their way from the CLI to the daemon: base64 in JSON, zeroed when dropped.
#[derive(Clone)]
pub struct WireKey(pub Zeroizing<[u8; 32]>);

impl fmt::Debug for WireKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WireKey(..)")
    }
}

impl Serialize for WireKey {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let text = Zeroizing::new(data_encoding::BASE64.encode(self.0.as_ref()));
        out.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for WireKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<WireKey, D::Error> {
        // Whatever stands there is not quoted.
        let bad = || D::Error::custom("the key must be 32 bytes in base64");
        let text = Zeroizing::new(Option::<String>::deserialize(from).map_err(|_| bad())?.ok_or_else(bad)?);
        let bytes = Zeroizing::new(data_encoding::BASE64.decode(text.as_bytes()).map_err(|_| bad())?);
        bytes.as_slice().try_into().map(|key| WireKey(Zeroizing::new(key))).map_err(|_| bad())
    }
}

/// `ca export` and `ca show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ca {
    /// What agents trust, in PEM: our CA's certificate, and the next one's while they overlap.
    pub pem: String,
    /// A PEM file on this host: the system's roots and what is in `pem`.
    pub bundle: PathBuf,
    /// The certificates in `pem`; the first one signs.
    pub certificates: Vec<CaCertificate>,
}

/// One of our CA's certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaCertificate {
    /// `signing`, or `next` for the one that agents trust before it signs.
    pub role: String,
    /// SHA-256 of the certificate, 64 hex digits.
    pub sha256: String,
    /// When it begins to be valid.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    /// When it was made the next one.
    pub since: Option<Timestamp>,
}
