//! The keys and what is sealed under them. The only way from a sealed value to one in the clear is
//! [`Vault::open`], which takes a [`Grant`].

mod client;
mod credential;
mod credentials;
mod envelope;
mod error;
mod keyring;
mod mint;
mod source;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;
use zeroize::Zeroizing;

pub use client::{Outbound, OutboundError};
pub use credential::Credential;
pub use credentials::{CredentialError, Credentials};
pub use error::VaultError;
pub use keyring::{KeyId, RootKey};
pub use mint::{MintError, check_material};
pub use source::{KeyFileError, KeySource};

use crate::model::{AgentId, Placeholder, Random, Sealed, Secret, SecretId, SecretValue, Token, TokenHash};
use crate::policy::{Grant, Watch};
use crate::store::Store;
use envelope::{Context, Envelope};
use keyring::Keyring;

/// Meta entry of the store: the vault's id, which every sealed value is bound to.
const META_VAULT: &str = "vault.id";
/// Meta entry of the store: the id of the root key that its values are sealed under.
const META_KEY: &str = "vault.key_id";

/// Seals and opens values, and derives token hashes and placeholders. Cheap to use: no I/O after
/// [`Vault::unlock`].
pub struct Vault {
    key_id: KeyId,
    keyring: Keyring,
    envelope: Envelope,
    random: Arc<dyn Random>,
}

impl Vault {
    /// Gets the root key and checks that it is the one that the store's values are sealed under. A store that
    /// has never been used gets a vault id, and the key is created if there is none.
    ///
    /// # Errors
    /// [`VaultError::WrongKey`] and [`VaultError::KeyMissing`] before anything else could go wrong because of
    /// them; see [`VaultError::is_key_problem`].
    pub async fn unlock(
        store: &dyn Store,
        source: &KeySource,
        random: Arc<dyn Random>,
    ) -> Result<Vault, VaultError> {
        let vault = store.get_meta(META_VAULT).await?;
        let wanted = store.get_meta(META_KEY).await?;
        let unused = vault.is_none() && wanted.is_none() && store.is_empty().await?;
        let root = match source.load()? {
            Some(root) => root,
            None if unused => source.create(random.as_ref())?,
            None => return Err(VaultError::KeyMissing { at: source.to_string(), wanted }),
        };
        let keyring = Keyring::derive(&root);
        let found = KeyId::of(&root);
        let vault = match (vault, wanted) {
            (Some(vault), Some(wanted)) if wanted == found.to_string() => {
                vault.parse().map_err(|_| VaultError::Meta { key: META_VAULT })?
            }
            (Some(_), Some(wanted)) => {
                return Err(VaultError::WrongKey { at: source.to_string(), wanted, found });
            }
            _ if unused => {
                let vault = random_uuid(random.as_ref())?;
                let entries = [(META_VAULT, vault.to_string()), (META_KEY, found.to_string())];
                store.set_meta(&entries.each_ref().map(|(key, value)| (*key, value.as_str()))).await?;
                vault
            }
            (None, _) => return Err(VaultError::Meta { key: META_VAULT }),
            (_, None) => return Err(VaultError::Meta { key: META_KEY }),
        };
        Ok(Vault { key_id: found, envelope: Envelope::new(vault, keyring.kek()), keyring, random })
    }

    /// Names the root key without telling anything about it.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Seals a value as one version of one secret; it opens as nothing else.
    ///
    /// # Errors
    /// [`VaultError::Random`].
    pub fn seal(&self, secret: SecretId, version: u32, value: &SecretValue) -> Result<Sealed, VaultError> {
        self.envelope.seal(Context::Secret { secret, version }, value.expose(), self.random.as_ref())
    }

    /// Opens the secret that policy granted.
    ///
    /// # Errors
    /// [`VaultError::UnknownFormat`], [`VaultError::Damaged`]: the request must be refused, never forwarded
    /// without the value.
    pub fn open(&self, grant: &Grant) -> Result<Credential, VaultError> {
        Ok(self.credential(grant, self.open_value(grant.secret())?))
    }

    /// Opens a value that must be recognised in an answer.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn open_watch(&self, watch: &Watch) -> Result<SecretValue, VaultError> {
        self.open_value(watch.secret())
    }

    /// A value that was had for this grant, ready to be placed.
    pub(super) fn credential(&self, grant: &Grant, value: SecretValue) -> Credential {
        let (agent, secret) = (grant.agent(), grant.secret());
        let placeholder =
            secret.placement.site().map(|_| self.placeholder(agent.id, secret.id, agent.generation));
        Credential::new(value, secret, placeholder.as_ref())
    }

    pub(super) fn open_value(&self, secret: &Secret) -> Result<SecretValue, VaultError> {
        let context = Context::Secret { secret: secret.id, version: secret.version };
        let mut plaintext = self.envelope.open(context, &secret.sealed)?;
        SecretValue::new(std::mem::take(&mut *plaintext))
            .map_err(|_| VaultError::Damaged { what: context.to_string() })
    }

    /// Seals something of the daemon's own, such as the CA's private key; it opens for the same purpose only.
    ///
    /// # Errors
    /// [`VaultError::Random`].
    pub fn seal_blob(&self, purpose: &str, plaintext: &[u8]) -> Result<Sealed, VaultError> {
        self.envelope.seal(Context::Blob { purpose }, plaintext, self.random.as_ref())
    }

    /// Opens what [`Vault::seal_blob`] sealed for this purpose.
    ///
    /// # Errors
    /// [`VaultError::UnknownFormat`], [`VaultError::Damaged`].
    pub fn open_blob(&self, purpose: &str, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.envelope.open(Context::Blob { purpose }, sealed)
    }

    /// What is stored and compared instead of a token: HMAC-SHA-256 under a subkey, so that a stolen database
    /// confirms no guess.
    pub fn token_hash(&self, token: &Token) -> TokenHash {
        TokenHash(*self.keyring.token_mac(token.expose().as_bytes()))
    }

    /// What the agent holds instead of this secret, until its generation changes. Derived, never stored.
    pub fn placeholder(&self, agent: AgentId, secret: SecretId, generation: u32) -> Placeholder {
        Placeholder::from_bits(self.keyring.placeholder_bits(agent, secret, generation))
    }

    /// The subkey that the audit log's integrity rests on.
    pub fn audit_key(&self) -> &Zeroizing<[u8; 32]> {
        self.keyring.audit()
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// UUID version 4 (RFC 9562 section 5.4).
fn random_uuid(random: &dyn Random) -> Result<Uuid, VaultError> {
    let mut bytes = [0; 16];
    random.fill(&mut bytes)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}
