//! Checks for values that are stored only with `--force`.

use onecli_api::SecretAdd;
use onecli_model::value_form::ValueUse;
use onecli_model::{Secret, SecretName, SecretValue};

use crate::error::AdminError;

/// Checks the value of a new secret.
///
/// # Errors
/// [`AdminError::Doubtful`].
pub(super) fn check_new(request: &SecretAdd) -> Result<(), AdminError> {
    let SecretAdd { placement, profile, host, env, .. } = request;
    let Some(value) = &request.value else { return Ok(()) };
    let env = env.clone().map(String::from);
    check(&request.name, ValueUse { placement, profile, hosts: host, env: env.as_deref() }, &value.0)
}

/// Checks a new value for an existing secret.
///
/// # Errors
/// [`AdminError::Doubtful`].
pub(super) fn check_existing(secret: &Secret, value: &SecretValue) -> Result<(), AdminError> {
    let Secret { placement, profile, target, env, .. } = secret;
    check(&secret.name, ValueUse { placement, profile, hosts: &target.host, env: env.as_deref() }, value)
}

fn check(name: &SecretName, used: ValueUse<'_>, value: &SecretValue) -> Result<(), AdminError> {
    let faults: Vec<String> = used.faults(value).iter().map(ToString::to_string).collect();
    if faults.is_empty() {
        return Ok(());
    }
    Err(AdminError::Doubtful { name: name.to_string(), faults: faults.join("; ") })
}
