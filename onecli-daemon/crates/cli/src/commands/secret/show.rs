//! `onecli secret show`.

use onecli_api::{SecretView, routes};
use onecli_model::SecretName;

use super::view::fields;
use crate::client::Client;
use crate::error::CliError;
use crate::output::Output;

pub(crate) fn show(client: &Client, name: &SecretName, output: &mut Output) -> Result<(), CliError> {
    let secret: SecretView = client.get(&routes::secret(name))?;
    if output.is_json() {
        return Ok(output.document(&secret)?);
    }
    let fields = fields(&secret, output);
    Ok(output.fields(&fields)?)
}
