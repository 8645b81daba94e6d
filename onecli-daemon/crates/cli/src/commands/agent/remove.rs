//! `onecli agent remove`.

use onecli_api::{AgentRemoved, AgentView, routes};
use onecli_model::AgentName;

use crate::client::Client;
use crate::error::CliError;
use crate::host::user;
use crate::output::{Output, joined};

pub(crate) fn remove(
    client: &Client,
    name: &AgentName,
    kill: bool,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut path = routes::agent(name);
    if kill {
        path = format!("{path}?{}", routes::KILL);
    }
    let removed: AgentRemoved = client.delete(&path)?;
    delete_leftover_files(client)?;
    if output.is_json() {
        return Ok(output.document(&removed)?);
    }
    let grants = joined(removed.agent.secrets.iter().map(|grant| &grant.secret), "none");
    output.line(&format!(
        "removed agent '{name}', its token, sessions and placeholders, and its grants ({grants}); audit records stay"
    ))?;
    if let Some(reason) = &removed.cgroup_left {
        output.line(&format!(
            "its cgroup '{}' still exists: {reason}; all requests of its processes are refused",
            removed.agent.agent.cgroup
        ))?;
    }
    Ok(())
}

/// Deletes the agent's temporary files. Without root, they remain until root removes an agent. They belong to an id
/// that is never reused.
fn delete_leftover_files(client: &Client) -> Result<(), CliError> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let agents: Vec<AgentView> = client.get(routes::AGENTS)?;
    let present: Vec<_> = agents.iter().map(|agent| agent.id).collect();
    Ok(user::delete_leftovers(&present)?)
}
