//! `onecli ps`.

use nix::unistd::{Uid, User};
use onecli_api::Transparent;
use onecli_api::{RunningAgent, Status, routes};

use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, joined};

/// Prints the agents that run now.
pub(crate) fn ps(client: &Client, output: &mut Output) -> Result<(), CliError> {
    let running: Vec<RunningAgent> = client.get(routes::RUNNING)?;
    if output.is_json() {
        return Ok(output.document(&running)?);
    }
    if running.is_empty() {
        return nothing(client, output);
    }
    let rows: Vec<_> = running
        .iter()
        .map(|one| {
            [
                one.agent.to_string(),
                joined(one.uids.iter().map(|uid| user(*uid)), "-"),
                one.cgroup.to_string(),
                one.processes.to_string(),
                one.connections.to_string(),
                output.time_or_dash(one.since),
            ]
        })
        .collect();
    Ok(output.table(["AGENT", "USER", "CGROUP", "PROCESSES", "CONNECTIONS", "STARTED"], &rows)?)
}

fn nothing(client: &Client, output: &mut Output) -> Result<(), CliError> {
    output.line("no agent has a process in its cgroup, or a connection to the daemon")?;
    // Members of 'onecli-audit' may read the status as well.
    if let Transparent::Off { .. } = client.get::<Status>(routes::STATUS)?.transparent {
        output.line("connections are not redirected on this host ('onecli status'), so agents' processes are in no cgroup")?;
    }
    Ok(())
}

/// Returns the user's name, or the uid if there is no name.
fn user(uid: u32) -> String {
    let named = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    named.map_or_else(|| uid.to_string(), |user| user.name)
}
