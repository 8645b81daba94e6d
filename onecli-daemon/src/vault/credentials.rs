//! From a grant to the credential that is placed: what is stored, or a token that was bought with it.
//!
//! ```text
//! Grant ► material (sealed in the store) ► mint, where the secret's profile has one ► Credential
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::Vault;
use super::client::Outbound;
use super::credential::Credential;
use super::error::VaultError;
use super::mint::{self, MintError};
use crate::model::{AwsKeys, Clock, Mint, Placement, Secret, SecretId, SecretValue};
use crate::policy::{Grant, Watch};
use crate::store::Store;

/// Secrets whose tokens are kept.
const KEPT: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Tokens of one secret that are looked for in answers, the newest ones.
const LOOKED_FOR: usize = 4;
/// A token is given up so long before it ends, or a fifth of its lifetime where that is shorter.
const EARLY: Duration = Duration::from_mins(1);
/// After a failure the endpoint is left alone, each time for twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Why there is no credential. Never holds a value.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// What is stored cannot be opened.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// No token could be had.
    #[error(transparent)]
    Mint(#[from] MintError),
}

/// Opens what is granted; buys tokens, keeps them until just before they end, one purchase for a secret at a time.
pub struct Credentials {
    vault: Arc<Vault>,
    store: Arc<dyn Store>,
    outbound: Arc<dyn Outbound>,
    clock: Arc<dyn Clock>,
    purses: Mutex<LruCache<SecretId, Arc<Purse>>>,
}

/// The tokens of one secret.
#[derive(Default)]
struct Purse {
    /// Held while one is bought: whoever comes meanwhile waits for that one.
    state: tokio::sync::Mutex<State>,
    issued: Mutex<VecDeque<SecretValue>>,
}

impl Purse {
    /// It is looked for in answers from now on.
    fn note(&self, token: SecretValue) {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued.push_front(token);
        issued.truncate(LOOKED_FOR);
    }
}

#[derive(Default)]
struct State {
    token: Option<Kept>,
    /// What the next token is bought with, where the store does not have it yet.
    successor: Option<(u32, SecretValue)>,
    /// The secret as the store has it, where that is a successor of ours.
    latest: Option<Secret>,
    failure: Option<(MintError, Instant, Duration)>,
    /// The secret's version that all of this belongs to, or a later one that is our own successor.
    version: u32,
}

struct Kept {
    value: SecretValue,
    until: Instant,
}

impl Credentials {
    /// Tokens are bought through `outbound`; new refresh tokens go to `store`.
    pub fn new(
        vault: Arc<Vault>,
        store: Arc<dyn Store>,
        outbound: Arc<dyn Outbound>,
        clock: Arc<dyn Clock>,
    ) -> Credentials {
        Credentials { vault, store, outbound, clock, purses: Mutex::new(LruCache::new(KEPT)) }
    }

    /// The credential that policy granted.
    ///
    /// # Errors
    /// [`CredentialError`]: the request must be refused, never forwarded without the value.
    pub async fn open(&self, grant: &Grant) -> Result<Credential, CredentialError> {
        let secret = grant.secret();
        let Some(mint) = &secret.profile.mint else { return Ok(self.vault.open(grant)?) };
        let token = self.token(secret, mint).await?;
        Ok(self.vault.credential(grant, token))
    }

    /// What must not come back from a host that `watch` is for: values, the parts of one, and tokens.
    ///
    /// # Errors
    /// As [`Vault::open_watch`].
    pub fn watched(&self, watch: &Watch) -> Result<Vec<SecretValue>, VaultError> {
        let value = self.vault.open_watch(watch)?;
        let secret = watch.secret();
        if let Some(mint) = &secret.profile.mint {
            let purse = self.purse(secret.id);
            let issued = purse.issued.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(mint::sensitive_parts(mint, &value)
                .into_iter()
                .chain(issued.iter().cloned())
                .collect());
        }
        if matches!(secret.placement, Placement::SigV4 { .. })
            && let Ok(keys) = AwsKeys::parse(&value)
        {
            return Ok(std::iter::once(keys.secret).chain(keys.token).collect());
        }
        Ok(vec![value])
    }

