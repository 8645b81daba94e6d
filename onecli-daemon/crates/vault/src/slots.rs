//! Key slots: the root key, sealed under each of the keys that open it, as disk encryption (LUKS) does.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use jiff::Timestamp;
use onecli_model::{Random, Sealed};
use onecli_store::SlotRow;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

use super::envelope;
use super::error::VaultError;
use super::key::{Key, KeyId};
use super::keyring::{RootKey, SlotKey, random_key};

/// The Argon2 parameters: RFC 9106 section 4, the second recommended choice, with 64 MiB, three passes and four
/// lanes. The first choice takes 2 GiB, which a daemon's host may not have.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// 128 bits of salt (RFC 9106 section 3.1).
const PASSPHRASE_SALT: usize = 16;
/// The most resources that a slot may request of this host, even if the database was edited: 4 GiB.
const MAX_MEMORY_KIB: u32 = 4 * 1024 * 1024;
const MAX_PASSES: u32 = 64;
const MAX_LANES: u32 = 64;

/// How a slot's key is obtained. Its JSON form is stored, and the slot is bound to it byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Method {
    /// 32 bytes: in a key file, a systemd credential, or the environment.
    Key {
        /// The key's id.
        id: String,
    },
    /// A recovery key: 32 bytes, in a form that operators can type.
    Recovery {
        /// The key's id.
        id: String,
    },
    /// Argon2id, version 1.3 (RFC 9106).
    Passphrase {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes.
        passes: u32,
        /// Lanes.
        lanes: u32,
        /// Salt, base64.
        salt: String,
    },
}

/// The input that may open a slot.
pub(super) enum Opener {
    /// A key.
    Key(SlotKey),
    /// A passphrase, or a recovery key as text.
    Text(Zeroizing<String>),
}

impl Opener {
    /// The key, if it can be computed without a slot.
    pub(super) fn key(&self) -> Option<SlotKey> {
        match self {
            Opener::Key(key) => Some(SlotKey(key.0.clone())),
            Opener::Text(text) => parse_recovery_key(text),
        }
    }
}

impl Method {
    pub(super) fn of(row: &SlotRow) -> Result<Method, VaultError> {
        serde_json::from_str(&row.method)
            .map_err(|error| VaultError::Slot { number: row.number, reason: error.to_string() })
    }

    pub(super) fn key(key: &SlotKey) -> Method {
        Method::Key { id: key.id().to_string() }
    }

    /// A new recovery key.
    pub(super) fn recovery(random: &dyn Random) -> Result<(Method, SlotKey), VaultError> {
        let key = SlotKey(random_key(random)?);
        Ok((Method::Recovery { id: key.id().to_string() }, key))
    }

    /// A passphrase with a new salt. Takes some tenths of a second.
    pub(super) fn passphrase(text: &str, random: &dyn Random) -> Result<(Method, SlotKey), VaultError> {
        let mut salt = [0; PASSPHRASE_SALT];
        random.fill(&mut salt)?;
        let salt = data_encoding::BASE64.encode(&salt);
        let method = Method::Passphrase { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES, salt };
        let key = method.stretch(text).ok_or(VaultError::Stretch)?;
        Ok((method, key))
    }

    /// Derives the slot's key from a passphrase. Returns `None` if the slot is for another kind of key, or requests
    /// too many resources.
    fn stretch(&self, text: &str) -> Option<SlotKey> {
        let Method::Passphrase { memory_kib, passes, lanes, salt } = self else { return None };
        if *memory_kib > MAX_MEMORY_KIB || *passes > MAX_PASSES || *lanes > MAX_LANES {
            return None;
        }
        let salt = data_encoding::BASE64.decode(salt.as_bytes()).ok()?;
        let params = Params::new(*memory_kib, *passes, *lanes, Some(32)).ok()?;
        let mut memory = vec![Block::default(); params.block_count()];
        let mut key = Key::default();
        let done = Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into_with_memory(
            text.as_bytes(),
            &salt,
            key.as_mut(),
            &mut memory,
        );
        memory.iter_mut().for_each(Zeroize::zeroize);
        done.ok().map(|()| SlotKey(key))
    }

    /// The key's id, for slots that have one.
    pub(super) fn key_id(&self) -> Option<&str> {
        match self {
            Method::Key { id } | Method::Recovery { id } => Some(id),
            Method::Passphrase { .. } => None,
        }
    }

    /// The slot's key, if `opener` may be it. A passphrase takes some tenths of a second.
    pub(super) fn try_key(&self, opener: &Opener) -> Option<SlotKey> {
        match (self.key_id(), opener) {
            (Some(wanted), _) => opener.key().filter(|key| key.id().to_string() == wanted),
            (None, Opener::Text(text)) => self.stretch(text),
            (None, Opener::Key(_)) => None,
        }
    }

