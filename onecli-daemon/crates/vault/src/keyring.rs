//! The root key and the keys derived from it.
//!
//! Subkeys are HKDF-SHA-256 (RFC 5869), 32 bytes each, with these salts and labels as info:
//!
//! | of | salt | label | subkey of |
//! |---|---|---|---|
//! | a root key | `onecli root key` | `onecli/2/kek` | the wraps of sealed values |
//! | | | `onecli/2/key-id` | its id, 8 bytes, not secret |
//! | a slot's key | `onecli slot key` | `onecli/2/key-id` | its id, 8 bytes, not secret |
//! | the derivation key | `onecli derivation key` | `onecli/2/token-hash` | token hashes |
//! | | | `onecli/2/placeholder` | placeholders |
//! | | | `onecli/2/audit` | the audit log's integrity |
//! | | | `onecli/2/session` | sealed sessions, which agents hold |
//!
//! The derivation key is random. It is created with the vault and sealed under the root key, so a new root key
//! changes no token and no placeholder. A label never changes its meaning; another derivation gets another number.

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use onecli_model::{AgentId, Random, SecretId};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::error::VaultError;
use super::key::{Kek, Key, KeyId};

const ROOT: &[u8] = b"onecli root key";
const SLOT: &[u8] = b"onecli slot key";
const DERIVATION: &[u8] = b"onecli derivation key";
const KEK: &[u8] = b"onecli/2/kek";
const KEY_ID: &[u8] = b"onecli/2/key-id";
const TOKEN_HASH: &[u8] = b"onecli/2/token-hash";
const PLACEHOLDER: &[u8] = b"onecli/2/placeholder";
const AUDIT: &[u8] = b"onecli/2/audit";
const SESSION: &[u8] = b"onecli/2/session";

pub(super) fn random_key(random: &dyn Random) -> Result<Key, VaultError> {
    let mut key = Key::default();
    random.fill(key.as_mut())?;
    Ok(key)
}

fn subkey(key: &Key, salt: &[u8], label: &[u8]) -> Key {
    let mut out = Key::default();
    expand(key, salt, label, out.as_mut());
    out
}

fn expand(key: &Key, salt: &[u8], label: &[u8], out: &mut [u8]) {
    #[expect(clippy::expect_used, reason = "HKDF-SHA-256 yields up to 8160 bytes; at most 32 are needed")]
    Hkdf::<Sha256>::new(Some(salt), key.as_ref())
        .expand(label, out)
        .expect("the length is within RFC 5869's bound");
}

fn key_id(key: &Key, salt: &[u8]) -> KeyId {
    let mut id = [0; 8];
    expand(key, salt, KEY_ID, &mut id);
    KeyId(id)
}

/// The root key, with its id and its KEK. Zeroed when dropped.
pub(super) struct RootKey {
    key: Key,
    kek: Kek,
}

impl RootKey {
    pub(super) fn new(key: Key) -> RootKey {
        let kek = Kek { root: key_id(&key, ROOT), key: subkey(&key, ROOT, KEK) };
        RootKey { key, kek }
    }

    pub(super) fn generate(random: &dyn Random) -> Result<RootKey, VaultError> {
        random_key(random).map(RootKey::new)
    }

    pub(super) fn id(&self) -> KeyId {
        self.kek.root
    }

    pub(super) fn kek(&self) -> &Kek {
        &self.kek
    }

    pub(super) fn expose(&self) -> &Key {
        &self.key
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKey({}, ..)", self.id())
    }
}

/// A key that opens a slot: the content of a key file, a recovery key, or a key derived from a passphrase. Zeroed
/// when dropped.
pub(super) struct SlotKey(pub(super) Key);

impl SlotKey {
    pub(super) fn id(&self) -> KeyId {
        key_id(&self.0, SLOT)
    }
}

impl fmt::Debug for SlotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotKey({}, ..)", self.id())
    }
}

/// The subkeys of the derivation key, each for one use.
pub(super) struct Derived {
    token_hash: Key,
    placeholder: Key,
    audit: Key,
    session: Key,
}

impl Derived {
    pub(super) fn of(derivation: &Key) -> Derived {
        let subkey = |label| subkey(derivation, DERIVATION, label);
        Derived {
            token_hash: subkey(TOKEN_HASH),
            placeholder: subkey(PLACEHOLDER),
            audit: subkey(AUDIT),
            session: subkey(SESSION),
        }
    }

    pub(super) fn session(&self) -> &Key {
        &self.session
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

/// HMAC-SHA-256 (RFC 2104) over the parts, whose lengths the caller must not vary.
fn mac(key: &Key, parts: &[&[u8]]) -> Key {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104 section 2)")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_ref()).expect("HMAC takes any key");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}
