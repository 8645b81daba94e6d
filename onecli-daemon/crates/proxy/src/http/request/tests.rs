//! Tests of heads: one authority, one path, and none of the client's framing.

use std::sync::Arc;

use http::{Request, header};
use jiff::Timestamp;
use onecli_audit::{Record, Text};
use onecli_model::{Authority, Code, Placeholder, RequestId};

use super::head::Head;
use crate::http::context::connection::Expected;
use onecli_model::Scheme;

fn connection(scheme: Scheme, authority: Option<&str>, port: Option<u16>) -> Expected {
    let authority = authority.map(|text| Authority::parse(text, Some(443)).unwrap());
    Expected { scheme, authority, port, implied: None }
}

/// Reads a head of `METHOD TARGET` and fields.
fn read(connection: &Expected, line: &str, fields: &[(&str, &str)]) -> Result<Head, Code> {
    let (method, target) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    Head::read(&parts, connection).map_err(|refusal| refusal.code)
}

#[test]
fn disagreement_of_target_host_and_connection_is_refused() {
    let tls = connection(Scheme::Https, Some("api.test"), None);
    let check = |line: &str, hosts: &[&str], expected: Result<&str, Code>| {
        let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        let got = read(&tls, line, &fields).map(|head| head.authority.to_string());
        assert_eq!(got.as_deref().map_err(|code| *code), expected, "{line} {hosts:?}");
    };
    check("GET /x", &["api.test"], Ok("api.test:443"));
    check("GET /x", &["API.Test.:443"], Ok("api.test:443"));
    check("GET https://api.test/x", &[], Ok("api.test:443"));
    check("GET https://api.test/x", &["api.test"], Ok("api.test:443"));
    check("GET /x", &[], Err(Code::BadRequest));
    check("GET /x", &["api.test", "api.test"], Err(Code::BadRequest));
    check("GET /x", &["api.test@evil.test"], Err(Code::BadRequest));
    check("GET https://user@api.test/x", &[], Err(Code::BadRequest));
    // Over HTTP/2 `:scheme` is always present, and here it differs from the connection.
    check("GET http://api.test:443/x", &[], Err(Code::Misdirected));
    check("GET http://api.test/x", &["api.test"], Err(Code::Misdirected));
    check("GET /x", &["evil.test"], Err(Code::Misdirected));
    check("GET /x", &["api.test:8443"], Err(Code::Misdirected));
    check("GET https://evil.test/x", &["api.test"], Err(Code::Misdirected));
    check("GET https://api.test/x", &["evil.test"], Err(Code::Misdirected));
    check("TRACE /x", &["api.test"], Err(Code::MethodNotAllowed));
    check("OPTIONS *", &["api.test"], Err(Code::BadRequest));
}

#[test]
fn plain_request_must_name_its_port() {
    let plain = connection(Scheme::Http, None, Some(8080));
    let port = |host: &str| read(&plain, "GET /", &[("host", host)]).map(|head| head.authority.port());
    assert_eq!(port("api.test:8080"), Ok(8080));
    assert_eq!(port("api.test"), Err(Code::Misdirected));
    assert_eq!(port("api.test:80"), Err(Code::Misdirected));
}

