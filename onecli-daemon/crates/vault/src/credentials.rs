//! From a grant to the credential to place: a stored value, a value from a backend, or a token requested with
//! either.
//!
//! ```text
//! Grant ► material (sealed in the store, or from its source) ► mint, if the profile has one ► Credential
//! ```

mod scrub;
mod successor;

pub use scrub::wire_forms;

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lru::LruCache;
use onecli_model::{AgentId, Clock, Secret, SecretId, SecretValue, Source};
use onecli_policy::Grant;
use onecli_store::Store;
use parking_lot::Mutex;

use super::credential::Credential;
use super::error::VaultError;
use super::sources::cache::RecentlyServed;
use super::sources::cache::fetch_cache::to_its_end;
use super::sources::{SourceError, Sources, ValueOrigin};
use super::tokens::client::{Purpose, TokenEndpointClient};
use super::tokens::{self, MintContext, MintError};
use super::vault::Vault;

/// The number of secrets whose tokens are cached: with [`MAX_SCRUBBED_BYTES`] for each, at most 128 MiB.
const MAX_SECRETS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// The number of newest tokens of one secret that responses are scrubbed for, within [`MAX_SCRUBBED_BYTES`] together.
/// A token has at most 16 KiB, and most have less than 2 KiB.
const MAX_SCRUBBED: usize = 64;
const MAX_SCRUBBED_BYTES: usize = 128 << 10;
/// The least interval between replacements of refused tokens. A refused token is replaced at once. But an agent can
/// provoke refusals, and a token should have expired when it is no longer scrubbed.
const REPLACEMENT_INTERVAL: Duration = Duration::from_mins(1);
/// How long before its expiry a token is discarded; a fifth of its lifetime if that is shorter.
const EXPIRY_MARGIN: Duration = Duration::from_mins(1);
/// The pause after a failure at the endpoint. Each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// The reason why there is no credential. It never contains a value.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The stored value cannot be opened.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// No token could be obtained.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// The source of the value did not return it.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Opens granted secrets. Requests tokens and caches them until shortly before they expire. Each secret has at most
/// one running token request.
pub struct Credentials {
    vault: Arc<Vault>,
    store: Arc<dyn Store>,
    token_client: Arc<dyn TokenEndpointClient>,
    clock: Arc<dyn Clock>,
    sources: Sources,
    recent: RecentlyServed,
    token_caches: Mutex<LruCache<SecretId, Arc<TokenCache>>>,
    /// The number of issued tokens, and of values that a source returned for the first time.
    changes: AtomicU64,
}

/// The tokens of one secret.
#[derive(Default)]
struct TokenCache {
    /// Locked during a token request, so that concurrent callers wait for the same token.
    state: tokio::sync::Mutex<TokenState>,
    issued: Mutex<VecDeque<SecretValue>>,
}

impl TokenCache {
    /// Adds a token that responses are scrubbed for from now on.
    fn note(&self, token: SecretValue) {
        let mut issued = self.issued.lock();
        issued.push_front(token);
        let within = |bytes: &mut usize, token: &SecretValue| {
            *bytes += token.expose().len();
            (*bytes <= MAX_SCRUBBED_BYTES).then_some(())
        };
        let most = issued.iter().take(MAX_SCRUBBED).scan(0, within).count();
        issued.truncate(most);
    }
}

#[derive(Default)]
struct TokenState {
    token: Option<CachedToken>,
    /// The refresh token for the next request, if the store does not have it yet.
    successor: Option<(u32, SecretValue)>,
    /// The secret as stored, if this daemon stored a successor of it.
    latest: Option<Secret>,
    failure: Option<(MintError, Instant, Duration)>,
    /// When a token was last discarded because an upstream refused it.
    replaced: Option<Instant>,
    /// The version of the secret that this state belongs to, or the later version of a successor that this daemon
    /// stored.
    version: u32,
}

impl TokenState {
    fn cached(&self, secret: &Secret, now: Instant) -> Option<(SecretValue, Option<ValueOrigin>)> {
        let cached =
            self.token.as_ref().filter(|cached| now < cached.until && self.version >= secret.version)?;
        Some((cached.value.clone(), cached.origin.clone()))
    }
}

struct CachedToken {
    value: SecretValue,
    until: Instant,
    /// The source of the value that the token was requested with.
    origin: Option<ValueOrigin>,
}

