//! `onecli why` and `onecli rule test`.

use clap::Args as ClapArgs;
use onecli_api::{Explain, Explanation, routes};
use onecli_model::AgentName;

use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, joined};

/// Explain the decision about a request.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Nothing is resolved or sent. The decision assumes that the agent presents the required factors and placeholders, which the
output lists.

Examples:
  onecli why --agent coder GET https://api.openai.com/v1/models
  onecli why --agent coder --json DELETE https://api.github.com/repos/acme/web | jq .because")]
pub(crate) struct WhyArgs {
    /// The agent that would send the request.
    #[arg(long)]
    pub(crate) agent: AgentName,
    /// The HTTP method.
    pub(crate) method: String,
    /// The URL.
    pub(crate) url: String,
    /// A header that names a further resource, as 'NAME: VALUE' (x-amz-copy-source, Destination); repeatable.
    #[arg(long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
}

pub(crate) fn why(client: &Client, args: WhyArgs, output: &mut Output) -> Result<(), CliError> {
    let request = Explain { agent: args.agent, method: args.method, url: args.url, headers: args.headers };
    let why: Explanation = client.post(routes::EXPLAIN, &request)?;
    if output.is_json() {
        return Ok(output.document(&why)?);
    }
    let ids = |ids: &[onecli_model::RuleId]| joined(ids, "");
    output.fields(&[
        ("request", format!("{} {}{} by agent '{}'", why.method, why.authority, why.path, why.agent)),
        ("decision", decision(&why)),
        ("because", why.because.clone().unwrap_or_default()),
        ("code", why.code.clone().unwrap_or_default()),
        ("message", why.message.clone().unwrap_or_default()),
        ("hint", why.hint.clone().unwrap_or_default()),
        ("secrets", joined(&why.secrets, "")),
        ("needs", joined(&why.needs, "")),
        ("otherwise", why.otherwise.clone().unwrap_or_default()),
        (
            "approval",
            why.approve.map(|id| format!("approval is required first, by rule {id}")).unwrap_or_default(),
        ),
        ("limits", ids(&why.limits)),
        ("addresses", joined(&why.addresses, "")),
    ])?;
    if why.considered.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let rows: Vec<_> = why
        .considered
        .into_iter()
        .map(|one| {
            let applies = if one.applies { "yes" } else { "no" };
            [one.subject, applies.to_owned(), one.reason.unwrap_or_default()]
        })
        .collect();
    Ok(output.table(["CONSIDERED", "APPLIES", "WHY NOT"], &rows)?)
}

fn decision(why: &Explanation) -> String {
    let meaning = match why.decision.as_str() {
        "inject" => "forwarded, with credentials injected",
        "forward" => "forwarded, without a credential",
        "tunnel" => "passed uninspected",
        _ => "refused",
    };
    format!("{} ({meaning})", why.decision)
}
