//! Audit records in the forms of other programs.

use serde_json::{Map, Value};

use super::CliError;
use super::audit_args::ExportFormat;
use super::ocsf::ocsf;

/// The columns of CSV: every field that a record can have.
const COLUMNS: [&str; 37] = [
    "time",
    "seq",
    "prev",
    "request_id",
    "event",
    "agent",
    "factors",
    "mode",
    "method",
    "host",
    "port",
    "path",
    "address",
    "rule",
    "secret",
    "secret_version",
    "backend",
    "verdict",
    "code",
    "status",
    "bytes_in",
    "bytes_out",
    "duration_us",
    "tls",
    "alpn",
    "scrub_hits",
    "cgroup",
    "cgroup_id",
    "netns",
    "uid",
    "pid",
    "comm",
    "approval",
    "approval_digest",
    "approval_uid",
    "count",
    "other",
];

/// What turns records into lines.
pub(super) struct Export {
    format: ExportFormat,
}

impl Export {
    pub(super) fn new(format: ExportFormat) -> Export {
        Export { format }
    }

    /// What stands before the first record.
    pub(super) fn header(&self) -> Option<String> {
        (self.format == ExportFormat::Csv).then(|| format!("{}\r", COLUMNS.join(",")))
    }

    /// A record's line, without its end.
    pub(super) fn line(&mut self, record: &[u8]) -> Result<Vec<u8>, CliError> {
        Ok(match self.format {
            ExportFormat::Jsonl => record.to_vec(),
            ExportFormat::Csv => csv(serde_json::from_slice(record)?).into_bytes(),
            ExportFormat::Ocsf => serde_json::to_vec(&ocsf(serde_json::from_slice(record)?))?,
        })
    }
}

/// RFC 4180. What a newer daemon adds goes into the last column, as JSON.
fn csv(mut record: Map<String, Value>) -> String {
    let mut cells: Vec<String> = COLUMNS[..COLUMNS.len() - 1]
        .iter()
        .map(|name| record.remove(*name).map_or_else(String::new, |value| cell(&value)))
        .collect();
    cells.push(if record.is_empty() { String::new() } else { cell(&Value::Object(record)) });
    format!("{}\r", cells.join(","))
}

/// Numbers are written as they are; a text that a spreadsheet would take for a formula is given an apostrophe.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Number(number) => return number.to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text };
    if text.contains([',', '"', '\n', '\r', ' ']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_cell_is_a_formula_or_another_cell() {
        let check = |raw: &str, written: &str| assert_eq!(cell(&Value::from(raw)), written, "{raw:?}");
        check("plain", "plain");
        check("=1+1", "'=1+1");
        check("+SUM(A1)", "'+SUM(A1)");
        check("-2", "'-2");
        check("@cmd", "'@cmd");
        check("\t=1", "'\t=1");
        check("a,b", "\"a,b\"");
        check("a\"b", "\"a\"\"b\"");
        check("=HYPERLINK(\"http://x\",\"y\")", "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\"");
        assert_eq!(cell(&Value::from(-2)), "-2");
    }

    #[test]
    fn csv_has_a_column_for_each_field() {
        let mut export = Export::new(ExportFormat::Csv);
        assert_eq!(export.header().unwrap().split(',').count(), COLUMNS.len());
        let whole = crate::audit::Record::with_every_field();
        for name in serde_json::to_value(whole).unwrap().as_object().unwrap().keys() {
            assert!(COLUMNS.contains(&name.as_str()), "{name}");
        }
        let line = json!({"time": "t", "seq": 3, "agent": "one", "path": "/a,b", "comm": "=x", "new": true});
        let line = String::from_utf8(export.line(line.to_string().as_bytes()).unwrap()).unwrap();
        assert!(line.starts_with("t,3,,,,one,"), "{line}");
        assert!(
            line.contains("\"/a,b\"") && line.contains("'=x") && line.ends_with("\"{\"\"new\"\":true}\"\r")
        );
    }
}
