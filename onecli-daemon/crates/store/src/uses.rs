//! The last injection of each secret, as audit rows report it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::audit::AuditRow;

/// The field of a record that names secrets: one, or several as `NAME@VERSION,NAME@VERSION`.
#[derive(Deserialize)]
struct Injected {
    secret: Option<String>,
}

/// The last use of each secret in these rows, by name.
pub(super) fn last_uses(rows: &[AuditRow]) -> BTreeMap<String, Timestamp> {
    let mut uses = BTreeMap::new();
    // The outcome of a request repeats its verdict.
    let is_use = |row: &&AuditRow| row.event == "decision" && row.verdict.as_deref() == Some("inject");
    for row in rows.iter().filter(is_use) {
        let Ok(Injected { secret: Some(names) }) = serde_json::from_str(&row.json) else { continue };
        for name in names.split(',').map(|name| name.split('@').next().unwrap_or(name)) {
            let time = uses.entry(name.to_owned()).or_insert(row.time);
            *time = row.time.max(*time);
        }
    }
    uses
}