    /// Seals a root key in a slot.
    pub(super) fn slot(
        &self,
        number: u32,
        vault: Uuid,
        root: &RootKey,
        key: &SlotKey,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<SlotRow, VaultError> {
        #[expect(clippy::expect_used, reason = "the enum contains only texts and numbers")]
        let method = serde_json::to_string(self).expect("a method is always valid JSON");
        let sealed = envelope::seal_root(vault, &key.0, (root.id(), root.expose()), &method, random)?;
        Ok(SlotRow { number, root: root.id().0, method, sealed, created: now })
    }
}

/// Opens one slot; returns `None` if the key does not open it.
///
/// # Errors
/// The slot does not parse.
pub(super) fn open(row: &SlotRow, vault: Uuid, opener: &Opener) -> Result<Option<RootKey>, VaultError> {
    let Some(key) = Method::of(row)?.try_key(opener) else { return Ok(None) };
    let root =
        envelope::open_root(vault, &key.0, KeyId(row.root), &row.method, &row.sealed).map(RootKey::new);
    Ok(root.filter(|root| root.id().0 == row.root))
}

/// The prefix of every recovery key.
const RECOVERY_PREFIX: &str = "onecli-rk";
const RECOVERY_LETTERS: &str = "ONECLIRK";
const CHECKSUM: usize = 3;

/// Writes a recovery key for operators: base32 (RFC 4648) of the key and of three bytes of its SHA-256, in groups
/// of four.
pub(super) fn write_recovery_key(key: &SlotKey) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(32 + CHECKSUM));
    bytes.extend_from_slice(key.0.as_ref());
    bytes.extend_from_slice(&Sha256::digest(key.0.as_ref())[..CHECKSUM]);
    let letters = Zeroizing::new(data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase());
    let mut text = Zeroizing::new(String::with_capacity(100));
    text.push_str(RECOVERY_PREFIX);
    for group in letters.as_bytes().chunks(4) {
        text.push('-');
        text.push_str(&String::from_utf8_lossy(group));
    }
    text
}

/// Parses a recovery key, ignoring case and spaces. Returns `None` for other text, and for a key with a typing
/// error.
fn parse_recovery_key(text: &str) -> Option<SlotKey> {
    let letters = letters(text);
    let letters = letters.strip_prefix(RECOVERY_LETTERS)?;
    let bytes = Zeroizing::new(data_encoding::BASE32_NOPAD.decode(letters.as_bytes()).ok()?);
    let (key, checksum) = bytes.split_first_chunk::<32>()?;
    (checksum == &Sha256::digest(key)[..CHECKSUM]).then(|| SlotKey(Zeroizing::new(*key)))
}

/// Reports whether the text was probably intended as a recovery key.
pub(super) fn looks_like_recovery_key(text: &str) -> bool {
    letters(text).starts_with(RECOVERY_LETTERS)
}

/// The significant letters of a typed recovery key.
fn letters(text: &str) -> Zeroizing<String> {
    let counts = |c: &char| *c != '-' && !c.is_whitespace();
    let mut letters = Zeroizing::new(String::with_capacity(text.len()));
    letters.extend(text.chars().filter(counts).map(|c| c.to_ascii_uppercase()));
    letters
}

/// Seals a root key under another one, for re-keying.
pub(super) fn carry(
    of: &RootKey,
    under: &RootKey,
    vault: Uuid,
    random: &dyn Random,
) -> Result<Sealed, VaultError> {
    let purpose = carry_purpose(of.id());
    envelope::seal(
        vault,
        under.kek(),
        envelope::Context::Blob { purpose: &purpose },
        of.expose().as_ref(),
        random,
    )
}

/// Opens a root key that [`carry`] sealed.
pub(super) fn carried(
    id: KeyId,
    under: &RootKey,
    vault: Uuid,
    sealed: &Sealed,
) -> Result<RootKey, VaultError> {
    let purpose = carry_purpose(id);
    let context = envelope::Context::Blob { purpose: &purpose };
    let kek = |wanted| (under.id() == wanted).then(|| under.kek());
    let key = envelope::open(vault, kek, context, sealed)?;
    let damaged = || VaultError::Damaged { what: context.to_string() };
    let root = RootKey::new(Zeroizing::new(key.as_slice().try_into().map_err(|_| damaged())?));
    if root.id() == id { Ok(root) } else { Err(damaged()) }
}

fn carry_purpose(id: KeyId) -> String {
    format!("vault.root.{id}")
}
