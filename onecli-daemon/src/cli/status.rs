//! `onecli status`.

use super::CliError;
use super::client::Client;
use super::output::{Output, or_dash};
use crate::admin::Transparent;
use crate::admin::api::{AuditStatus, Status, routes};

pub(super) fn status(client: &Client, output: &mut Output) -> Result<(), CliError> {
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
        ("started", status.started.to_string()),
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
    ])?;
    if !status.counters.is_empty() {
        output.line("")?;
        let rows: Vec<_> =
            status.counters.iter().map(|(name, count)| [name.clone(), count.to_string()]).collect();
        output.table(["COUNTER", "VALUE"], &rows)?;
    }
    Ok(())
}

/// Is it written, and does it reach the database?
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
