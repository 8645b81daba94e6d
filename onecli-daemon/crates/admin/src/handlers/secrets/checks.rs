//! Checks of a secret and its value.

use onecli_model::strength::{ENOUGH_BITS, estimated_bits};
use onecli_model::{Placement, Profile, Secret, SecretValue, Target};
use onecli_vault::{check_material, sent_to_endpoint};

use crate::error::AdminError;

/// The largest number of path patterns. More are a mistake, and each one costs time in every match.
const MAX_PATHS: usize = 256;

pub(super) fn check_target(target: &Target) -> Result<(), AdminError> {
    if target.port == 0 {
        return Err(AdminError::Invalid("the port must be a number from 1 to 65535".to_owned()));
    }
    if target.paths.len() > MAX_PATHS {
        return Err(AdminError::Invalid(format!("more than {MAX_PATHS} path patterns: use a wildcard")));
    }
    Ok(())
}

pub(super) fn check_mint(placement: &Placement, profile: &Profile) -> Result<(), AdminError> {
    if profile.mint.is_some() && !placement.takes_issued_token() {
        return Err(AdminError::Invalid(
            "a minted token is placed in a header: --bearer or --header".to_owned(),
        ));
    }
    Ok(())
}

/// Checks the form of a value when it is stored, so that the first request does not fail.
pub(super) fn check_value(
    placement: &Placement,
    profile: &Profile,
    value: &SecretValue,
) -> Result<(), AdminError> {
    check_mint(placement, profile)?;
    if let Some(mint) = &profile.mint {
        return check_material(mint, value).map_err(|error| AdminError::Invalid(error.to_string()));
    }
    placement.check_value(value).map_err(AdminError::Invalid)
}

/// Checks that the value is stored here and not in an external source.
pub(super) fn check_stored(secret: &Secret) -> Result<(), AdminError> {
    let Some(source) = &secret.profile.source else { return Ok(()) };
    Err(AdminError::Conflict(format!(
        "the value of secret '{}' comes from {source}: change it there, and the next request uses it",
        secret.name
    )))
}

/// Returns a warning about a value that can be guessed. Signing keys are never sent, so no service returns them.
pub(super) fn weak_value_warning(secret: &Secret, value: &SecretValue) -> Option<String> {
    let weakest = match &secret.profile.mint {
        Some(mint) => sent_to_endpoint(mint, value).iter().map(estimated_bits).min(),
        None if secret.placement.wire_forms(value).is_empty() => None,
        None => Some(estimated_bits(value)),
    };
    let bits = weakest.filter(|bits| *bits < ENOUGH_BITS)?;
    Some(format!(
        "the value of secret '{}' has about {bits} bits of entropy: an agent that stores guesses at the service sees \
         which one is masked; use a random value of 64 bits or more where the service allows it",
        secret.name
    ))
}
