//! `secret list | show | rotate | disable | enable | remove`.

use onecli_api::{SecretRotate, SecretView};
use onecli_model::SecretName;

use super::checks::weak_value_warning;
use super::plausibility;
use super::value::{Retention, is_stored_value, store_value};
use super::view::{finish_change, view};
use crate::access::peer::Rights;
use crate::context::{AdminContext, Lookup};
use crate::error::AdminError;

pub(crate) async fn list(context: &AdminContext) -> Result<Vec<SecretView>, AdminError> {
    let stored = context.load().await?;
    Ok(stored.secrets.iter().map(|secret| view(context, &stored, secret)).collect())
}

pub(crate) async fn show(context: &AdminContext, name: &SecretName) -> Result<SecretView, AdminError> {
    let stored = context.load().await?;
    Ok(view(context, &stored, stored.secret(name)?))
}

pub(crate) async fn rotate(
    context: &AdminContext,
    rights: Rights,
    name: &SecretName,
    request: SecretRotate,
) -> Result<SecretView, AdminError> {
    let change = context.begin_change().await?;
    let (keep, what) = if request.compromised {
        (Retention::Nothing, "secret rotate --compromised")
    } else {
        (Retention::Replaced, "secret rotate")
    };
    let secret = change.stored.secret(name)?;
    // A retried script must not lose the retained value. The comparison is for root only: for members of the group it
    // would confirm guesses.
    if rights == Rights::Root
        && keep == Retention::Replaced
        && is_stored_value(context, secret, &request.value.0)?
    {
        return Ok(SecretView { unchanged: true, ..view(context, &change.stored, secret) });
    }
    if !request.force {
        plausibility::check_existing(secret, &request.value.0)?;
    }
    let secret = store_value(context, secret, &request.value.0, keep).await?;
    let warnings = weak_value_warning(&secret, &request.value.0).into_iter().collect();
    finish_change(context, change, what, name, warnings).await
}

pub(crate) async fn set_enabled(
    context: &AdminContext,
    name: &SecretName,
    enabled: bool,
) -> Result<SecretView, AdminError> {
    let change = context.begin_change().await?;
    let mut secret = change.stored.secret(name)?.clone();
    secret.enabled = enabled;
    context.handles.store.set_secret_enabled(secret.id, enabled).await?;
    let view = view(context, &change.stored, &secret);
    change.apply(if enabled { "secret enable" } else { "secret disable" }, view.name.as_str()).await?;
    Ok(view)
}

pub(crate) async fn remove(context: &AdminContext, name: &SecretName) -> Result<SecretView, AdminError> {
    let change = context.begin_change().await?;
    let secret = change.stored.secret(name)?;
    let view = view(context, &change.stored, secret);
    context.handles.store.remove_secret(secret.id).await?;
    change.apply("secret remove", view.name.as_str()).await?;
    Ok(view)
}
