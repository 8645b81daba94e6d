//! The token and the placeholders of a session.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp, Unit};
use onecli_api::EnvNames;
use onecli_model::{Agent, Token};
use onecli_store::StoreContents;

use crate::context::{AdminContext, Lookup};
use crate::error::AdminError;

/// Refuses to start a command as a disabled agent, which would be refused everything.
pub(super) fn check_enabled(agent: &Agent) -> Result<(), AdminError> {
    if agent.enabled {
        return Ok(());
    }
    Err(AdminError::NotReady {
        message: format!("agent '{}' is disabled", agent.name),
        hint: format!("enable it with 'onecli agent enable {}'", agent.name),
    })
}

/// Returns the placeholders, keyed by the environment variable from which the agent's programs read them.
pub(crate) fn placeholders(
    context: &AdminContext,
    stored: &StoreContents,
    agent: &Agent,
) -> BTreeMap<String, String> {
    let named = stored.granted(agent).into_iter().flat_map(|secret| {
        let placeholder = context.handles.vault.placeholder(agent.id, secret.id, agent.generation);
        let shown = secret.profile.shape.dress(&placeholder);
        let names = secret.env.iter().flat_map(|names| EnvNames::split(names));
        names.map(|name| (name.to_owned(), shown.clone())).collect::<Vec<_>>()
    });
    named.collect()
}

/// Creates a session token for a command that user `launched_by` starts. The token is valid when this returns.
pub(crate) async fn mint(
    context: &AdminContext,
    agent: &Agent,
    lifetime: SignedDuration,
    launched_by: Option<u32>,
) -> Result<(Token, Timestamp), AdminError> {
    let handles = &context.handles;
    let change = context.begin_change().await?;
    let now = handles.clock.now();
    let expires = now
        .checked_add(lifetime)
        .and_then(|expires| expires.round(Unit::Second))
        .map_err(|_| AdminError::Internal("the expiry time is out of range"))?;
    let token = Token::generate_session(handles.random.as_ref())?;
    handles.store.prune_sessions(now).await?;
    handles.store.add_session(agent.id, &handles.vault.token_hash(&token), expires, launched_by).await?;
    change.apply("session", agent.name.as_str()).await?;
    Ok((token, expires))
}
