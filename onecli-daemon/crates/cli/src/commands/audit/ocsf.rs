//! Audit records as events of the Open Cybersecurity Schema Framework, version 1.6.0 (schema.ocsf.io).

use std::net::IpAddr;

use serde_json::{Map, Value, json};

/// Methods for which `activity_id` of HTTP Activity and `http_method` have a value.
const METHODS: [(&str, &str); 9] = [
    ("CONNECT", "Connect"),
    ("DELETE", "Delete"),
    ("GET", "Get"),
    ("HEAD", "Head"),
    ("OPTIONS", "Options"),
    ("POST", "Post"),
    ("PUT", "Put"),
    ("TRACE", "Trace"),
    ("PATCH", "Patch"),
];
/// The `activity_id` of everything else.
const OTHER: u32 = 99;

/// Converts a record to HTTP Activity (4002), or to a Base Event (0) if it describes no request, such as an
/// administrator's action. Both have the profiles `security_control` and `host`. `unmapped` contains the original
/// record.
pub(super) fn ocsf(record: Map<String, Value>) -> Value {
    let text = |name: &str| record.get(name).and_then(Value::as_str);
    let number = |name: &str| record.get(name).and_then(Value::as_u64);
    let class: u32 = if text("host").or(text("method")).or(text("mode")).is_some() { 4002 } else { 0 };
    let method = text("method").or_else(|| (text("verdict") == Some("tunnel")).then_some("CONNECT"));
    let known = (1_u32..).zip(METHODS).find(|(_, (name, _))| class != 0 && method == Some(*name));
    let (activity, activity_name) = match known {
        Some((id, (_, caption))) => (id, caption),
        None => (OTHER, method.or(text("code")).or(text("event")).unwrap_or("Other")),
    };
    let denied = text("verdict") == Some("deny");
    let alert = text("event") == Some("alert");
    let status = number("status");
    let succeeded = text("code").is_none() && status.is_none_or(|status| status < 400);
    let mut event = json!({
        "class_uid": class,
        "class_name": if class == 0 { "Base Event" } else { "HTTP Activity" },
        "category_uid": class / 1000,
        "category_name": if class == 0 { "Uncategorized" } else { "Network Activity" },
        "activity_id": activity,
        "activity_name": activity_name,
        "type_uid": class * 100 + activity,
        "time": milliseconds(text("time")),
        "severity_id": if alert { 4 } else if denied { 2 } else { 1 },
        "action_id": if denied { 2 } else { 1 },
        "disposition_id": if denied { 2 } else { 1 },
        "is_alert": alert,
        "status_id": if succeeded { 1 } else { 2 },
        "count": number("count"),
        "metadata": {
            "version": "1.6.0",
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
            "process": number("pid").map(|pid| json!({"pid": pid, "name": text("comm")})),
        },
    });
    if class != 0 {
        let request = json!({
            "src_endpoint": {"name": text("agent").unwrap_or("unknown")},
            "dst_endpoint": endpoint(text("host"), number("port")),
            "http_request": {
                "http_method": known.map(|(_, (name, _))| name),
                "uid": text("request_id"),
                "url": text("path").map(|path| json!({
                    "path": path,
                    "hostname": text("host").filter(|host| is_hostname(host)),
                    "port": number("port"),
                })),
            },
            "http_response": status.map(|status| json!({"code": status})),
            "traffic": {"bytes_in": number("bytes_in"), "bytes_out": number("bytes_out")},
        });
        if let (Value::Object(event), Value::Object(request)) = (&mut event, request) {
            event.extend(request);
        }
    }
    prune(&mut event);
    if let Value::Object(event) = &mut event {
        // Everything for which OCSF has no name, and values that it would round.
        event.insert("unmapped".to_owned(), Value::Object(record));
    }
    event
}

fn endpoint(host: Option<&str>, port: Option<u64>) -> Value {
    match host {
        None => json!({}),
        Some(host) if host.parse::<IpAddr>().is_ok() => json!({"ip": host, "port": port}),
        Some(host) if is_hostname(host) => json!({"hostname": host, "port": port}),
        Some(other) => json!({"name": other, "port": port}),
    }
}

/// Returns whether OCSF accepts the text as a hostname. An agent may have requested any text.
fn is_hostname(host: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(label)
}

fn milliseconds(time: Option<&str>) -> i64 {
    time.and_then(|time| time.parse::<jiff::Timestamp>().ok()).map_or(0, jiff::Timestamp::as_millisecond)
}

/// Removes unknown values.
fn prune(value: &mut Value) {
    if let Value::Object(object) = value {
        object.values_mut().for_each(prune);
        object
            .retain(|_, value| !value.is_null() && value.as_object().is_none_or(|object| !object.is_empty()));
    }
}

#[cfg(test)]
mod tests;
