//! The format of sealed values. Only this module uses the cipher.
//!
//! A sealed value begins with its format; an unknown one is refused. Format 2 (integers big-endian):
//!
//! ```text
//! 02 | id of the root key, 8 bytes
//! | wrap: salt, 32 random bytes | commitment, 32 | data key, encrypted, 32 | tag, 16
//! | body:                         commitment, 32 | value, encrypted         | tag, 16
//! ```
//!
//! The data key (DEK) is random, one for each sealed value, and encrypts the body. The key-encryption key (KEK) of
//! a root key encrypts the data key. For another root key, or another binding of the wrap, only the wrap is
//! rewritten.
//!
//! Both parts are built in the same way, from a key and the part's binding:
//!
//! ```text
//! bound to   = "onecli" | 02 | kind | vault id, 16 bytes | fields of the kind
//! K | C      = HKDF-Expand-SHA-256 (RFC 5869 section 2.3) of key, info = bound to, 64 bytes
//! part       = C | AES-256-GCM under K, nonce = 12 zero bytes, associated data = bound to
//!
//! kind 1, body of a secret's value     secret id, 16 | version, 4
//! kind 2, wrap of its current version  root key id, 8 | salt, 32 | secret id, 16 | version, 4 | binding, 32
//! kind 3, wrap of an older version,
//!      no longer written            root key id, 8 | salt, 32 | secret id, 16 | version, 4
//! kind 4, body of the daemon's own     purpose, UTF-8
//! kind 5, wrap of the daemon's own     root key id, 8 | salt, 32 | purpose, UTF-8
//! kind 6, a root key in a key slot     root key id, 8 | salt, 32 | the slot's method, JSON
//! kind 7, a session at a service       salt, 16
//! kind 8, wrap of a replaced version   root key id, 8 | salt, 32 | secret id, 16 | version, 4 | binding, 32
//! ```
//!
//! A sealed session is `salt, 16 | part`, under the derivation key's subkey for sessions. It is not stored.
//!
//! Extraction is skipped, as RFC 5869 section 3.3 allows: every key here is uniformly random, or the output of HKDF
//! or Argon2. K is used once, because a wrap's salt and a body's key are new each time. So the nonce may be
//! constant.
//!
//! **Key commitment.** AES-GCM alone does not commit to its key: an attacker can build one ciphertext that opens
//! under two keys (Dodis, Grubbs, Ristenpart, Woodage, CRYPTO 2018; Len, Grubbs, Ristenpart, USENIX Security 2021).
//! C is derived together with K, by a collision-resistant function of the key and the whole binding, and is
//! compared before anything is decrypted. Bellare and Hoang call this construction `UtC`/`HtE` (EUROCRYPT 2022),
//! Albertini et al. "a key-committing derivation" (USENIX Security 2022). Here it is built on HKDF, as in the AWS
//! Encryption SDK's committing suites.
//!
//! This module's tests contain frozen vectors. A later format adds one more arm in `open`, which continues to open
//! this one.

use std::fmt;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use hkdf::Hkdf;
use onecli_model::{Random, Sealed, SecretId};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::binding::Binding;
use super::error::VaultError;
use super::key::{Kek, Key, KeyId};

/// The format of new values.
pub(super) const FORMAT: u8 = 2;
/// The position of the root key's id.
pub(super) const KEY_ID: std::ops::Range<usize> = 1..9;
const SALT: usize = 32;
/// Sessions are sealed more often, and must stay short. Among 2^48 of them, 128 random bits repeat with a
/// probability of 2^-33.
const SESSION_SALT: usize = 16;
const COMMITMENT: usize = 32;
const DATA_KEY: usize = 32;
const TAG: usize = 16;
const WRAP: usize = SALT + COMMITMENT + DATA_KEY + TAG;

/// The binding of a sealed value.
#[derive(Clone, Copy)]
pub(super) enum Context<'a> {
    /// The current version of a secret; bound also to where it may go.
    Current { secret: SecretId, version: u32, binding: Binding },
    /// A replaced version in the form that older programs wrote.
    Kept { secret: SecretId, version: u32 },
    /// A replaced version; bound also to where it could go at that time.
    Replaced { secret: SecretId, version: u32, binding: Binding },
    /// A value of the daemon itself.
    Blob { purpose: &'a str },
}

