//! Key slots: the root key, sealed under each of the keys that open it, as disk encryption does it (LUKS).

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
use super::keyring::{Key, KeyId, RootKey, SlotKey, random_key};

/// RFC 9106 section 4, the second recommended choice: 64 MiB, three passes, four lanes. The first takes 2 GiB, which a
/// daemon's host may not have to spare.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// 128 bits of salt (RFC 9106 section 3.1).
const PASSPHRASE_SALT: usize = 16;
/// What a slot may ask of this host, whatever stands in the database: 4 GiB.
const MAX_MEMORY_KIB: u32 = 4 * 1024 * 1024;
const MAX_PASSES: u32 = 64;
const MAX_LANES: u32 = 64;

/// How a slot's key is had. Its JSON form is stored, and the slot is bound to it byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Method {
    /// 32 bytes: in a key file, a credential of systemd's, or the environment.
    Key {
        /// The key's id.
        id: String,
    },
    /// A recovery key: 32 bytes, written for people.
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

/// What somebody brings to open a slot.
pub(super) enum Opener {
    /// A key.
    Key(SlotKey),
    /// A passphrase, or a recovery key as text.
    Text(Zeroizing<String>),
}

impl Opener {
    /// The key, where no slot is needed to have it.
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

    /// The slot's key out of a passphrase; `None` where the slot is not for one or asks for too much.
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
        #[expect(clippy::expect_used, reason = "a structure of texts and numbers")]
        let method = serde_json::to_string(self).expect("a method is always valid JSON");
        let sealed = envelope::seal_root(vault, &key.0, (root.id(), root.expose()), &method, random)?;
        Ok(SlotRow { number, root: root.id().0, method, sealed, created: now })
    }
}

/// Opens one slot.
///
/// # Errors
/// The slot does not parse. What does not open is `None`.
pub(super) fn open(row: &SlotRow, vault: Uuid, opener: &Opener) -> Result<Option<RootKey>, VaultError> {
    let Some(key) = Method::of(row)?.try_key(opener) else { return Ok(None) };
    let root =
        envelope::open_root(vault, &key.0, KeyId(row.root), &row.method, &row.sealed).map(RootKey::new);
    Ok(root.filter(|root| root.id().0 == row.root))
}

/// What every recovery key begins with.
const RECOVERY_PREFIX: &str = "onecli-rk";
const RECOVERY_LETTERS: &str = "ONECLIRK";
const CHECKSUM: usize = 3;

/// A recovery key for people: base32 (RFC 4648) of the key and of three bytes of its SHA-256, in groups of four.
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

/// Reads a recovery key, whatever its case and spaces. `None` where it is none, or has a mistake in it.
fn parse_recovery_key(text: &str) -> Option<SlotKey> {
    let letters = letters(text);
    let letters = letters.strip_prefix(RECOVERY_LETTERS)?;
    let bytes = Zeroizing::new(data_encoding::BASE32_NOPAD.decode(letters.as_bytes()).ok()?);
    let (key, checksum) = bytes.split_first_chunk::<32>()?;
    (checksum == &Sha256::digest(key)[..CHECKSUM]).then(|| SlotKey(Zeroizing::new(*key)))
}

/// Was a recovery key meant?
pub(super) fn looks_like_recovery_key(text: &str) -> bool {
    letters(text).starts_with(RECOVERY_LETTERS)
}

/// What counts of a recovery key that somebody typed.
fn letters(text: &str) -> Zeroizing<String> {
    let counts = |c: &char| *c != '-' && !c.is_whitespace();
    let mut letters = Zeroizing::new(String::with_capacity(text.len()));
    letters.extend(text.chars().filter(counts).map(|c| c.to_ascii_uppercase()));
    letters
}

/// A sealed root key, for the other one of two while a new one takes over.
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

/// Opens what [`carry`] sealed.
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
