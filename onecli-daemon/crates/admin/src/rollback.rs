//! `secret rollback`: the value before the current one becomes the next version.

use onecli_api::SecretView;
use onecli_model::{Secret, SecretName, SecretValue};
use onecli_policy::widened;
use onecli_store::{KeptVersion, StoredState};

use super::error::AdminError;
use super::secrets::{self, Keep};
use super::state::{Find, State};

pub(super) async fn rollback(state: &State, name: &SecretName) -> Result<SecretView, AdminError> {
    let change = state.begin_change().await?;
    let current = change.stored.secret(name)?;
    let value = previous(state, &change.stored, current)?;
    let secret = secrets::renew(state, current, &value, Keep::Replaced).await?;
    let warnings = secrets::weakness(&secret, &value).into_iter().collect();
    secrets::reply(state, change, "secret rollback", name, warnings).await
}

/// Returns the retained version before the current one, unless it is due for erasure.
pub(super) fn still_kept<'s>(
    state: &State,
    stored: &'s StoredState,
    current: &Secret,
) -> Option<&'s KeptVersion> {
    let now = state.handles.clock.now();
    stored.kept(current).filter(|kept| now < kept.until)
}

/// Returns whether a rollback would restore the previous value now.
pub(super) fn is_restorable(state: &State, stored: &StoredState, current: &Secret) -> bool {
    previous(state, stored, current).is_ok()
}

/// Returns the previous value, if it may be sent to the secret's current destinations.
fn previous(state: &State, stored: &StoredState, current: &Secret) -> Result<SecretValue, AdminError> {
    secrets::check_stored(current)?;
    let kept = still_kept(state, stored, current);
    let KeptVersion { secret: kept, .. } = kept.ok_or_else(|| none_kept(state, current))?;
    let wider = widened(kept, current);
    if !wider.is_empty() {
        return Err(not_restored(
            current,
            format!(
                "the previous value of secret '{}' was stored before its {} changed, so it may not be sent to \
                 the current destinations",
                current.name,
                wider.join(", ")
            ),
        ));
    }
    let unopened = |error| {
        not_restored(
            current,
            format!("the previous value of secret '{}' does not open: {error}", current.name),
        )
    };
    let value = state.handles.vault.open_replaced(kept).map_err(unopened)?;
    secrets::check_value(&current.placement, &current.profile, &value)?;
    Ok(value)
}

fn not_restored(secret: &Secret, message: String) -> AdminError {
    AdminError::NotReady { message, hint: format!("store a value: 'onecli secret rotate {}'", secret.name) }
}

fn none_kept(state: &State, secret: &Secret) -> AdminError {
    let how_long = if state.handles.keep_replaced.is_zero() {
        "vault.keep_replaced is 0".to_owned()
    } else {
        format!("values are retained for {}", humantime::format_duration(state.handles.keep_replaced))
    };
    not_restored(secret, format!("no previous value of secret '{}' is retained ({how_long})", secret.name))
}
