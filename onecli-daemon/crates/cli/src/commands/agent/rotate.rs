//! `onecli agent rotate`.

use onecli_api::{AgentToken, routes};
use onecli_model::AgentName;

use super::view::show_token;
use crate::client::Client;
use crate::error::CliError;
use crate::output::Output;

pub(crate) fn rotate(client: &Client, name: &AgentName, output: &mut Output) -> Result<(), CliError> {
    let rotated: AgentToken = client.post_empty(&routes::agent_action(name, "rotate"))?;
    if output.is_json() {
        return Ok(output.document(&rotated)?);
    }
    output.line(&format!(
        "agent '{name}' has a new token; the old one, its sessions and its placeholders are no longer valid"
    ))?;
    show_token(&rotated, output)?;
    output.line("restart this agent's processes, so that they get the new placeholders")?;
    Ok(())
}