impl Credentials {
    /// Tokens are requested through `token_client`; new refresh tokens are written to `store`.
    pub fn new(
        vault: Arc<Vault>,
        store: Arc<dyn Store>,
        token_client: Arc<dyn TokenEndpointClient>,
        sources: Sources,
        clock: Arc<dyn Clock>,
    ) -> Credentials {
        let token_caches = Mutex::new(LruCache::new(MAX_SECRETS));
        let (recent, changes) = (RecentlyServed::new(), AtomicU64::new(0));
        Credentials { vault, store, token_client, clock, sources, recent, token_caches, changes }
    }

    /// Returns the credential that policy granted.
    ///
    /// # Errors
    /// [`CredentialError`]: the caller must refuse the request and never forward it without the value.
    pub async fn open(self: &Arc<Self>, grant: &Grant) -> Result<Credential, CredentialError> {
        let (agent, secret) = (grant.agent().id, grant.secret());
        if secret.profile.mint.is_none() {
            let (value, origin) = self.material(agent, secret).await?;
            return Ok(self.vault.credential(grant, value).from(origin));
        }
        let (token, origin) = match self.cached(secret).await {
            Some(cached) => cached,
            None => self.token(grant).await?,
        };
        Ok(self.vault.credential(grant, token).from(origin))
    }

    /// Discards a cached value that an upstream refused (401). Reports whether another one is available.
    pub async fn rejected(&self, grant: &Grant, credential: &Credential) -> bool {
        let (agent, secret) = (grant.agent().id, grant.secret());
        let mut fetched_again = false;
        if let Some(source) = &secret.profile.source
            && self.recent.may_refetch(agent, secret.id, self.clock.instant())
        {
            self.sources.evict(agent, source).await;
            fetched_again = true;
        }
        if secret.profile.mint.is_none() {
            let refused = credential.value().expose();
            return fetched_again
                && self.material(agent, secret).await.is_ok_and(|(value, _)| value.expose() != refused);
        }
        let token_cache = self.token_cache(secret.id);
        let mut state = token_cache.state.lock().await;
        if state.token.as_ref().is_some_and(|cached| cached.value.expose() == credential.value().expose()) {
            let now = self.clock.instant();
            if state.replaced.is_some_and(|at| now.saturating_duration_since(at) < REPLACEMENT_INTERVAL) {
                return false;
            }
            state.token = None;
            state.replaced = Some(now);
        }
        true
    }

    /// Forgets old values that are no longer needed.
    pub fn tidy(&self) {
        self.recent.tidy(self.clock.instant());
        self.sources.tidy();
    }

    /// The secret's current value, from the store or its source.
    async fn material(
        &self,
        agent: AgentId,
        secret: &Secret,
    ) -> Result<(SecretValue, Option<ValueOrigin>), CredentialError> {
        let Some(source) = self.source_of(secret)? else {
            return Ok((self.vault.open_value(secret)?, None));
        };
        // Boxed, because it is rarely needed and larger than everything else that a request waits for.
        let fetched = Box::pin(self.sources.fetch(agent, source)).await?;
        if self.recent.note(agent, secret.id, &fetched.value, self.clock.instant()) {
            self.changes.fetch_add(1, Ordering::Release);
        }
        Ok((fetched.value, Some(fetched.origin)))
    }

