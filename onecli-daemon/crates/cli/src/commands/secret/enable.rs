//! `onecli secret enable` and `onecli secret disable`.

use onecli_api::{SecretView, routes};
use onecli_model::SecretName;

use super::view::state;
use crate::client::Client;
use crate::error::CliError;
use crate::output::Output;

pub(crate) fn set_enabled(
    client: &Client,
    name: &SecretName,
    enabled: bool,
    output: &mut Output,
) -> Result<(), CliError> {
    let action = if enabled { "enable" } else { "disable" };
    let secret: SecretView = client.post_empty(&routes::secret_action(name, action))?;
    if output.is_json() {
        return Ok(output.document(&secret)?);
    }
    let effect = if enabled { "it is used again" } else { "it is not used for any request" };
    Ok(output.line(&format!("secret '{name}' is {}: {effect}", state(secret.enabled)))?)
}
