//! `onecli grant` and `onecli ungrant`.

use onecli_api::{GrantView, routes};
use onecli_model::{AgentName, SecretName};

use crate::client::Client;
use crate::error::CliError;
use crate::output::Output;

pub(crate) fn grant(
    client: &Client,
    agent: &AgentName,
    secret: &SecretName,
    output: &mut Output,
) -> Result<(), CliError> {
    let grant: GrantView = client.put(&routes::grant(agent, secret))?;
    if output.is_json() {
        return Ok(output.document(&grant)?);
    }
    output.line(&format!("agent '{agent}' may use secret '{secret}'"))?;
    Ok(output.fields(&[("variable", grant.env.unwrap_or_default()), ("placeholder", grant.placeholder)])?)
}

pub(crate) fn ungrant(
    client: &Client,
    agent: &AgentName,
    secret: &SecretName,
    output: &mut Output,
) -> Result<(), CliError> {
    let grant: GrantView = client.delete(&routes::grant(agent, secret))?;
    if output.is_json() {
        return Ok(output.document(&grant)?);
    }
    Ok(output.line(&format!("agent '{agent}' may no longer use secret '{secret}'"))?)
}
