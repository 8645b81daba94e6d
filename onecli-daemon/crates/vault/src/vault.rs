//! The vault: seals and opens values, and derives token hashes and placeholders.

use std::fmt;
use std::sync::Arc;

use onecli_model::{AgentId, Placeholder, Random, Sealed, Secret, SecretId, SecretValue, Token, TokenHash};
use onecli_policy::{Grant, ScrubGrant};
use parking_lot::RwLock;
use tokio::sync::watch;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::binding::Binding;
use super::credential::Credential;
use super::envelope::{self, Context};
use super::error::VaultError;
use super::key::{Kek, KeyId};
use super::key_source::KeySource;
use super::keyring::{Derived, RootKey};
use super::rekey::Rekey;

/// Seals and opens values, and derives token hashes and placeholders. It needs no I/O after [`Vault::unlock`].
pub struct Vault {
    pub(super) id: Uuid,
    pub(super) derived: Derived,
    pub(super) roots: RwLock<Arc<Roots>>,
    pub(super) opened: Opened,
    pub(super) source: KeySource,
    pub(super) rekey: watch::Sender<Option<Rekey>>,
    pub(super) random: Arc<dyn Random>,
}

/// The root keys that values may be sealed under. New values are sealed under the current one.
pub(super) struct Roots {
    pub(super) current: RootKey,
    /// The root keys that it replaced. Some values may be sealed under the last of them. Older ones are needed for
    /// the values of the current policy snapshot and of running requests.
    pub(super) former: Vec<RootKey>,
}

impl Roots {
    pub(super) fn kek(&self, id: KeyId) -> Option<&Kek> {
        std::iter::once(&self.current).chain(&self.former).map(RootKey::kek).find(|kek| kek.root == id)
    }

    /// The former root keys without `gone`. Root keys cannot be cloned, so they are built again.
    pub(super) fn former_without(&self, gone: Option<KeyId>) -> Vec<RootKey> {
        let stays = |root: &&RootKey| Some(root.id()) != gone;
        self.former.iter().filter(stays).map(|root| RootKey::new(root.expose().clone())).collect()
    }
}

/// The key that opened the vault.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub(super) at: String,
    pub(super) slot: u32,
}

impl Vault {
    pub(super) fn roots(&self) -> Arc<Roots> {
        Arc::clone(&self.roots.read())
    }

    pub(super) fn set_roots(&self, roots: Roots) {
        *self.roots.write() = Arc::new(roots);
    }

    /// The id of the root key. It reveals nothing about the key.
    pub fn key_id(&self) -> KeyId {
        self.roots().current.id()
    }

    /// Seals a value as the current version of this secret, bound to where it may go; it cannot be opened as
    /// anything else. The sealed value inside `secret` is ignored.
    ///
    /// # Errors
    /// [`VaultError::Random`].
    pub fn seal(&self, secret: &Secret, value: &SecretValue) -> Result<Sealed, VaultError> {
        let roots = self.roots();
        envelope::seal(self.id, roots.current.kek(), current(secret), value.expose(), self.random.as_ref())
    }

    /// Rebinds the sealed value of `from` to `to`: the same secret in the same version, with another destination.
    /// Every change of the destination must use this, or the value can no longer be opened.
    ///
    /// # Errors
    /// As [`Vault::open`]; [`VaultError::Random`].
    pub fn rebind(&self, from: &Secret, to: &Secret) -> Result<Sealed, VaultError> {
        self.rewrap(current(from), &from.sealed, current(to))
    }

    /// Seals the value of `from` as that of `to`, the next version of the same secret, and records its class.
    /// `accept` may refuse the value.
    ///
    /// # Errors
    /// As [`Vault::open`]; [`VaultError::Random`]; the error of `accept`.
    pub fn carry<E: From<VaultError>>(
        &self,
        from: &Secret,
        to: &mut Secret,
        accept: impl FnOnce(&Secret, &SecretValue) -> Result<(), E>,
    ) -> Result<(), E> {
        let value = self.open_value(from)?;
        accept(to, &value)?;
        to.class = Some(to.class_of(&value));
        to.sealed = self.seal(to, &value)?;
        Ok(())
    }

    /// Seals the replaced value of `from` as that of `to`, another version of the same secret.
    ///
    /// # Errors
    /// As [`Vault::open_replaced`]; [`VaultError::Random`].
    pub fn move_replaced(&self, from: &Secret, to: &mut Secret) -> Result<(), VaultError> {
        let (value, roots) = (self.open_replaced(from)?, self.roots());
        let random = self.random.as_ref();
        to.sealed = envelope::seal(self.id, roots.current.kek(), replaced(to), value.expose(), random)?;
        Ok(())
    }