    /// The secret's source, if the sealed value confirms it: an attacker who edits a row cannot choose what is
    /// fetched.
    fn source_of<'s>(&self, secret: &'s Secret) -> Result<Option<&'s Source>, VaultError> {
        let Some(source) = &secret.profile.source else { return Ok(None) };
        if self.vault.open_value(secret)?.expose() == source.to_sealed_text().as_bytes() {
            Ok(Some(source))
        } else {
            Err(VaultError::Damaged { what: format!("the source of secret '{}'", secret.name) })
        }
    }

    fn token_cache(&self, secret: SecretId) -> Arc<TokenCache> {
        let mut token_caches = self.token_caches.lock();
        Arc::clone(token_caches.get_or_insert(secret, Arc::default))
    }

    /// The cached token, if it is still valid.
    async fn cached(&self, secret: &Secret) -> Option<(SecretValue, Option<ValueOrigin>)> {
        let token_cache = self.token_cache(secret.id);
        let state = token_cache.state.lock().await;
        state.cached(secret, self.clock.instant())
    }

    /// Requests a token in a task that outlives its caller: if the client disconnects, a refresh token that can be
    /// used only once must not be lost.
    async fn token(
        self: &Arc<Self>,
        grant: &Grant,
    ) -> Result<(SecretValue, Option<ValueOrigin>), CredentialError> {
        let (own, grant) = (Arc::clone(self), grant.clone());
        to_its_end(async move { own.request_token(&grant).await }).await
    }

    async fn request_token(
        &self,
        grant: &Grant,
    ) -> Result<(SecretValue, Option<ValueOrigin>), CredentialError> {
        let (agent, secret) = (grant.agent(), grant.secret());
        let Some(mint) = &secret.profile.mint else { return self.material(agent.id, secret).await };
        let token_cache = self.token_cache(secret.id);
        let mut state = token_cache.state.lock().await;
        // An administrator replaced the value: discard what was obtained with the old one.
        if state.version < secret.version {
            *state = TokenState { version: secret.version, ..TokenState::default() };
        }
        let now = self.clock.instant();
        if let Some(cached) = state.cached(secret, now) {
            return Ok(cached);
        }
        if let Some((error, _, _)) = state.failure.as_ref().filter(|(_, until, _)| now < *until) {
            return Err(error.clone().into());
        }
        let (material, origin) = match &state.successor {
            Some((_, successor)) => (successor.clone(), None),
            None => self.material(agent.id, secret).await?,
        };
        let purpose = Purpose { agent: &agent.name, secret: &secret.name, version: state.version };
        let context =
            MintContext { token_client: self.token_client.as_ref(), purpose, now: self.clock.now() };
        match tokens::request_token(mint, &material, context).await {
            Ok(issued) => {
                let early = EXPIRY_MARGIN.min(issued.lifetime / 5);
                let until = self.clock.instant() + issued.lifetime.saturating_sub(early);
                state.token =
                    Some(CachedToken { value: issued.token.clone(), until, origin: origin.clone() });
                state.failure = None;
                token_cache.note(issued.token.clone());
                self.changes.fetch_add(1, Ordering::Release);
                if let Some(successor) = issued.successor {
                    self.succeed(secret, &mut state, successor).await;
                }
                Ok((issued.token, origin))
            }
            Err(error) => {
                tracing::error!(%error, secret = %secret.name, "no token could be obtained");
                let pause = state
                    .failure
                    .as_ref()
                    .map_or(FIRST_PAUSE, |(_, _, pause)| (*pause * 2).min(LONGEST_PAUSE));
                state.failure = Some((error.clone(), self.clock.instant() + pause, pause));
                Err(error.into())
            }
        }
    }

    /// Stores the successor of a refresh token, because the old one can no longer be used. If the store fails, the
    /// successor stays in memory, and the next one is stored in its place.
    async fn succeed(&self, secret: &Secret, state: &mut TokenState, successor: SecretValue) {
        let current =
            state.latest.as_ref().filter(|latest| latest.version == state.version).unwrap_or(secret);
        match self.store_successor(current, &successor).await {
            Ok(next) => {
                state.version = next.version;
                state.successor = Some((next.version, successor));
                state.latest = Some(next);
            }
            Err(error) => {
                tracing::error!(error, secret = %secret.name, "a new refresh token could not be stored");
                state.successor = Some((current.version + 1, successor));
            }
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_tokens_are_scrubbed_within_count_and_bytes() {
        let token_cache = TokenCache::default();
        let note = |size: usize, count: usize| {
            for _ in 0..count {
                token_cache.note(SecretValue::new(vec![b'x'; size]).unwrap());
            }
            let issued = token_cache.issued.lock();
            issued.iter().map(|token| token.expose().len()).collect::<Vec<_>>()
        };
        assert_eq!(note(1024, 100), [1024; MAX_SCRUBBED]);
        let cached = note(16 << 10, 1);
        assert_eq!((cached[0], cached.len()), (16 << 10, MAX_SCRUBBED));
        let cached = note(16 << 10, 20);
        assert_eq!((cached.len(), cached.iter().sum()), (8, MAX_SCRUBBED_BYTES));
    }
}
