//! `onecli status`.

use onecli_api::Transparent;
use onecli_api::{AuditStatus, Status, routes};

use super::counters::meaning;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, or_dash};

pub(crate) fn status(client: &Client, output: &mut Output) -> Result<(), CliError> {
    let status: Status = client.get(routes::STATUS)?;
    if output.is_json() {
        return Ok(output.document(&status)?);
    }
    let transparent = match (&status.transparent, &status.transparent_fault) {
        (Transparent::Available, None) => "available".to_owned(),
        (Transparent::Available, Some(fault)) => format!("BROKEN: {fault}"),
        (Transparent::Off { reason, fix }, _) => format!("off, explicit proxy only: {reason} ({fix})"),
    };
    output.fields(&[
        ("daemon", format!("version {}", status.version)),
        ("started", output.time(status.started)),
        ("transparent", transparent),
        ("explicit", or_dash(status.explicit)),
        (
            "store",
            status
                .store_fault
                .as_ref()
                .map_or_else(|| "healthy".to_owned(), |fault| format!("FAILING: {fault}")),
        ),
        ("audit log", audit(&status.audit)),
        ("agents", or_dash(status.agents)),
        ("secrets", or_dash(status.secrets)),
        ("waiting approvals", waiting(status.approvals_waiting)),
    ])?;
    if !status.counters.is_empty() {
        output.line("")?;
        let row = |(name, count): (&String, &u64)| {
            let rate = status.rates.get(name).map(|rate| format!("{rate:.2}"));
            [name.clone(), count.to_string(), or_dash(rate), meaning(name).to_owned()]
        };
        let rows: Vec<_> = status.counters.iter().map(row).collect();
        output.table(["COUNTER", "TOTAL", "PER SECOND", "MEANING"], &rows)?;
    }
    Ok(())
}

fn waiting(count: usize) -> String {
    match count {
        0 => "none".to_owned(),
        count => format!("{count} ('onecli approval list' shows them)"),
    }
}

/// Describes whether the log is written and whether records reach the database.
fn audit(audit: &AuditStatus) -> String {
    let mut text = match &audit.fault {
        None => "healthy".to_owned(),
        Some(fault) => format!("FAILING, requests are refused: {fault}"),
    };
    let behind = audit.durable.saturating_sub(audit.shipped);
    if behind > 0 {
        text = format!("{text}; {behind} of {} records are not in the store yet", audit.durable);
    }
    match &audit.shipping_fault {
        None => text,
        Some(fault) => format!("{text}; {fault}"),
    }
}