#[test]
fn only_end_to_end_headers_remain() {
    let tls = connection(Scheme::Https, Some("api.test"), None);
    let head = read(
        &tls,
        "GET /x",
        &[
            ("host", "api.test"),
            ("connection", "keep-alive, X-Hop, Authorization"),
            ("x-hop", "1"),
            ("authorization", "Bearer agent"),
            ("proxy-authorization", "Basic eDp5"),
            ("proxy-connection", "keep-alive"),
            ("keep-alive", "1"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("expect", "100-continue"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
            ("content-length", "0"),
        ],
    )
    .unwrap();
    let mut names: Vec<_> = head.headers.keys().map(header::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "content-length", "te"]);
    assert!(!head.websocket);
}

#[test]
fn placeholders_are_found_in_url_headers_and_basic_credentials() {
    let placeholder = Placeholder::from_bits([3; 20]);
    let tls = connection(Scheme::Https, Some("api.test"), None);
    let basic = data_encoding::BASE64.encode(format!("git:{placeholder}").as_bytes());
    let as_user = data_encoding::BASE64.encode(format!("{placeholder}:x").as_bytes());
    let hex = data_encoding::HEXLOWER.encode(placeholder.as_str().as_bytes());
    let escaped: String =
        hex.as_bytes().chunks(2).flat_map(|pair| ['%', pair[0].into(), pair[1].into()]).collect();
    let twice = escaped.replace('%', "%25");
    for (line, field) in [
        (format!("GET /{placeholder}"), ("accept", "*/*".to_owned())),
        (format!("GET /?key={placeholder}"), ("accept", "*/*".to_owned())),
        ("GET /".to_owned(), ("x-api-key", placeholder.to_string())),
        (format!("GET /?key={escaped}"), ("accept", "*/*".to_owned())),
        (format!("GET /{escaped}"), ("accept", "*/*".to_owned())),
        (format!("GET /?key={twice}"), ("accept", "*/*".to_owned())),
        ("GET /".to_owned(), ("cookie", format!("a={escaped}"))),
        ("GET /".to_owned(), ("authorization", format!("Basic {as_user}"))),
        ("GET /".to_owned(), ("authorization", format!("Bearer {placeholder}"))),
        ("GET /".to_owned(), ("authorization", format!("Basic {basic}"))),
    ] {
        let head = read(&tls, &line, &[("host", "api.test"), (field.0, &field.1)]).unwrap();
        assert_eq!(head.placeholders, std::slice::from_ref(&placeholder), "{line} {field:?}");
    }
}

#[test]
fn websockets_are_recognised() {
    let tls = connection(Scheme::Https, Some("api.test"), None);
    let check = |line: &str, connection: &str, upgrade: &str, expected: bool| {
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let fields = [("host", "api.test"), ("connection", connection), ("upgrade", upgrade), key, key];
        let is_websocket = |count: usize| read(&tls, line, &fields[..count]).unwrap().websocket;
        assert_eq!(is_websocket(4), expected, "{line} {connection} {upgrade}");
        assert!(!is_websocket(3) && !is_websocket(5), "exactly one key is required");
    };
    check("GET /ws", "Upgrade", "websocket", true);
    check("GET /ws", "keep-alive, upgrade", "WebSocket", true);
    check("POST /ws", "Upgrade", "websocket", false);
    check("GET /ws", "keep-alive", "websocket", false);
    check("GET /ws", "Upgrade", "h2c", false);
}

/// The record of a refusal shows the request as it was sent.
#[test]
fn requested_target_is_recorded_before_it_is_checked() {
    let tls = connection(Scheme::Https, Some("api.test"), None);
    let check = |line: &str, hosts: &[&str], expected: (&str, Option<u16>, &str)| {
        let (method, target) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(target);
        for host in hosts {
            request = request.header("host", *host);
        }
        let mut record = Record::new(RequestId(uuid::Uuid::nil()));
        tls.note(&request.body(()).unwrap(), &mut record);
        let text = |text: Option<&Text>| text.map(ToString::to_string).unwrap_or_default();
        assert_eq!(
            (text(record.host.as_ref()).as_str(), record.port),
            (expected.0, expected.1),
            "{line} {hosts:?}"
        );
        assert_eq!((text(record.path()).as_str(), text(record.method()).as_str()), (expected.2, method));
    };
    check("GET /x?q", &["api.test"], ("api.test", Some(443), "/x"));
    check("GET /x", &["evil.test"], ("evil.test", Some(443), "/x"));
    check("GET /x", &["api.test", "evil.test"], ("evil.test", Some(443), "/x"));
    check("GET https://evil.test:1/x", &["api.test"], ("evil.test", Some(1), "/x"));
    check("GET https://api.test/x", &["evil.test"], ("evil.test", Some(443), "/x"));
    check("GET /x", &["me:pass@evil test"], ("evil test", None, "/x"));
    check("GET /x", &["a\u{202e}b"], ("a\\u{202e}b", None, "/x"));
    check("GET /x", &[], ("", None, "/x"));
}

/// Invariant 1 for `Debug` output: a request with a value in it does not print the value, for any placement.
#[test]
fn debug_output_of_a_request_contains_no_value() {
    const VALUE: &str = "sk-hunter22";
    let tls = connection(Scheme::Https, Some("api.test"), None);
    let mut head = read(&tls, &format!("GET /{VALUE}/x?key={VALUE}"), &[("host", "api.test")]).unwrap();
    let mut value = http::HeaderValue::from_static(VALUE);
    value.set_sensitive(true);
    head.headers.insert(header::AUTHORIZATION, value);
    let body = bytes::Bytes::from_static(VALUE.as_bytes());
    let outgoing = crate::http::placement::kind::Outgoing {
        head: head.clone(),
        body: Some(body.clone()),
        now: Timestamp::UNIX_EPOCH,
        signatures: Vec::new(),
    };
    let payload = crate::http::body::Payload::whole(body.clone());
    let sent = crate::http::body::RequestBody::new(crate::http::body::Payload::whole(body), Arc::default());
    let (attempt, _) = crate::http::body::replay::AttemptBody::new(sent);
    let shown = format!("{head:?} {:?} {outgoing:?} {payload:?} {attempt:?}", head.headers);
    assert!(shown.contains("Sensitive") && !shown.contains("hunter22"), "{shown}");
}
