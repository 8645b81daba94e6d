//! The root key and what is derived from it.
//!
//! Subkeys are HKDF-SHA-256 (RFC 5869) of the root key, 32 bytes each, with the salt `onecli root key` and these
//! labels as info:
//!
//! | label | subkey of |
//! |---|---|
//! | `onecli/1/kek` | sealed values |
//! | `onecli/1/token-hash` | token hashes |
//! | `onecli/1/placeholder` | placeholders |
//! | `onecli/1/audit` | the audit log's integrity |
//! | `onecli/1/key-id` | the key's id, 8 bytes of it, not secret |
//!
//! A label never changes its meaning; what is derived in another way gets another number.

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::model::{AgentId, SecretId};

const SALT: &[u8] = b"onecli root key";
const KEK: &[u8] = b"onecli/1/kek";
const TOKEN_HASH: &[u8] = b"onecli/1/token-hash";
const PLACEHOLDER: &[u8] = b"onecli/1/placeholder";
const AUDIT: &[u8] = b"onecli/1/audit";
const KEY_ID: &[u8] = b"onecli/1/key-id";

/// A 256-bit key, zeroed when dropped.
pub(super) type Key = Zeroizing<[u8; 32]>;

/// The key that everything else rests on. Zeroed when dropped; the daemon forgets it once the subkeys are there.
pub struct RootKey(Key);

impl RootKey {
    /// How many bytes a root key has.
    pub const LEN: usize = 32;

    pub(super) fn new(bytes: Key) -> RootKey {
        RootKey(bytes)
    }

    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    fn subkey(&self, label: &[u8]) -> Key {
        let mut out = Key::default();
        self.expand(label, out.as_mut());
        out
    }

    fn expand(&self, label: &[u8], out: &mut [u8]) {
        #[expect(
            clippy::expect_used,
            reason = "HKDF-SHA-256 gives up to 8160 bytes; at most 32 are asked for"
        )]
        Hkdf::<Sha256>::new(Some(SALT), self.0.as_ref())
            .expand(label, out)
            .expect("the length is within RFC 5869's bound");
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(..)")
    }
}

/// Names a root key: 64 derived bits, written as 16 hex digits. Tells nothing about the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; 8]);

impl KeyId {
    pub(super) fn of(root: &RootKey) -> KeyId {
        let mut id = [0; 8];
        root.expand(KEY_ID, &mut id);
        KeyId(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// The subkeys, each for one use.
pub(super) struct Keyring {
    kek: Key,
    token_hash: Key,
    placeholder: Key,
    audit: Key,
}

impl Keyring {
    pub(super) fn derive(root: &RootKey) -> Keyring {
        Keyring {
            kek: root.subkey(KEK),
            token_hash: root.subkey(TOKEN_HASH),
            placeholder: root.subkey(PLACEHOLDER),
            audit: root.subkey(AUDIT),
        }
    }

    pub(super) fn kek(&self) -> &Key {
        &self.kek
    }

    pub(super) fn audit(&self) -> &Key {
        &self.audit
    }

    pub(super) fn token_mac(&self, token: &[u8]) -> Key {
        mac(&self.token_hash, &[token])
    }

    /// The first 160 bits of HMAC-SHA-256 over agent id, secret id and generation (big-endian).
    pub(super) fn placeholder_bits(&self, agent: AgentId, secret: SecretId, generation: u32) -> [u8; 20] {
        let parts: [&[u8]; 3] = [agent.0.as_bytes(), secret.0.as_bytes(), &generation.to_be_bytes()];
        let full = mac(&self.placeholder, &parts);
        let mut bits = [0; 20];
        bits.copy_from_slice(&full[..20]);
        bits
    }
}

/// HMAC-SHA-256 (RFC 2104) over the parts, which the caller keeps at fixed lengths.
fn mac(key: &Key, parts: &[&[u8]]) -> Key {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104 section 2)")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_ref()).expect("HMAC takes any key");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}