    /// Forgets the token that an upstream did not take (401), if it is still the one that is kept. Tells whether
    /// another can be had.
    pub async fn rejected(&self, grant: &Grant, credential: &Credential) -> bool {
        if grant.secret().profile.mint.is_none() {
            return false;
        }
        let purse = self.purse(grant.secret().id);
        let mut state = purse.state.lock().await;
        if state.token.as_ref().is_some_and(|kept| kept.value.expose() == credential.value().expose()) {
            state.token = None;
        }
        true
    }

    fn purse(&self, secret: SecretId) -> Arc<Purse> {
        let mut purses = self.purses.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(purses.get_or_insert(secret, Arc::default))
    }

    async fn token(&self, secret: &Secret, mint: &Mint) -> Result<SecretValue, CredentialError> {
        let purse = self.purse(secret.id);
        let mut state = purse.state.lock().await;
        // A person gave it a new value: what was bought with the old one goes.
        if state.version < secret.version {
            *state = State { version: secret.version, ..State::default() };
        }
        let now = self.clock.instant();
        if let Some(kept) = state.token.as_ref().filter(|kept| now < kept.until) {
            return Ok(kept.value.clone());
        }
        if let Some((error, _, _)) = state.failure.as_ref().filter(|(_, until, _)| now < *until) {
            return Err(error.clone().into());
        }
        let material = match &state.successor {
            Some((_, successor)) => successor.clone(),
            None => self.vault.open_value(secret)?,
        };
        match mint::buy(mint, &material, self.outbound.as_ref(), self.clock.now()).await {
            Ok(bought) => {
                let early = EARLY.min(bought.lifetime / 5);
                let until = self.clock.instant() + bought.lifetime.saturating_sub(early);
                state.token = Some(Kept { value: bought.token.clone(), until });
                state.failure = None;
                purse.note(bought.token.clone());
                if let Some(successor) = bought.successor {
                    self.succeed(secret, &mut state, successor).await;
                }
                Ok(bought.token)
            }
            Err(error) => {
                tracing::error!(%error, secret = %secret.name, "no token could be had");
                let pause = state
                    .failure
                    .as_ref()
                    .map_or(FIRST_PAUSE, |(_, _, pause)| (*pause * 2).min(LONGEST_PAUSE));
                state.failure = Some((error.clone(), self.clock.instant() + pause, pause));
                Err(error.into())
            }
        }
    }

    /// Stores what the next token is bought with: the old refresh token is spent. Where the store fails, it is kept in
    /// memory and tried again with the next one.
    async fn succeed(&self, secret: &Secret, state: &mut State, successor: SecretValue) {
        let current =
            state.latest.as_ref().filter(|latest| latest.version == state.version).unwrap_or(secret);
        let mut next = Secret { version: state.version + 1, ..current.clone() };
        match self.store_successor(current, &mut next, &successor).await {
            Ok(()) => {
                state.version = next.version;
                state.successor = Some((next.version, successor));
                state.latest = Some(next);
            }
            Err(error) => {
                tracing::error!(error, secret = %secret.name, "a new refresh token could not be stored");
                state.successor = Some((next.version, successor));
            }
        }
    }

    async fn store_successor(
        &self,
        current: &Secret,
        next: &mut Secret,
        value: &SecretValue,
    ) -> Result<(), String> {
        let kept = self.vault.retire(current).map_err(|error| error.to_string())?;
        next.sealed = self.vault.seal(next, value).map_err(|error| error.to_string())?;
        let added = self.store.add_version(next.id, next.version, &next.sealed, &kept).await;
        added.map_err(|error| error.to_string())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}
