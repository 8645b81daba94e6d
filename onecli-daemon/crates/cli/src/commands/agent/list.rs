//! `onecli agent list`.

use onecli_api::{AgentView, routes};

use super::view::state;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, or_dash};

pub(crate) fn list(client: &Client, output: &mut Output) -> Result<(), CliError> {
    let agents: Vec<AgentView> = client.get(routes::AGENTS)?;
    if output.is_json() {
        return Ok(output.document(&agents)?);
    }
    let rows: Vec<_> = agents
        .iter()
        .map(|agent| {
            [
                agent.name.to_string(),
                state(agent.enabled).to_owned(),
                agent.factors.to_string(),
                or_dash(agent.user.as_ref()),
                agent.egress.to_string(),
                agent.cgroup.to_string(),
            ]
        })
        .collect();
    Ok(output.table(["NAME", "STATE", "FACTORS", "USER", "EGRESS", "CGROUP"], &rows)?)
}