impl Context<'_> {
    fn body(self, vault: Uuid) -> Vec<u8> {
        let mut bound = begin(if matches!(self, Context::Blob { .. }) { 4 } else { 1 }, vault);
        self.subject(&mut bound);
        bound
    }

    fn wrap(self, vault: Uuid, root: KeyId, salt: &[u8; SALT]) -> Vec<u8> {
        let kind = match self {
            Context::Current { .. } => 2,
            Context::Kept { .. } => 3,
            Context::Blob { .. } => 5,
            Context::Replaced { .. } => 8,
        };
        let mut bound = begin(kind, vault);
        bound.extend_from_slice(&root.0);
        bound.extend_from_slice(salt);
        self.subject(&mut bound);
        if let Context::Current { binding, .. } | Context::Replaced { binding, .. } = self {
            bound.extend_from_slice(&binding.0);
        }
        bound
    }

    fn subject(self, bound: &mut Vec<u8>) {
        match self {
            Context::Current { secret, version, .. }
            | Context::Kept { secret, version }
            | Context::Replaced { secret, version, .. } => {
                bound.extend_from_slice(secret.0.as_bytes());
                bound.extend_from_slice(&version.to_be_bytes());
            }
            Context::Blob { purpose } => bound.extend_from_slice(purpose.as_bytes()),
        }
    }
}

fn begin(kind: u8, vault: Uuid) -> Vec<u8> {
    let mut bound = Vec::with_capacity(160);
    bound.extend_from_slice(b"onecli");
    bound.push(FORMAT);
    bound.push(kind);
    bound.extend_from_slice(vault.as_bytes());
    bound
}

impl fmt::Display for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Context::Current { secret, version, .. }
            | Context::Kept { secret, version }
            | Context::Replaced { secret, version, .. } => {
                write!(f, "version {version} of the secret {secret}")
            }
            Context::Blob { purpose } => write!(f, "the daemon's own '{purpose}'"),
        }
    }
}

/// A sealed value, split into its parts.
struct Parts<'a> {
    root: KeyId,
    salt: &'a [u8; SALT],
    wrap: &'a [u8],
    body: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(sealed: &'a Sealed, context: Context<'_>) -> Result<Parts<'a>, VaultError> {
        let damaged = || VaultError::Damaged { what: context.to_string() };
        match sealed.0.split_first() {
            Some((&FORMAT, rest)) => Parts::split(rest).ok_or_else(damaged),
            None => Err(damaged()),
            Some((&format, _)) => Err(VaultError::UnknownFormat { what: context.to_string(), format }),
        }
    }

    fn split(bytes: &'a [u8]) -> Option<Parts<'a>> {
        let (root, bytes) = bytes.split_first_chunk::<8>()?;
        let (wrap, body) = bytes.split_at_checked(WRAP)?;
        let (salt, wrap) = wrap.split_first_chunk::<SALT>()?;
        Some(Parts { root: KeyId(*root), salt, wrap, body })
    }
}

/// Seals a value under a new data key.
pub(super) fn seal(
    vault: Uuid,
    kek: &Kek,
    context: Context<'_>,
    plaintext: &[u8],
    random: &dyn Random,
) -> Result<Sealed, VaultError> {
    let mut data_key = Key::default();
    random.fill(data_key.as_mut())?;
    let mut sealed = Vec::with_capacity(1 + 8 + WRAP + COMMITMENT + plaintext.len() + TAG);
    write_wrap(&mut sealed, vault, kek, context, &data_key, random)?;
    lock(&data_key, &context.body(vault), plaintext, &mut sealed);
    Ok(Sealed(sealed))
}

