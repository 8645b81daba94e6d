//! Tests of exported events against the schema.

use onecli_audit::Record;

use super::super::args::ExportFormat;
use super::super::export::Export;
use super::*;

/// The published schema of version 1.6.0, reduced to the parts that OneCLI's events use.
const SCHEMA: &str = include_str!("ocsf-1.6.0.json");

/// Checks that every attribute is known, has the right type and is in the list of values if there is one, and that
/// required attributes are present.
fn check(schema: &Value, kind: &str, value: &Value) {
    let of = &schema[kind];
    let attributes = of["attributes"].as_object().unwrap_or_else(|| panic!("{kind} is not in the schema"));
    let object = value.as_object().unwrap_or_else(|| panic!("{kind}: {value}"));
    for name in of["required"].as_array().unwrap() {
        assert!(object.contains_key(name.as_str().unwrap()), "{kind} requires {name}: {value}");
    }
    if let Some(some) = of.get("at_least_one") {
        let any = some.as_array().unwrap().iter().any(|name| object.contains_key(name.as_str().unwrap()));
        assert!(any, "{kind} wants one of {some}: {value}");
    }
    for (name, value) in object.iter().filter(|(name, _)| *name != "unmapped") {
        let attribute = attributes.get(name).unwrap_or_else(|| panic!("{kind} has no {name}"));
        let values = match (attribute["array"].as_bool(), value) {
            (Some(true), Value::Array(values)) => values.as_slice(),
            _ => std::slice::from_ref(value),
        };
        for value in values {
            let typed = match attribute["type"].as_str().unwrap() {
                "object_t" => {
                    check(schema, attribute["object"].as_str().unwrap(), value);
                    true
                }
                "integer_t" | "long_t" | "timestamp_t" => value.is_i64() || value.is_u64(),
                "port_t" => value.as_u64().is_some_and(|port| port < 65_536),
                "boolean_t" => value.is_boolean(),
                "ip_t" => value.as_str().is_some_and(|ip| ip.parse::<IpAddr>().is_ok()),
                "hostname_t" => value.as_str().is_some_and(is_hostname),
                _ => value.is_string(),
            };
            assert!(typed, "{kind}.{name} is {attribute}: {value}");
            let named = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let listed = attribute
                .get("enum")
                .is_none_or(|list| list.as_array().unwrap().iter().any(|one| *one == named));
            assert!(listed, "{kind}.{name} has no value {named}");
        }
    }
}

fn valid(record: &Value) -> Value {
    let event = ocsf(record.as_object().unwrap().clone());
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let kind = if event["class_uid"] == 0 { "base_event" } else { "http_activity" };
    check(&schema, kind, &event);
    assert_eq!(
        event["type_uid"].as_u64().unwrap(),
        event["class_uid"].as_u64().unwrap() * 100 + event["activity_id"].as_u64().unwrap()
    );
    assert_eq!(&event["unmapped"], record);
    event
}

#[test]
fn every_kind_of_record_is_valid() {
    let mut whole = serde_json::to_value(Record::with_every_field()).unwrap();
    whole["time"] = json!("2026-01-02T03:04:05.678901Z");
    whole["seq"] = json!(7);
    whole["prev"] = json!("00");
    let event = valid(&whole);
    assert_eq!((&event["class_uid"], &event["activity_id"]), (&json!(4002), &json!(6)));
    assert_eq!(event["time"], 1_767_323_045_678_i64);
    assert_eq!(event["http_response"]["code"], 200);

    // Any field may be missing, and most are missing in some record.
    for name in whole.as_object().unwrap().keys() {
        if !["time", "seq", "prev", "event", "request_id"].contains(&name.as_str()) {
            let mut part = whole.clone();
            part.as_object_mut().unwrap().remove(name);
            valid(&part);
        }
    }
    let of = |fields: Value| {
        let mut record = json!({"time": "2026-01-02T03:04:05Z", "seq": 8, "prev": "00"});
        record.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        valid(&record)
    };
    let id = "0198c5a2-0000-7000-8000-000000000001";
    let decision = of(
        json!({"request_id": id, "event": "decision", "mode": "explicit", "host": "a.test", "port": 443, "verdict": "inject", "method": "PATCH", "path": "/"}),
    );
    assert_eq!((&decision["activity_id"], &decision["action_id"]), (&json!(9), &json!(1)));
    let tunnel = of(
        json!({"request_id": id, "event": "decision", "mode": "transparent", "host": "192.0.2.1", "verdict": "tunnel"}),
    );
    assert_eq!(
        (&tunnel["activity_name"], &tunnel["dst_endpoint"]["ip"]),
        (&json!("Connect"), &json!("192.0.2.1"))
    );
    let odd = of(
        json!({"request_id": id, "event": "alert", "mode": "explicit", "host": "a b\\u{a}", "method": "PROPFIND", "verdict": "deny"}),
    );
    assert_eq!((&odd["activity_id"], &odd["activity_name"]), (&json!(99), &json!("PROPFIND")));
    assert_eq!((&odd["is_alert"], &odd["disposition_id"]), (&json!(true), &json!(2)));
    of(
        json!({"request_id": id, "event": "decision", "mode": "explicit", "verdict": "deny", "code": "proxy_auth"}),
    );
    let folded = of(
        json!({"request_id": id, "event": "decision", "agent": "one", "verdict": "deny", "code": "several", "count": 9}),
    );
    assert_eq!((&folded["class_uid"], &folded["count"]), (&json!(0), &json!(9)));
    let own = of(json!({"event": "alert", "code": "audit_torn", "count": 3}));
    assert_eq!(
        (&own["class_uid"], &own["activity_name"], &own["status_id"]),
        (&json!(0), &json!("audit_torn"), &json!(2))
    );
}

#[test]
fn exports_and_reference_contain_each_field() {
    let page = include_str!("../../../../../../../docs/reference/audit-record.md");
    let example = |field: &Field| (field.name.to_owned(), serde_json::from_str(field.example).unwrap());
    let record: Map<String, Value> = onecli_audit::fields().map(example).collect();
    let event = ocsf(record.clone());
    let export = Export::new(ExportFormat::Csv);
    let header = String::from_utf8(export.header().unwrap().unwrap()).unwrap();
    for field in onecli_audit::fields() {
        let name = field.name;
        assert_eq!(header.split(',').filter(|column| *column == format!("\"{name}\"")).count(), 1, "{name}");
        assert_eq!(page.matches(&format!("\n| `{name}` |")).count(), 1, "{name}");
        assert_eq!(event["unmapped"][name], record[name]);
        for attribute in field.ocsf {
            let value = event.pointer(attribute.pointer());
            let copied = converted(Line(&record), field, *attribute);
            assert!(
                value.is_some() && (copied.is_none() || value == copied.as_ref()),
                "{name}: {attribute:?}"
            );
        }
    }
}

#[test]
fn values_of_another_type_are_not_copied() {
    let event = ocsf(
        json!({"host": "a.test", "port": "443", "status": "200", "agent": 7, "uid": "x", "pid": true,
        "comm": "curl", "path": 1, "bytes_in": -1, "duration_us": "1"})
        .as_object()
        .unwrap()
        .clone(),
    );
    assert_eq!(event["dst_endpoint"], json!({"hostname": "a.test"}));
    assert_eq!(event["src_endpoint"], json!({"name": "unknown"}));
    for absent in ["actor", "http_request", "http_response", "traffic", "duration"] {
        assert!(event.get(absent).is_none(), "{event}");
    }
}
