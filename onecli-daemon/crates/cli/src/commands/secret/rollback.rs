//! `onecli secret rollback`

use onecli_api::{SecretView, routes};
use onecli_model::SecretName;

use super::view::print_retention;
use crate::client::Client;
use crate::error::CliError;
use crate::output::Output;

pub(crate) fn run(client: &Client, name: &SecretName, output: &mut Output) -> Result<(), CliError> {
    let restored: SecretView = client.post_empty(&routes::secret_action(name, "rollback"))?;
    if output.is_json() {
        return Ok(output.document(&restored)?);
    }
    output.line(&format!(
        "secret '{name}' is at version {}, with the previous value; agents keep their placeholders",
        restored.version
    ))?;
    print_retention(&restored, output)?;
    Ok(restored.warnings.iter().try_for_each(|warning| output.warning(warning))?)
}