/// Opens a value. `kek` returns the key for the id of a root key.
pub(super) fn open<'k>(
    vault: Uuid,
    kek: impl Fn(KeyId) -> Option<&'k Kek>,
    context: Context<'_>,
    sealed: &Sealed,
) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let (parts, data_key) = unwrap(vault, kek, context, sealed)?;
    unlock(&data_key, &context.body(vault), parts.body)
        .ok_or_else(|| VaultError::Damaged { what: context.to_string() })
}

/// Seals the data key again: under another root key, with another binding, or both. The body stays unchanged.
pub(super) fn rewrap<'k>(
    vault: Uuid,
    kek: impl Fn(KeyId) -> Option<&'k Kek>,
    context: Context<'_>,
    sealed: &Sealed,
    to: (&Kek, Context<'_>),
    random: &dyn Random,
) -> Result<Sealed, VaultError> {
    let (parts, data_key) = unwrap(vault, kek, context, sealed)?;
    // Checks that the body opens, so that a damaged value is not rewrapped.
    unlock(&data_key, &context.body(vault), parts.body)
        .ok_or_else(|| VaultError::Damaged { what: context.to_string() })?;
    let mut rewrapped = Vec::with_capacity(sealed.0.len());
    write_wrap(&mut rewrapped, vault, to.0, to.1, &data_key, random)?;
    rewrapped.extend_from_slice(parts.body);
    Ok(Sealed(rewrapped))
}

/// Seals a root key under a slot's key.
pub(super) fn seal_root(
    vault: Uuid,
    slot: &Key,
    (id, root): (KeyId, &Key),
    method: &str,
    random: &dyn Random,
) -> Result<Sealed, VaultError> {
    let mut sealed = vec![FORMAT];
    let mut salt = [0; SALT];
    random.fill(&mut salt)?;
    sealed.extend_from_slice(&salt);
    lock(slot, &slot_bound(vault, id, &salt, method), root.as_ref(), &mut sealed);
    Ok(Sealed(sealed))
}

/// Opens a root key sealed by [`seal_root`]. Returns `None` if this is not the slot's key, or the slot was changed.
pub(super) fn open_root(vault: Uuid, slot: &Key, id: KeyId, method: &str, sealed: &Sealed) -> Option<Key> {
    let (&FORMAT, rest) = sealed.0.split_first()? else { return None };
    let (salt, rest) = rest.split_first_chunk::<SALT>()?;
    let root = unlock(slot, &slot_bound(vault, id, salt, method), rest)?;
    Some(Zeroizing::new(root.as_slice().try_into().ok()?))
}

fn slot_bound(vault: Uuid, id: KeyId, salt: &[u8; SALT], method: &str) -> Vec<u8> {
    let mut bound = begin(6, vault);
    bound.extend_from_slice(&id.0);
    bound.extend_from_slice(salt);
    bound.extend_from_slice(method.as_bytes());
    bound
}

/// Seals a session that an agent will send back: see [`super::sessions`]. The length depends only on that of
/// `plaintext`.
pub(super) fn seal_session(
    vault: Uuid,
    key: &Key,
    plaintext: &[u8],
    random: &dyn Random,
) -> Result<Vec<u8>, VaultError> {
    let mut salt = [0; SESSION_SALT];
    random.fill(&mut salt)?;
    let mut sealed = Vec::with_capacity(SESSION_SALT + COMMITMENT + plaintext.len() + TAG);
    sealed.extend_from_slice(&salt);
    lock(key, &session_bound(vault, &salt), plaintext, &mut sealed);
    Ok(sealed)
}

/// Opens a session sealed by [`seal_session`]. Returns `None` if it was changed, or sealed under another key.
pub(super) fn open_session(vault: Uuid, key: &Key, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (salt, part) = sealed.split_first_chunk::<SESSION_SALT>()?;
    unlock(key, &session_bound(vault, salt), part)
}

fn session_bound(vault: Uuid, salt: &[u8; SESSION_SALT]) -> Vec<u8> {
    let mut bound = begin(7, vault);
    bound.extend_from_slice(salt);
    bound
}

