//! A secret's stored value: comparison, replacement, and the replaced value.

use onecli_model::{Secret, SecretValue};
use onecli_store::ReplacedVersion;
use onecli_vault::VaultError;

use super::checks::{check_stored, check_value};
use crate::context::AdminContext;
use crate::error::AdminError;

/// Which replaced value to retain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retention {
    /// Retain the value for `vault.keep_replaced`.
    Replaced,
    /// Retain no value.
    Nothing,
}

/// Stores a new value of a secret, which is not active yet.
pub(super) async fn store_value(
    context: &AdminContext,
    secret: &Secret,
    value: &SecretValue,
    keep: Retention,
) -> Result<Secret, AdminError> {
    check_stored(secret)?;
    check_value(&secret.placement, &secret.profile, value)?;
    let kept = retired_version(context, secret)?.filter(|_| keep == Retention::Replaced);
    let class = Some(secret.class_of(value));
    let mut secret = Secret { version: secret.version + 1, class, ..secret.clone() };
    secret.sealed = context.handles.vault.seal(&secret, value)?;
    context.handles.store.add_version(&secret, kept.as_ref()).await?;
    Ok(secret)
}

/// Returns whether `value` is the stored one. For root only: the result confirms a guess.
pub(crate) fn is_stored_value(
    context: &AdminContext,
    secret: &Secret,
    value: &SecretValue,
) -> Result<bool, AdminError> {
    let unopened =
        |error: VaultError| AdminError::Unopened { name: secret.name.to_string(), reason: error.to_string() };
    let is_stored = secret.profile.source.is_none();
    Ok(is_stored && context.handles.vault.holds(secret, value).map_err(unopened)?)
}

/// Returns the replaced value in a form that is never sent; `None` if no replaced values are retained.
///
/// # Errors
/// The value does not open: its row was edited outside the daemon, perhaps to redirect the new value.
pub(super) fn retired_version(
    context: &AdminContext,
    secret: &Secret,
) -> Result<Option<ReplacedVersion>, AdminError> {
    let unopened =
        |error: VaultError| AdminError::Unopened { name: secret.name.to_string(), reason: error.to_string() };
    let sealed = context.handles.vault.retire(secret).map_err(unopened)?;
    let until = context.retention_end();
    Ok(until.map(|until| ReplacedVersion { secret: Secret { sealed, ..secret.clone() }, until }))
}
