//! `onecli agent enable` and `onecli agent disable`.

use onecli_api::{AgentView, routes};
use onecli_model::AgentName;

use super::view::state;
use crate::client::Client;
use crate::error::CliError;
use crate::output::Output;

pub(crate) fn set_enabled(
    client: &Client,
    name: &AgentName,
    enabled: bool,
    output: &mut Output,
) -> Result<(), CliError> {
    let action = if enabled { "enable" } else { "disable" };
    let agent: AgentView = client.post_empty(&routes::agent_action(name, action))?;
    if output.is_json() {
        return Ok(output.document(&agent)?);
    }
    let effect = if enabled { "its requests are accepted again" } else { "all of its requests are refused" };
    Ok(output.line(&format!("agent '{name}' is {}: {effect}", state(agent.enabled)))?)
}
