//! `onecli secret rotate`.

use onecli_api::{SecretRotate, SecretView, routes};
use onecli_model::SecretName;

use super::doubtful;
use super::view::print_retention;
use crate::client::Client;
use crate::error::CliError;
use crate::input::value;
use crate::input::value_args::ValueArgs;
use crate::output::Output;

pub(crate) fn rotate(
    client: &Client,
    name: &SecretName,
    compromised: bool,
    value: &ValueArgs,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut request = SecretRotate { value: value::read(value)?, compromised, force: value.force };
    let rotated: SecretView = doubtful::send(output, |force| {
        request.force |= force;
        client.post(&routes::secret_action(name, "rotate"), &request)
    })?;
    if output.is_json() {
        return Ok(output.document(&rotated)?);
    }
    if rotated.unchanged {
        let version = rotated.version;
        return Ok(output.line(&format!(
            "unchanged: secret '{name}' has this value already, and stays at version {version}"
        ))?);
    }
    output.line(&format!(
        "secret '{name}' is at version {}; agents keep their placeholders",
        rotated.version
    ))?;
    print_retention(&rotated, output)?;
    Ok(rotated.warnings.iter().try_for_each(|warning| output.warning(warning))?)
}
