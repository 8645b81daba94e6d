//! Requests and responses about keys and the certificate authority.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::de::{Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::value::WireValue;

/// `key status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// The id of the root key.
    pub key_id: String,
    /// The source of the key that opened it when the daemon started.
    pub opened_at: String,
    /// The slot that was opened.
    pub opened_slot: u32,
    /// The root key's slots.
    pub slots: Vec<SlotView>,
    /// The progress of a root key rotation.
    pub rekey: Option<RekeyView>,
    /// Why removed data is still present in the database files; absent if it is erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unerased: Option<String>,
}

/// A key slot, without its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// Its number.
    pub number: u32,
    /// `key`, `passphrase`, `recovery`, or `damaged`.
    pub kind: String,
    /// The id of its key, if it has one.
    pub key_id: Option<String>,
    /// The creation time; absent for the first slot.
    pub created: Option<Timestamp>,
}

/// The progress of a root key rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RekeyView {
    /// The id of the old root key.
    pub from: String,
    /// The id of the new root key.
    pub to: String,
    /// The number of values in the store; 0 until they are counted.
    pub total: u64,
    /// The number of values already sealed under the new root key.
    pub done: u64,
    /// The error that stops the rotation.
    pub fault: Option<String>,
}

/// `key add-...`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SlotAdd {
    /// A new key file at the daemon's default path.
    KeyFile {},
    /// A key that the operator stores.
    Key {
        /// 32 bytes.
        key: WireKey,
    },
    /// A passphrase.
    Passphrase {
        /// The passphrase.
        passphrase: WireValue,
    },
    /// A recovery key, which the daemon generates.
    Recovery {},
}

/// A slot that was added.
#[derive(Clone, Serialize, Deserialize)]
pub struct SlotAdded {
    /// The slot.
    pub slot: SlotView,
    /// The recovery key. It is shown only in this response.
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
    /// The passphrases of passphrase slots. The daemon does not store them.
    #[serde(default)]
    pub passphrases: Vec<WireValue>,
    /// Drop slots whose keys are not available.
    #[serde(default)]
    pub drop_other_slots: bool,
}

/// The result of starting a root key rotation.
#[derive(Clone, Serialize, Deserialize)]
pub struct KeyRotated {
    /// The id of the new root key.
    pub key_id: String,
    /// The path of the key file that contains a new key.
    pub key_file: Option<String>,
    /// The slots that were dropped.
    pub dropped_slots: Vec<u32>,
    /// New recovery keys. They are shown only in this response.
    pub recovery_keys: Vec<RecoveryKey>,
}

/// A recovery key.
#[derive(Clone, Serialize, Deserialize)]
pub struct RecoveryKey {
    /// The number of its slot.
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

/// A 32-byte key in a request from the CLI to the daemon: base64 in JSON, zeroed on drop.
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
        // The error must not quote the input.
        let bad = || D::Error::custom("the key must be 32 bytes in base64");
        let text = Zeroizing::new(Option::<String>::deserialize(from).map_err(|_| bad())?.ok_or_else(bad)?);
        let bytes = Zeroizing::new(data_encoding::BASE64.decode(text.as_bytes()).map_err(|_| bad())?);
        bytes.as_slice().try_into().map(|key| WireKey(Zeroizing::new(key))).map_err(|_| bad())
    }
}

/// `ca export` and `ca show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ca {
    /// The CA certificates that agents trust, in PEM: the current one, and the next one during a rotation.
    pub pem: String,
    /// A PEM file on this host with the system's roots and the certificates in `pem`.
    pub bundle: PathBuf,
    /// The certificates in `pem`. The first one signs.
    pub certificates: Vec<CaCertificate>,
}

/// A certificate of OneCLI's CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaCertificate {
    /// `signing`, or `next` for the one that agents already trust but that does not sign yet.
    pub role: String,
    /// SHA-256 of the certificate, 64 hex digits.
    pub sha256: String,
    /// The start of its validity.
    pub not_before: Timestamp,
    /// The end of its validity.
    pub not_after: Timestamp,
    /// The time at which it became the next one.
    pub since: Option<Timestamp>,
}
