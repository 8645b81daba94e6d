//! The values that responses are searched for: those in the store, and those of other sources that are in memory.

use std::sync::atomic::Ordering;

use onecli_model::{AgentId, Secret, SecretValue, WireForm};
use onecli_policy::{ScrubGrant, SentAs};

use super::{CredentialError, Credentials};
use crate::error::VaultError;
use crate::tokens;

impl Credentials {
    /// The forms in which a stored value was sent; `None` if it is fetched from elsewhere or issued by a token
    /// endpoint, so that it may change at any time.
    ///
    /// # Errors
    /// [`VaultError`]: the value cannot be opened.
    pub fn stored_forms(&self, grant: &ScrubGrant) -> Result<Option<Vec<WireForm>>, VaultError> {
        let secret = grant.secret();
        let is_issued = grant.sent() == SentAs::Placed && secret.profile.mint.is_some();
        if is_issued || secret.profile.source.is_some() {
            return Ok(None);
        }
        Ok(Some(wire_forms(grant, &self.vault.open_scrub_grant(grant)?)))
    }

    /// The recent values of the secret, for an agent that may use it or once could. They are fetched if necessary.
    /// No token is requested only for scrubbing.
    ///
    /// # Errors
    /// [`CredentialError`]: an unknown value cannot be recognised either.
    pub async fn current_values(
        &self,
        agent: AgentId,
        grant: &ScrubGrant,
    ) -> Result<Vec<SecretValue>, CredentialError> {
        let secret = grant.secret();
        if secret.profile.mint.is_some() || secret.profile.source.is_none() {
            return Ok(self.values_in_memory(grant));
        }
        self.held(agent, secret).await
    }

    /// The recent values of the secret in memory, of all agents. Nothing is fetched, requested or waited for.
    pub fn values_in_memory(&self, grant: &ScrubGrant) -> Vec<SecretValue> {
        let secret = grant.secret();
        if grant.sent() == SentAs::Placed && secret.profile.mint.is_some() {
            return self.issued(secret);
        }
        let Some(source) = &secret.profile.source else { return Vec::new() };
        let mut values = self.recent.of_all(secret.id, self.clock.instant());
        for value in self.sources.in_memory(&self.recent.agents_of(secret.id), source) {
            if values.iter().all(|known| known.expose() != value.expose()) {
                values.push(value);
            }
        }
        values
    }

    /// The number of values that have come into memory: issued tokens, and values from a source. A value is counted
    /// before a request carries it. While the number stays the same, [`Credentials::values_in_memory`] returns
    /// nothing new.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The wire forms of values from a source that this agent's requests recently carried.
    pub fn fetched_forms(&self, agent: AgentId, grant: &ScrubGrant) -> Vec<WireForm> {
        let values = self.recent.of(agent, grant.secret().id, self.clock.instant());
        values.iter().flat_map(|value| wire_forms(grant, value)).collect()
    }

    /// The wire forms of a secret's recently issued tokens.
    pub fn issued_forms(&self, grant: &ScrubGrant) -> Vec<WireForm> {
        self.issued(grant.secret()).iter().flat_map(|token| wire_forms(grant, token)).collect()
    }

    fn issued(&self, secret: &Secret) -> Vec<SecretValue> {
        let token_caches = self.token_caches.lock();
        let Some(token_cache) = token_caches.peek(&secret.id).cloned() else { return Vec::new() };
        drop(token_caches);
        let issued = token_cache.issued.lock();
        issued.iter().cloned().collect()
    }

    /// The values of a secret from a source that may occur in a response.
    async fn held(&self, agent: AgentId, secret: &Secret) -> Result<Vec<SecretValue>, CredentialError> {
        let Some(source) = self.source_of(secret)? else { return Ok(vec![self.vault.open_value(secret)?]) };
        let current = Box::pin(self.sources.watch(agent, source)).await?;
        let mut values = self.recent.of_all(secret.id, self.clock.instant());
        values.extend(current.filter(|new| values.iter().all(|old| old.expose() != new.expose())));
        Ok(values)
    }
}

/// The forms in which this value of the secret, or a token issued for it, is sent to the host. Their class is
/// the recorded one.
pub fn wire_forms(grant: &ScrubGrant, value: &SecretValue) -> Vec<WireForm> {
    let secret = grant.secret();
    let class = secret.class.unwrap_or_else(|| secret.class_of(value));
    let forms = match (grant.sent(), &secret.profile.mint) {
        (SentAs::ToEndpoint, Some(mint)) => {
            tokens::sent_to_endpoint(mint, value).iter().flat_map(WireForm::of_form).collect()
        }
        _ => secret.placement.wire_forms(value),
    };
    forms.into_iter().map(|form| form.of_class(class)).collect()
}
