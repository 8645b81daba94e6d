//! `onecli secret remove`.

use onecli_api::{SecretView, routes};
use onecli_model::SecretName;

use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, joined};

pub(crate) fn remove(client: &Client, name: &SecretName, output: &mut Output) -> Result<(), CliError> {
    let removed: SecretView = client.delete(&routes::secret(name))?;
    if output.is_json() {
        return Ok(output.document(&removed)?);
    }
    let agents = joined(&removed.agents, "nobody");
    Ok(output.line(&format!(
        "removed secret '{name}', its value, a retained previous one, and its grants (it was granted to: \
         {agents}); audit records stay"
    ))?)
}
