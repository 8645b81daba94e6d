//! Audit records in the forms of other programs.

use serde_json::{Map, Value, json};

use super::CliError;
use super::audit_args::ExportFormat;

/// The columns of CSV: every field that a record can have.
const COLUMNS: [&str; 34] = [
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

/// OCSF 1.3.0, HTTP Activity (4002) with the profiles `security_control` and `host`; records of the log about itself are
/// of the same class, with the activity `Other`.
fn ocsf(record: Map<String, Value>) -> Value {
    let text = |name: &str| record.get(name).and_then(Value::as_str);
    let number = |name: &str| record.get(name).and_then(Value::as_u64);
    let (activity, activity_name) = match (text("method"), text("verdict")) {
        (_, Some("tunnel")) | (Some("CONNECT"), _) => (1, "Connect"),
        (Some("DELETE"), _) => (2, "Delete"),
        (Some("GET"), _) => (3, "Get"),
        (Some("HEAD"), _) => (4, "Head"),
        (Some("OPTIONS"), _) => (5, "Options"),
        (Some("POST"), _) => (6, "Post"),
        (Some("PUT"), _) => (7, "Put"),
        (Some("TRACE"), _) => (8, "Trace"),
        (Some(other), _) => (99, other),
        (None, _) => (99, "Other"),
    };
    let denied = text("verdict") == Some("deny");
    let alert = text("event") == Some("alert");
    let status = number("status");
    let succeeded = text("code").is_none() && status.is_none_or(|status| status < 400);
    let mut event = json!({
        "class_uid": 4002,
        "class_name": "HTTP Activity",
        "category_uid": 4,
        "category_name": "Network Activity",
        "activity_id": activity,
        "activity_name": activity_name,
        "type_uid": 400_200 + activity,
        "time": milliseconds(text("time")),
        "severity_id": if alert { 4 } else if denied { 2 } else { 1 },
        "action_id": if denied { 2 } else { 1 },
        "disposition_id": if denied { 2 } else { 1 },
        "is_alert": alert,
        "status_id": if succeeded { 1 } else { 2 },
        "metadata": {
            "version": "1.3.0",
            "product": {"name": "OneCLI", "vendor_name": "OneCLI", "version": env!("CARGO_PKG_VERSION")},
            "profiles": ["security_control", "host"],
            "log_name": "audit",
            "sequence": number("seq"),
            "uid": text("prev"),
            "correlation_uid": text("request_id"),
            "original_time": text("time"),
        },
        "status_code": text("code"),
        "duration": number("duration_us").map(|us| us / 1000),
        "actor": {
            "app_name": text("agent"),
            "user": {"uid": number("uid").map(|uid| uid.to_string())},
            "process": {"pid": number("pid"), "name": text("comm")},
        },
        "src_endpoint": {"name": text("agent").unwrap_or("unknown")},
        "dst_endpoint": {"hostname": text("host"), "port": number("port")},
        "http_request": {
            "http_method": text("method").unwrap_or("-"),
            "uid": text("request_id"),
            "url": {"hostname": text("host"), "path": text("path"), "port": number("port")},
        },
        "http_response": status.map(|status| json!({"code": status})),
        "traffic": {"bytes_in": number("bytes_in"), "bytes_out": number("bytes_out")},
    });
    prune(&mut event);
    if let Value::Object(event) = &mut event {
        // All that OCSF has no name for, and what it would round.
        event.insert("unmapped".to_owned(), Value::Object(record));
    }
    event
}

fn milliseconds(time: Option<&str>) -> i64 {
    time.and_then(|time| time.parse::<jiff::Timestamp>().ok()).map_or(0, jiff::Timestamp::as_millisecond)
}

/// Takes out what is not known.
fn prune(value: &mut Value) {
    if let Value::Object(object) = value {
        object.values_mut().for_each(prune);
        object
            .retain(|_, value| !value.is_null() && value.as_object().is_none_or(|object| !object.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(json: &Value) -> Map<String, Value> {
        json.as_object().unwrap().clone()
    }

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
        let line = json!({"time": "t", "seq": 3, "agent": "one", "path": "/a,b", "comm": "=x", "new": true});
        let line = String::from_utf8(export.line(line.to_string().as_bytes()).unwrap()).unwrap();
        assert!(line.starts_with("t,3,,,,one,"), "{line}");
        assert!(
            line.contains("\"/a,b\"") && line.contains("'=x") && line.ends_with("\"{\"\"new\"\":true}\"\r")
        );
    }

    /// The required attributes of the class and of what it holds (OCSF 1.3.0).
    #[test]
    fn ocsf_has_what_the_class_requires() {
        let whole = json!({
            "time": "2026-01-02T03:04:05.678901Z", "seq": 7, "event": "outcome", "agent": "one", "method": "POST",
            "host": "api.test", "port": 443, "path": "/v1", "verdict": "inject", "status": 200, "bytes_in": 1,
            "bytes_out": 2, "duration_us": 2500, "uid": 1000, "pid": 42, "comm": "curl"
        });
        let own = json!({"time": "2026-01-02T03:04:05Z", "seq": 8, "event": "alert", "code": "audit_torn"});
        for raw in [&whole, &own] {
            let event = ocsf(record(raw));
            for name in ["activity_id", "category_uid", "class_uid", "type_uid", "severity_id", "time"] {
                assert!(event[name].is_i64() || event[name].is_u64(), "{name}: {event}");
            }
            assert_eq!(event["type_uid"].as_u64(), Some(400_200 + event["activity_id"].as_u64().unwrap()));
            assert_eq!(event["metadata"]["version"], "1.3.0");
            assert_eq!(event["metadata"]["product"]["vendor_name"], "OneCLI");
            assert!(event["http_request"]["http_method"].is_string(), "at least one of request and response");
            assert_eq!(&event["unmapped"], raw);
        }
        let event = ocsf(record(&whole));
        assert_eq!(event["time"], 1_767_323_045_678_i64);
        assert_eq!((&event["activity_id"], &event["http_response"]["code"]), (&json!(6), &json!(200)));
        assert_eq!((&event["action_id"], &event["duration"]), (&json!(1), &json!(2)));
        let event = ocsf(record(&own));
        assert_eq!((&event["is_alert"], &event["status_id"]), (&json!(true), &json!(2)));
    }
}