fn write_wrap(
    out: &mut Vec<u8>,
    vault: Uuid,
    kek: &Kek,
    context: Context<'_>,
    data_key: &Key,
    random: &dyn Random,
) -> Result<(), VaultError> {
    let mut salt = [0; SALT];
    random.fill(&mut salt)?;
    out.push(FORMAT);
    out.extend_from_slice(&kek.root.0);
    out.extend_from_slice(&salt);
    lock(&kek.key, &context.wrap(vault, kek.root, &salt), data_key.as_ref(), out);
    Ok(())
}

fn unwrap<'s, 'k>(
    vault: Uuid,
    kek: impl Fn(KeyId) -> Option<&'k Kek>,
    context: Context<'_>,
    sealed: &'s Sealed,
) -> Result<(Parts<'s>, Key), VaultError> {
    let damaged = || VaultError::Damaged { what: context.to_string() };
    let parts = Parts::of(sealed, context)?;
    let kek = kek(parts.root)
        .ok_or_else(|| VaultError::UnknownKey { what: context.to_string(), key: parts.root })?;
    let wrapped = unlock(&kek.key, &context.wrap(vault, parts.root, parts.salt), parts.wrap);
    let Some(wrapped) = wrapped else {
        // Checks for an older version that an attacker put back.
        if let Context::Current { secret, version, binding } = context {
            let older = [Context::Kept { secret, version }, Context::Replaced { secret, version, binding }];
            let opens = |older: &Context<'_>| {
                unlock(&kek.key, &older.wrap(vault, parts.root, parts.salt), parts.wrap).is_some()
            };
            if older.iter().any(opens) {
                return Err(VaultError::RolledBack { what: context.to_string() });
            }
        }
        return Err(damaged());
    };
    let data_key = wrapped.as_slice().try_into().map(Zeroizing::new).map_err(|_| damaged())?;
    Ok((parts, data_key))
}

/// Derives the key of one part and its commitment.
fn derive(key: &Key, bound: &[u8]) -> (Aes256Gcm, [u8; COMMITMENT]) {
    let mut both = Zeroizing::new([0; 32 + COMMITMENT]);
    #[expect(
        clippy::expect_used,
        reason = "the key has the required 32 bytes, and 64 of at most 8160 bytes are requested"
    )]
    Hkdf::<Sha256>::from_prk(key.as_ref())
        .ok()
        .and_then(|hkdf| hkdf.expand(bound, both.as_mut()).ok())
        .expect("the lengths are within RFC 5869's bounds");
    let (cipher, commitment) = both.split_at(32);
    let mut committed = [0; COMMITMENT];
    committed.copy_from_slice(commitment);
    let mut cipher_key = Key::default();
    cipher_key.copy_from_slice(cipher);
    let cipher_key: &[u8; 32] = &cipher_key;
    (Aes256Gcm::new(cipher_key.into()), committed)
}

/// Encrypts a part and appends it.
fn lock(key: &Key, bound: &[u8], plaintext: &[u8], out: &mut Vec<u8>) {
    let (cipher, commitment) = derive(key, bound);
    out.extend_from_slice(&commitment);
    let at = out.len();
    out.extend_from_slice(plaintext);
    #[expect(clippy::expect_used, reason = "values are far below GCM's 64 GiB (SP 800-38D section 5.2.1.1)")]
    let tag = cipher
        .encrypt_inout_detached(&Nonce::default(), bound, (&mut out[at..]).into())
        .expect("a value is shorter than GCM's bound");
    out.extend_from_slice(&tag);
}

fn unlock(key: &Key, bound: &[u8], part: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (commitment, rest) = part.split_first_chunk::<COMMITMENT>()?;
    let (ciphertext, tag) = rest.split_last_chunk::<TAG>()?;
    let (cipher, expected) = derive(key, bound);
    if !bool::from(expected.ct_eq(commitment)) {
        return None;
    }
    let mut plaintext = Zeroizing::new(ciphertext.to_vec());
    cipher
        .decrypt_inout_detached(&Nonce::default(), bound, plaintext.as_mut_slice().into(), &Tag::from(*tag))
        .ok()?;
    Some(plaintext)
}
