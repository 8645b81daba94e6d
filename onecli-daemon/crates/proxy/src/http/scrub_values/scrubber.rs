//! The scrubber for one response.

use onecli_model::{AgentId, Refusal};
use onecli_policy::{ScrubGrant, SentAs};

use super::followed::Followed;
use super::unopened::unopened;
use crate::http::scrub::Scrubber;

/// Returns a scrubber for every value of the host, and for those that are stored, fetched or issued while the
/// response streams. `own` are the secrets that the agent may use, or may have used in the past.
///
/// # Errors
/// [`onecli_model::Code::SecretUnavailable`] if a value of `own` cannot be opened or fetched. A value of another
/// agent fails no request.
pub(crate) async fn scrubber(
    agent: AgentId,
    own: &[ScrubGrant],
    followed: &Followed,
) -> Result<Scrubber, Refusal> {
    let (credentials, set) = (followed.credentials(), followed.set());
    let is_own = |grant: &ScrubGrant| own.iter().any(|own| own.value() == grant.value());
    if let Some(grant) = set.unopened().iter().find(|grant| is_own(grant))
        && let Err(error) = credentials.stored_forms(grant)
    {
        return Err(unopened(grant.secret(), &error.into()));
    }
    let mut spelt = Vec::new();
    // The counter is read before the values, so that no value is missed.
    let changes = credentials.changes();
    for moving in set.moving() {
        let grant = moving.grant();
        let values = if grant.sent() == SentAs::Placed && is_own(grant) {
            let current = credentials.current_values(agent, grant).await;
            current.map_err(|error| unopened(grant.secret(), &error))?
        } else {
            credentials.values_in_memory(grant)
        };
        spelt.extend(values.iter().filter_map(|value| moving.spell(value)));
    }
    Ok(followed.clone().scrubber(set.needles_with(spelt), changes))
}

/// Returns whether no credential for this host is ever sent, so that none can be echoed. SDKs rely on ranges to fetch
/// large objects in parts.
pub(crate) async fn only_signed(agent: AgentId, own: &[ScrubGrant], followed: &Followed) -> bool {
    scrubber(agent, own, followed).await.is_ok_and(|scrubber| scrubber.is_idle())
}
