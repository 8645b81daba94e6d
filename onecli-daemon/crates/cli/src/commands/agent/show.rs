//! `onecli agent show`.

use onecli_api::{AgentDetail, GrantView, routes};
use onecli_model::AgentName;

use super::view::fields;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, joined, or_dash};

pub(crate) fn show(client: &Client, name: &AgentName, output: &mut Output) -> Result<(), CliError> {
    let detail: AgentDetail = client.get(&routes::agent(name))?;
    if output.is_json() {
        return Ok(output.document(&detail)?);
    }
    let mut fields = fields(&detail.agent);
    fields.extend([
        ("runners", joined(detail.runners.iter(), "administrators only")),
        ("see all runs", joined(detail.see_all.iter(), "")),
    ]);
    output.fields(&fields)?;
    if detail.secrets.is_empty() {
        output.line(&format!("no secrets; next: onecli grant {name} SECRET"))?;
        return Ok(());
    }
    let rows: Vec<_> = detail
        .secrets
        .iter()
        .map(|grant| [grant.secret.to_string(), or_dash(grant.env.as_ref()), placeholder(grant)])
        .collect();
    output.line("")?;
    Ok(output.table(["SECRET", "VARIABLE", "PLACEHOLDER"], &rows)?)
}

fn placeholder(grant: &GrantView) -> String {
    or_dash(Some(&grant.placeholder).filter(|placeholder| !placeholder.is_empty()))
}
