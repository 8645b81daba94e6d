//! `secret edit`: a secret's destinations, placement and environment variables.
//!
//! An edit creates a new version. The daemon therefore re-evaluates open streams and refuses a concurrent second edit.

use onecli_api::{SecretEdit, SecretEdited, SecretView};
use onecli_model::{PathPattern, Sealed, Secret, SecretName, SecretValue};
use onecli_policy::widened;
use onecli_store::{ReplacedVersion, StoreError};

use super::checks::{check_mint, check_target, check_value, weak_value_warning};
use super::plausibility;
use super::retained;
use super::value::{is_stored_value, retired_version};
use super::view::view;
use crate::access::peer::Rights;
use crate::context::{AdminContext, ChangeGuard, Lookup};
use crate::error::AdminError;

pub(crate) async fn edit(
    context: &AdminContext,
    rights: Rights,
    name: &SecretName,
    request: SecretEdit,
) -> Result<SecretEdited, AdminError> {
    let change = context.begin_change().await?;
    let current = change.stored.secret(name)?.clone();
    let before = view(context, &change.stored, &current);
    check_version(&current, request.version)?;
    let value = request.value.as_ref().map(|value| value.0.clone());
    let (force, erase_kept) = (request.force, request.erase_kept);
    let edited = edited(&current, request)?;
    if value.is_none() && is_same(&current, &edited) {
        return Ok(SecretEdited { after: before.clone(), before });
    }
    require_value(rights, &current, &edited, value.as_ref())?;
    if let Some(value) = value.as_ref().filter(|_| !force) {
        plausibility::check_existing(&edited, value)?;
    }
    if changes_destination(&current, &edited) && !erase_kept {
        check_retained(context, rights, &change, &current, value.is_some())?;
    }
    let (secret, kept) = sealed(context, &change, &current, edited, value.as_ref())?;
    context.handles.store.add_version(&secret, kept.as_ref()).await?;
    let warnings = value.iter().filter_map(|value| weak_value_warning(&secret, value)).collect();
    let stored = context.load().await?;
    let after = SecretView { warnings, ..view(context, &stored, stored.secret(name)?) };
    change.apply("secret edit", name.as_str()).await?;
    Ok(SecretEdited { before, after })
}

fn check_version(current: &Secret, seen: u32) -> Result<(), AdminError> {
    if current.version == seen {
        return Ok(());
    }
    Err(AdminError::Store(StoreError::Conflict {
        what: "secret",
        id: current.name.to_string(),
        column: "version",
        stored: current.version,
        offered: seen,
    }))
}

/// Builds the next version, without its sealed value.
fn edited(current: &Secret, request: SecretEdit) -> Result<Secret, AdminError> {
    let mut edited = Secret { version: current.version + 1, sealed: Sealed(Vec::new()), ..current.clone() };
    let target = &mut edited.target;
    target.host = request.host.unwrap_or_else(|| target.host.clone());
    target.port = request.port.unwrap_or(target.port);
    target.methods = request.methods.unwrap_or_else(|| target.methods.clone());
    target.allow_plaintext = request.allow_plaintext.unwrap_or(target.allow_plaintext);
    match request.paths {
        Some(paths) if paths.is_empty() => target.paths = vec![PathPattern::everything()],
        Some(paths) => target.paths = paths,
        None => {}
    }
    check_target(target)?;
    edited.placement = request.placement.unwrap_or(edited.placement);
    match (request.env, request.no_env) {
        (Some(_), true) => {
            return Err(AdminError::Invalid("name a variable or remove all variables, not both".to_owned()));
        }
        (None, true) => edited.env = None,
        (Some(env), false) => edited.env = Some(env.into()),
        (None, false) => {}
    }
    Ok(edited)
}

fn is_same(current: &Secret, edited: &Secret) -> bool {
    (&current.target, &current.placement, &current.env) == (&edited.target, &edited.placement, &edited.env)
}

fn changes_destination(current: &Secret, edited: &Secret) -> bool {
    (&current.target.host, &current.placement) != (&edited.target.host, &edited.placement)
}

