//! The retained value of a secret, and whether a rollback would restore it.

use onecli_model::{Secret, SecretValue};
use onecli_policy::widened;
use onecli_store::{ReplacedVersion, StoreContents};

use super::checks::{check_stored, check_value};
use crate::context::{AdminContext, Lookup};
use crate::error::AdminError;

/// Returns the retained version before the current one, unless it is due for erasure.
pub(super) fn unexpired_version<'s>(
    context: &AdminContext,
    stored: &'s StoreContents,
    current: &Secret,
) -> Option<&'s ReplacedVersion> {
    let now = context.handles.clock.now();
    stored.retained(current).filter(|kept| now < kept.until)
}

/// Returns whether a rollback would restore the previous value now.
pub(crate) fn is_restorable(context: &AdminContext, stored: &StoreContents, current: &Secret) -> bool {
    previous(context, stored, current).is_ok()
}

/// Returns the previous value, if it may be sent to the secret's current destinations.
pub(crate) fn previous(
    context: &AdminContext,
    stored: &StoreContents,
    current: &Secret,
) -> Result<SecretValue, AdminError> {
    check_stored(current)?;
    let kept = unexpired_version(context, stored, current);
    let ReplacedVersion { secret: kept, .. } = kept.ok_or_else(|| nothing_retained(context, current))?;
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
    let value = context.handles.vault.open_replaced(kept).map_err(unopened)?;
    check_value(&current.placement, &current.profile, &value)?;
    Ok(value)
}

fn not_restored(secret: &Secret, message: String) -> AdminError {
    AdminError::NotReady { message, hint: format!("store a value: 'onecli secret rotate {}'", secret.name) }
}

fn nothing_retained(context: &AdminContext, secret: &Secret) -> AdminError {
    let how_long = if context.handles.keep_replaced.is_zero() {
        "vault.keep_replaced is 0".to_owned()
    } else {
        format!("values are retained for {}", humantime::format_duration(context.handles.keep_replaced))
    };
    not_restored(secret, format!("no previous value of secret '{}' is retained ({how_long})", secret.name))
}
