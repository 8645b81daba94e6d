//! How a value is sealed. The only place that knows the cipher.
//!
//! A sealed blob begins with its format; an unknown one is refused. Format 1:
//!
//! ```text
//! 01 | nonce, 12 random bytes | AES-256-GCM ciphertext | tag, 16 bytes
//! ```
//!
//! under the KEK, with this as associated data (integers big-endian):
//!
//! ```text
//! "onecli" | 01 | kind | vault id, 16 bytes | kind 1, a secret: secret id, 16 bytes; version, 4 bytes
//!                                           | kind 2, a blob: its purpose, UTF-8
//! ```
//!
//! so a blob opens only in the row it was sealed for. Random nonces are good for 2^32 seals under one key (NIST
//! SP 800-38D section 8.3); a seal is a person's act. A later format is one more arm in `seal` and `open`, with
//! frozen vectors in the tests of this module; old formats keep opening.

use std::fmt;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::error::VaultError;
use super::keyring::Key;
use crate::model::{Random, Sealed, SecretId};

const FORMAT_1: u8 = 1;
const NONCE: usize = 12;
const TAG: usize = 16;

/// What a blob is bound to.
#[derive(Clone, Copy)]
pub(super) enum Context<'a> {
    /// A version of a secret.
    Secret { secret: SecretId, version: u32 },
    /// Something of the daemon's own.
    Blob { purpose: &'a str },
}

impl Context<'_> {
    fn associated_data(self, format: u8, vault: Uuid) -> Vec<u8> {
        let mut data = Vec::with_capacity(64);
        data.extend_from_slice(b"onecli");
        data.push(format);
        match self {
            Context::Secret { secret, version } => {
                data.push(1);
                data.extend_from_slice(vault.as_bytes());
                data.extend_from_slice(secret.0.as_bytes());
                data.extend_from_slice(&version.to_be_bytes());
            }
            Context::Blob { purpose } => {
                data.push(2);
                data.extend_from_slice(vault.as_bytes());
                data.extend_from_slice(purpose.as_bytes());
            }
        }
        data
    }
}

impl fmt::Display for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Context::Secret { secret, version } => write!(f, "version {version} of the secret {secret}"),
            Context::Blob { purpose } => write!(f, "the daemon's own '{purpose}'"),
        }
    }
}

/// Seals and opens for one vault.
pub(super) struct Envelope {
    vault: Uuid,
    kek: Aes256Gcm,
}

impl Envelope {
    pub(super) fn new(vault: Uuid, kek: &Key) -> Envelope {
        let key: &[u8; 32] = kek;
        Envelope { vault, kek: Aes256Gcm::new(key.into()) }
    }

    pub(super) fn seal(
        &self,
        context: Context<'_>,
        plaintext: &[u8],
        random: &dyn Random,
    ) -> Result<Sealed, VaultError> {
        let mut nonce = [0; NONCE];
        random.fill(&mut nonce)?;
        let mut blob = Vec::with_capacity(1 + NONCE + plaintext.len() + TAG);
        blob.push(FORMAT_1);
        blob.extend_from_slice(&nonce);
        blob.extend_from_slice(plaintext);
        let associated = context.associated_data(FORMAT_1, self.vault);
        #[expect(
            clippy::expect_used,
            reason = "values are far below GCM's 64 GiB (SP 800-38D section 5.2.1.1)"
        )]
        let tag = self
            .kek
            .encrypt_inout_detached(&Nonce::from(nonce), &associated, (&mut blob[1 + NONCE..]).into())
            .expect("a value is shorter than GCM's bound");
        blob.extend_from_slice(&tag);
        Ok(Sealed(blob))
    }

    pub(super) fn open(
        &self,
        context: Context<'_>,
        sealed: &Sealed,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let damaged = || VaultError::Damaged { what: context.to_string() };
        match sealed.0.split_first() {
            None => Err(damaged()),
            Some((&FORMAT_1, body)) => self.open_format_1(context, body).ok_or_else(damaged),
            Some((&format, _)) => Err(VaultError::UnknownFormat { what: context.to_string(), format }),
        }
    }

    fn open_format_1(&self, context: Context<'_>, body: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, rest) = body.split_first_chunk::<NONCE>()?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG>()?;
        let mut plaintext = Zeroizing::new(ciphertext.to_vec());
        let associated = context.associated_data(FORMAT_1, self.vault);
        self.kek
            .decrypt_inout_detached(
                &Nonce::from(*nonce),
                &associated,
                plaintext.as_mut_slice().into(),
                &Tag::from(*tag),
            )
            .ok()?;
        Some(plaintext)
    }
}
