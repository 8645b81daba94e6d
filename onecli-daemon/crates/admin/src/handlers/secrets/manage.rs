//! `secret list | show | rotate | disable | enable | remove`.

use onecli_api::{SecretRotate, SecretView};
use onecli_model::SecretName;

use super::checks::weakness;
use super::doubts;
use super::value::{Keep, holds, renew};
use super::view::{reply, view};
use crate::access::peer::Rights;
use crate::context::{Find, State};
use crate::error::AdminError;

pub(crate) async fn list(state: &State) -> Result<Vec<SecretView>, AdminError> {
    let stored = state.load().await?;
    Ok(stored.secrets.iter().map(|secret| view(state, &stored, secret)).collect())
}

pub(crate) async fn show(state: &State, name: &SecretName) -> Result<SecretView, AdminError> {
    let stored = state.load().await?;
    Ok(view(state, &stored, stored.secret(name)?))
}

pub(crate) async fn rotate(
    state: &State,
    rights: Rights,
    name: &SecretName,
    request: SecretRotate,
) -> Result<SecretView, AdminError> {
    let change = state.begin_change().await?;
    let (keep, what) = if request.compromised {
        (Keep::Nothing, "secret rotate --compromised")
    } else {
        (Keep::Replaced, "secret rotate")
    };
    let secret = change.stored.secret(name)?;
    // A retried script must not lose the retained value. The comparison is for root only: for members of the group it
    // would confirm guesses.
    if rights == Rights::Root && keep == Keep::Replaced && holds(state, secret, &request.value.0)? {
        return Ok(SecretView { unchanged: true, ..view(state, &change.stored, secret) });
    }
    if !request.force {
        doubts::of_stored(secret, &request.value.0)?;
    }
    let secret = renew(state, secret, &request.value.0, keep).await?;
    let warnings = weakness(&secret, &request.value.0).into_iter().collect();
    reply(state, change, what, name, warnings).await
}

pub(crate) async fn set_enabled(
    state: &State,
    name: &SecretName,
    enabled: bool,
) -> Result<SecretView, AdminError> {
    let change = state.begin_change().await?;
    let mut secret = change.stored.secret(name)?.clone();
    secret.enabled = enabled;
    state.handles.store.set_secret_enabled(secret.id, enabled).await?;
    let view = view(state, &change.stored, &secret);
    change.in_force(if enabled { "secret enable" } else { "secret disable" }, view.name.as_str()).await?;
    Ok(view)
}

pub(crate) async fn remove(state: &State, name: &SecretName) -> Result<SecretView, AdminError> {
    let change = state.begin_change().await?;
    let secret = change.stored.secret(name)?;
    let view = view(state, &change.stored, secret);
    state.handles.store.remove_secret(secret.id).await?;
    change.in_force("secret remove", view.name.as_str()).await?;
    Ok(view)
}
