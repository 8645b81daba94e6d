//! `onecli agent allow-run` and `onecli agent deny-run`.

use onecli_api::{AgentDetail, routes};
use onecli_model::{AgentName, Runner};

use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, joined};

pub(super) fn allow_run(
    client: &Client,
    name: &AgentName,
    runner: &Runner,
    see_all: Option<&str>,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut path = routes::runner(name, runner);
    if let Some(answer) = see_all {
        path = format!("{path}?{}{}", routes::SEE_ALL, answer == "yes");
    }
    show_runners(&client.put(&path)?, output)
}

pub(super) fn deny_run(
    client: &Client,
    name: &AgentName,
    runner: &Runner,
    output: &mut Output,
) -> Result<(), CliError> {
    show_runners(&client.delete(&routes::runner(name, runner))?, output)
}

fn show_runners(detail: &AgentDetail, output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return Ok(output.document(detail)?);
    }
    let name = &detail.agent.name;
    let runners = joined(detail.runners.iter(), "no other users");
    output.line(&format!("agent '{name}' may be run by administrators and: {runners}"))?;
    if !detail.see_all.is_empty() {
        output.line(&format!("these see the requests of all its runs: {}", joined(&detail.see_all, "")))?;
    }
    Ok(())
}
