//! `onecli approval show`.

use onecli_api::{ApprovalDetail, BodyView, routes};

use super::request::request;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, joined};

/// The prefix of each body line, so that text from an agent cannot look like a line of the CLI.
const QUOTE: &str = "  | ";

pub(crate) fn show(client: &Client, id: &str, output: &mut Output) -> Result<(), CliError> {
    let detail: ApprovalDetail = client.get(&routes::approval(id))?;
    if output.is_json() {
        return Ok(output.document(&detail)?);
    }
    let ApprovalDetail { approval, headers, body } = detail;
    output.fields(&[
        ("id", approval.id.clone()),
        ("agent", approval.agent.to_string()),
        ("request", request(&approval)),
        ("secrets", joined(&approval.secrets, "-")),
        ("rule", approval.rule.to_string()),
        ("refused", output.time(approval.until)),
        ("digest", approval.digest),
    ])?;
    output.line("headers")?;
    for header in headers {
        output.line(&quoted(&format!("{}: {}", header.name, header.value)))?;
    }
    show_body(&body, output)?;
    output.line(&format!("next: onecli approval allow {id}, or onecli approval deny {id}"))?;
    Ok(())
}

fn show_body(body: &BodyView, output: &mut Output) -> Result<(), CliError> {
    let Some(bytes) = body.bytes else {
        output.line("body: streams; it is not shown, and the digest does not cover it")?;
        return Ok(());
    };
    let digest = body.sha256.as_deref().unwrap_or_default();
    let kind = if body.text.is_some() { "" } else { ", binary" };
    output.line(&format!("body: {bytes} bytes{kind}, SHA-256 {digest}"))?;
    for line in body.text.iter().filter(|text| !text.is_empty()).flat_map(|text| text.split('\n')) {
        output.line(&quoted(line))?;
    }
    Ok(())
}

/// Escapes text so that it stays on one line.
fn quoted(text: &str) -> String {
    format!("{QUOTE}{}", onecli_model::printable(text))
}
