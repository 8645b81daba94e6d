//! Audit records as events of the Open Cybersecurity Schema Framework, version 1.6.0 (schema.ocsf.io).

use std::net::IpAddr;

use onecli_audit::{Field, Ocsf};
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

/// The attributes that a Base Event does not have.
const ACTIVITY_ONLY: [&str; 5] = ["src_endpoint", "dst_endpoint", "http_request", "http_response", "traffic"];
/// Objects with what they cannot be without: one of these attributes.
const REQUIRED: [(&str, &[&str]); 3] = [
    ("/dst_endpoint", &["ip", "hostname", "name"]),
    ("/http_request/url", &["path"]),
    ("/actor/process", &["pid"]),
];

/// A line of the log.
#[derive(Clone, Copy)]
struct Line<'r>(&'r Map<String, Value>);

/// Converts a record to HTTP Activity (4002), or to a Base Event (0) if it describes no request, such as an
/// administrator's action. Both have the profiles `security_control` and `host`. `unmapped` contains the original
/// record.
pub(super) fn ocsf(record: Map<String, Value>) -> Value {
    let mut event = computed(Line(&record));
    copy_fields(Line(&record), &mut event);
    for (object, one_of) in REQUIRED {
        drop_incomplete(&mut event, object, one_of);
    }
    prune(&mut event);
    if let Value::Object(event) = &mut event {
        // Everything for which OCSF has no name, and values that it would round.
        event.insert("unmapped".to_owned(), Value::Object(record));
    }
    event
}

impl<'r> Line<'r> {
    fn text(self, name: &str) -> Option<&'r str> {
        self.0.get(name)?.as_str()
    }

    fn number(self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_u64()
    }

    fn is(self, name: &str, text: &str) -> bool {
        self.text(name) == Some(text)
    }

    /// The class of the event. Only a request has one of these fields.
    fn class(self) -> u32 {
        let is_request = ["host", "method", "mode"].into_iter().any(|name| self.text(name).is_some());
        if is_request { 4002 } else { 0 }
    }

    /// The method; a tunnel has none in its record.
    fn method(self) -> Option<&'r str> {
        self.text("method").or_else(|| self.is("verdict", "tunnel").then_some("CONNECT"))
    }

    /// The `activity_id` and the caption of a method that OCSF lists.
    fn listed_method(self) -> Option<(u32, (&'static str, &'static str))> {
        let method = self.method().filter(|_| self.class() != 0)?;
        (1..).zip(METHODS).find(|(_, (name, _))| *name == method)
    }

    fn activity(self) -> (u32, &'r str) {
        let other = || self.method().or(self.text("code")).or(self.text("event")).unwrap_or("Other");
        self.listed_method().map_or_else(|| (OTHER, other()), |(id, (_, caption))| (id, caption))
    }

    fn succeeded(self) -> bool {
        self.text("code").is_none() && self.number("status").is_none_or(|status| status < 400)
    }
}

/// The attributes that are constant, or that follow from several fields or from the form of a value.
fn computed(line: Line) -> Value {
    let class = line.class();
    let (activity, activity_name) = line.activity();
    let (denied, alert) = (line.is("verdict", "deny"), line.is("event", "alert"));
    let mut event = json!({
        "class_uid": class,
        "class_name": if class == 0 { "Base Event" } else { "HTTP Activity" },
        "category_uid": class / 1000,
        "category_name": if class == 0 { "Uncategorized" } else { "Network Activity" },
        "activity_id": activity,
        "activity_name": activity_name,
        "type_uid": class * 100 + activity,
        "time": milliseconds(line.text("time")),
        "severity_id": if alert { 4 } else if denied { 2 } else { 1 },
        "action_id": if denied { 2 } else { 1 },
        "disposition_id": if denied { 2 } else { 1 },
        "is_alert": alert,
        "status_id": if line.succeeded() { 1 } else { 2 },
        "metadata": {
            "version": "1.6.0",
            "product": {"name": "OneCLI", "vendor_name": "OneCLI", "version": env!("CARGO_PKG_VERSION")},
            "profiles": ["security_control", "host"],
            "log_name": "audit",
        },
    });
    if class != 0 {
        let host = line.text("host");
        event["src_endpoint"] = json!({"name": "unknown"});
        event["dst_endpoint"] = host.map_or(Value::Null, endpoint);
        event["http_request"] = json!({
            "http_method": line.listed_method().map(|(_, (name, _))| name),
            "url": {"hostname": host.filter(|host| is_hostname(host))},
        });
    }
    event
}

/// Copies each field to the attributes that its declaration names.
fn copy_fields(line: Line, event: &mut Value) {
    let is_base = line.class() == 0;
    for field in onecli_audit::fields() {
        for attribute in field.ocsf {
            let pointer = attribute.pointer();
            if is_base && pointer.split('/').nth(1).is_some_and(|name| ACTIVITY_ONLY.contains(&name)) {
                continue;
            }
            if let Some(value) = converted(line, field, *attribute) {
                *pointer.split('/').skip(1).fold(&mut *event, |object, name| &mut object[name]) = value;
            }
        }
    }
}

/// The value of a field as an attribute has it; `None` if it is computed, unknown or has another type than the field.
fn converted(line: Line, field: &Field, attribute: Ocsf) -> Option<Value> {
    match attribute {
        Ocsf::Copy(_) if field.is_text() => line.text(field.name).map(Value::from),
        Ocsf::Copy(_) => line.number(field.name).map(Value::from),
        Ocsf::Text(_) => line.number(field.name).map(|number| Value::from(number.to_string())),
        Ocsf::Milliseconds(_) => line.number(field.name).map(|us| Value::from(us / 1000)),
        Ocsf::Derived(_) => None,
    }
}

/// Removes an object that has none of the attributes of which it needs one.
fn drop_incomplete(event: &mut Value, pointer: &str, one_of: &[&str]) {
    if let Some(object) = event.pointer_mut(pointer) {
        let is_complete = one_of.iter().any(|name| object.get(name).is_some_and(|value| !value.is_null()));
        if !is_complete {
            *object = Value::Null;
        }
    }
}

/// The attribute of an endpoint for the kind of host.
fn endpoint(host: &str) -> Value {
    match host {
        host if host.parse::<IpAddr>().is_ok() => json!({"ip": host}),
        host if is_hostname(host) => json!({"hostname": host}),
        other => json!({"name": other}),
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