    /// Seals the value of a secret as that of a replaced version: it is never sent, even if its row is put back. It
    /// stays bound to where it could go.
    ///
    /// # Errors
    /// As [`Vault::open`]; [`VaultError::Random`].
    pub fn retire(&self, secret: &Secret) -> Result<Sealed, VaultError> {
        self.rewrap(current(secret), &secret.sealed, replaced(secret))
    }

    pub(super) fn rewrap(
        &self,
        from: Context<'_>,
        sealed: &Sealed,
        to: Context<'_>,
    ) -> Result<Sealed, VaultError> {
        let roots = self.roots();
        let kek = |id| roots.kek(id);
        envelope::rewrap(self.id, kek, from, sealed, (roots.current.kek(), to), self.random.as_ref())
    }

    /// Opens the secret that policy granted.
    ///
    /// # Errors
    /// [`VaultError::UnknownFormat`], [`VaultError::Damaged`], [`VaultError::RolledBack`], ...: the caller must
    /// refuse the request and never forward it without the value.
    pub fn open(&self, grant: &Grant) -> Result<Credential, VaultError> {
        Ok(self.credential(grant, self.open_value(grant.secret())?))
    }

    /// Opens a value that must be recognised in a response.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn open_scrub_grant(&self, grant: &ScrubGrant) -> Result<SecretValue, VaultError> {
        if grant.is_replaced() { self.open_replaced(grant.secret()) } else { self.open_value(grant.secret()) }
    }

    /// Opens a value that [`Vault::retire`] sealed, to restore it.
    ///
    /// # Errors
    /// As [`Vault::open`]; also if the row does not contain where the value could go.
    pub fn open_replaced(&self, kept: &Secret) -> Result<SecretValue, VaultError> {
        self.open_version(replaced(kept), &kept.sealed)
    }

    /// Combines a value obtained for this grant with its placement.
    pub(crate) fn credential(&self, grant: &Grant, value: SecretValue) -> Credential {
        let (agent, secret) = (grant.agent(), grant.secret());
        let placeholder = secret
            .placement
            .placeholder_part()
            .map(|_| self.placeholder(agent.id, secret.id, agent.generation));
        Credential::new(value, secret, placeholder.as_ref())
    }

    pub(crate) fn open_value(&self, secret: &Secret) -> Result<SecretValue, VaultError> {
        self.open_version(current(secret), &secret.sealed)
    }

    pub(super) fn open_version(
        &self,
        context: Context<'_>,
        sealed: &Sealed,
    ) -> Result<SecretValue, VaultError> {
        let roots = self.roots();
        let mut plaintext = envelope::open(self.id, |id| roots.kek(id), context, sealed)?;
        SecretValue::new(std::mem::take(&mut *plaintext))
            .map_err(|_| VaultError::Damaged { what: context.to_string() })
    }

    /// Reports whether this is the secret's value.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn holds(&self, secret: &Secret, value: &SecretValue) -> Result<bool, VaultError> {
        Ok(self.open_value(secret)?.expose() == value.expose())
    }

    /// Seals data of the daemon itself, such as the CA's private key; it can be opened for the same purpose only.
    /// The store must contain it under that purpose, so that a new root key finds it.
    ///
    /// # Errors
    /// [`VaultError::Random`].
    pub fn seal_blob(&self, purpose: &str, plaintext: &[u8]) -> Result<Sealed, VaultError> {
        let context = Context::Blob { purpose };
        envelope::seal(self.id, self.roots().current.kek(), context, plaintext, self.random.as_ref())
    }

    /// Opens data that [`Vault::seal_blob`] sealed for this purpose.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn open_blob(&self, purpose: &str, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let roots = self.roots();
        envelope::open(self.id, |id| roots.kek(id), Context::Blob { purpose }, sealed)
    }

    /// The hash that is stored and compared instead of a token: HMAC-SHA-256 under a subkey, so that a stolen
    /// database cannot confirm guesses.
    pub fn token_hash(&self, token: &Token) -> TokenHash {
        TokenHash(*self.derived.token_mac(token.expose().as_bytes()))
    }

    /// The placeholder that the agent uses for this secret until its generation changes. It is derived, never
    /// stored.
    pub fn placeholder(&self, agent: AgentId, secret: SecretId, generation: u32) -> Placeholder {
        Placeholder::from_bits(self.derived.placeholder_bits(agent, secret, generation))
    }

    /// The subkey that protects the audit log's integrity.
    pub fn audit_key(&self) -> &Zeroizing<[u8; 32]> {
        self.derived.audit()
    }
}

pub(super) fn current(secret: &Secret) -> Context<'static> {
    Context::Current { secret: secret.id, version: secret.version, binding: Binding::of(secret) }
}

pub(super) fn replaced(secret: &Secret) -> Context<'static> {
    Context::Replaced { secret: secret.id, version: secret.version, binding: Binding::of(secret) }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("key_id", &self.key_id()).finish_non_exhaustive()
    }
}