/// Refuses to erase a retained value. The store retains one previous value per secret. If the destination changes, it
/// must retain the value that the old destination may know, and an older retained value would be lost.
fn check_retained(
    context: &AdminContext,
    rights: Rights,
    change: &ChangeGuard<'_>,
    current: &Secret,
    has_value: bool,
) -> Result<(), AdminError> {
    let Some(kept) = retained::unexpired_version(context, &change.stored, current) else { return Ok(()) };
    // If an earlier edit moved the secret, the retained value equals the current one and survives. Only root gets this
    // comparison: for members of the group it would confirm guesses.
    if rights == Rights::Root && !has_value && has_current_value(context, current, &kept.secret)? {
        return Ok(());
    }
    Err(AdminError::DropsRetainedValue {
        name: current.name.to_string(),
        version: kept.secret.version,
        until: kept.until,
        is_restorable: retained::is_restorable(context, &change.stored, current),
    })
}

/// Returns whether a retained version has the current value. A retained value that does not open is useless, so its
/// loss needs no confirmation.
fn has_current_value(context: &AdminContext, current: &Secret, kept: &Secret) -> Result<bool, AdminError> {
    if current.profile.source.is_some() {
        return Ok(true);
    }
    match context.handles.vault.open_replaced(kept) {
        Ok(value) => is_stored_value(context, current, &value),
        Err(_) => Ok(true),
    }
}

/// Checks that the caller supplied the value if the change widens its destinations. Otherwise a member of the group
/// could send a stored value to a host of their choice.
fn require_value(
    rights: Rights,
    current: &Secret,
    edited: &Secret,
    value: Option<&SecretValue>,
) -> Result<(), AdminError> {
    if let (Some(source), Some(_)) = (&current.profile.source, value) {
        return Err(AdminError::Invalid(format!(
            "the value of secret '{}' comes from {source}: do not supply a value",
            current.name
        )));
    }
    let wider = widened(current, edited);
    if wider.is_empty() || value.is_some() || rights == Rights::Root {
        return Ok(());
    }
    if current.profile.source.is_some() {
        return Err(AdminError::root_only("change the destinations of a value from an external source"));
    }
    Err(AdminError::ValueRequired { name: current.name.to_string(), wider: wider.join(", ") })
}

/// Returns the next version with its sealed value, and the previous version to retain.
fn sealed(
    context: &AdminContext,
    change: &ChangeGuard<'_>,
    current: &Secret,
    mut edited: Secret,
    value: Option<&SecretValue>,
) -> Result<(Secret, Option<ReplacedVersion>), AdminError> {
    let vault = &context.handles.vault;
    // This also checks that the row is as the daemon wrote it.
    let retired_version = retired_version(context, current)?;
    if let Some(value) = value {
        check_fits(&edited, value)?;
        edited.class = Some(edited.class_of(value));
        edited.sealed = vault.seal(&edited, value)?;
        return Ok((edited, retired_version));
    }
    vault.carry(current, &mut edited, check_fits)?;
    // Agents may have stored the value at its old destination. Responses from that destination are still searched for
    // it.
    let kept = if changes_destination(current, &edited) {
        retired_version
    } else {
        reseal_retained(context, change, current)
    };
    Ok((edited, kept))
}

fn check_fits(edited: &Secret, value: &SecretValue) -> Result<(), AdminError> {
    match edited.profile.source {
        Some(_) => check_mint(&edited.placement, &edited.profile),
        None => check_value(&edited.placement, &edited.profile, value),
    }
}

/// Re-seals the retained value as that of the version that the edit replaces. The replaced version's own value stays in
/// use.
fn reseal_retained(
    context: &AdminContext,
    change: &ChangeGuard<'_>,
    current: &Secret,
) -> Option<ReplacedVersion> {
    let kept = change.stored.retained(current).filter(|kept| context.handles.clock.now() < kept.until)?;
    let mut secret = Secret { version: current.version, ..kept.secret.clone() };
    let resealed = context.handles.vault.move_replaced(&kept.secret, &mut secret);
    if let Err(error) = resealed {
        tracing::warn!(%error, secret = %current.name, "the previous value does not open and is erased");
        return None;
    }
    Some(ReplacedVersion { secret, until: kept.until })
}
