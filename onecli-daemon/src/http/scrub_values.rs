//! The values that a response is searched for.

use std::sync::Arc;

use super::exchange::unopened;
use super::gateway::Gateway;
use super::scrub::{Newer, Scrubber};
use crate::model::{AgentId, Refusal, SecretValue};
use crate::policy::Watch;
use crate::vault::Credentials;

/// Looks for every value that must not come back from this host.
pub(super) async fn scrubber(
    gateway: &Gateway,
    agent: AgentId,
    watches: &[Watch],
) -> Result<Scrubber, Refusal> {
    let mut scrubber = Scrubber::default();
    let is_minted = |watch: &&Watch| watch.secret().profile.mint.is_some();
    let minted: Vec<Watch> = watches.iter().filter(is_minted).cloned().collect();
    if !minted.is_empty() {
        let credentials = Arc::clone(&gateway.credentials);
        // Counted before the tokens are asked for: none is missed.
        let purchases = credentials.purchases();
        scrubber.follow(Box::new(Minted { credentials, watches: minted, purchases }));
    }
    for watch in watches {
        let values = gateway.credentials.watched(agent, watch).await;
        for value in &values.map_err(|error| unopened(watch.secret(), &error))? {
            scrubber.watch(value);
        }
    }
    Ok(scrubber)
}

/// Tokens that are bought while an answer is under way, by this request or another.
struct Minted {
    credentials: Arc<Credentials>,
    watches: Vec<Watch>,
    purchases: u64,
}

impl Newer for Minted {
    fn newer(&mut self) -> Vec<SecretValue> {
        let purchases = self.credentials.purchases();
        if std::mem::replace(&mut self.purchases, purchases) == purchases {
            return Vec::new();
        }
        self.watches.iter().flat_map(|watch| self.credentials.tokens(watch)).collect()
    }
}

/// Does no credential for this host ever leave, so that none can be echoed? SDKs rely on ranges to fetch large objects in
/// parts.
pub(super) async fn only_signed(gateway: &Gateway, agent: AgentId, watches: &[Watch]) -> bool {
    for watch in watches {
        if !gateway.credentials.stays(agent, watch).await {
            return false;
        }
    }
    true
}
