//! Refusals for values that cannot be opened or obtained.

use onecli_model::{Code, Refusal, Secret};
use onecli_vault::CredentialError;

/// The refusal for a request whose secret cannot be opened or obtained.
pub(crate) fn unopened(secret: &Secret, error: &CredentialError) -> Refusal {
    let name = secret.name.as_str();
    match error {
        CredentialError::Vault(error) => {
            tracing::error!(%error, secret = name, "a secret cannot be opened");
            secret_refusal(name)
        }
        CredentialError::Mint(error) => Refusal::new(
            Code::SecretUnavailable,
            format!("cannot obtain a token for secret '{name}': {error}"),
            format!(
                "try again in a minute; if the error persists, ask an administrator to check 'onecli secret \
                 show {name}'"
            ),
        ),
        CredentialError::Source(error) => {
            tracing::error!(%error, secret = name, "cannot obtain a secret's value");
            Refusal::new(
                Code::SecretUnavailable,
                format!("cannot obtain the value of secret '{name}': {}", error.public_message()),
                error.hint(),
            )
        }
    }
}

fn secret_refusal(name: &str) -> Refusal {
    Refusal::new(
        Code::SecretUnavailable,
        format!("secret '{name}' cannot be decrypted, so the request is not forwarded"),
        format!("ask an administrator to check the daemon's log and 'onecli secret show {name}'"),
    )
}
