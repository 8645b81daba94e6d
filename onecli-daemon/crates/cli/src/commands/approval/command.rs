//! `onecli approval ...`

use clap::Subcommand;
use onecli_api::{ApprovalView, routes};

use super::request::request;
use super::{show, watch};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, joined};

#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalCommand {
    /// List the pending requests, oldest first.
    List,
    /// Print each request that becomes pending, and its outcome, until interrupted.
    #[command(after_help = "\
Continues after a restart of the daemon, and reports it. With --json: one object per line, whose 'event' is waiting,
ready (all requests that were pending at the start have been printed) or ended.")]
    Watch,
    /// Show a pending request: method, URL, headers, body and digest. Placeholders are shown; the values of other
    /// fields are masked.
    Show {
        /// The request's id, as in the list.
        id: String,
    },
    /// Allow a request to proceed.
    Allow {
        /// The request's id, as in the list.
        id: String,
    },
    /// Refuse a request.
    Deny {
        /// The request's id, as in the list.
        id: String,
    },
}

pub(crate) fn run(client: &Client, command: ApprovalCommand, output: &mut Output) -> Result<(), CliError> {
    match command {
        ApprovalCommand::List => list(client, output),
        ApprovalCommand::Watch => watch::watch(client, output),
        ApprovalCommand::Show { id } => show::show(client, &checked(&id)?, output),
        ApprovalCommand::Allow { id } => answer(client, &id, "allow", output),
        ApprovalCommand::Deny { id } => answer(client, &id, "deny", output),
    }
}

fn list(client: &Client, output: &mut Output) -> Result<(), CliError> {
    let waiting: Vec<ApprovalView> = client.get(routes::APPROVALS)?;
    if output.is_json() {
        return Ok(output.document(&waiting)?);
    }
    let rows: Vec<_> = waiting
        .iter()
        .map(|one| {
            [
                one.id.clone(),
                one.agent.to_string(),
                request(one),
                joined(&one.secrets, "-"),
                one.rule.to_string(),
                output.time(one.until),
            ]
        })
        .collect();
    Ok(output.table(["ID", "AGENT", "REQUEST", "SECRETS", "RULE", "UNTIL"], &rows)?)
}

fn answer(client: &Client, id: &str, answer: &str, output: &mut Output) -> Result<(), CliError> {
    let answered: ApprovalView = client.post_empty(&routes::approval_answer(&checked(id)?, answer))?;
    if output.is_json() {
        return Ok(output.document(&answered)?);
    }
    let done = if answer == "allow" { "is allowed" } else { "is refused" };
    Ok(output.line(&format!("{} of agent '{}' {done}", request(&answered), answered.agent))?)
}

/// Checks that the id is safe in a path. Only the daemon knows whether it exists.
fn checked(id: &str) -> Result<String, CliError> {
    if !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(id.to_owned());
    }
    Err(CliError::Usage(
        "the id of an approval is ten hex digits\nhelp: 'onecli approval list' shows it".to_owned(),
    ))
}
