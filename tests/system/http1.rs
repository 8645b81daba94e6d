//! Invalid HTTP/1 as raw bytes, which must be refused at the explicit listener and inside an inspected TLS connection.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use onecli_tests::daemon::Daemon;
use onecli_tests::socket::{Grepped, Socket};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::scene::{API, Scene};

/// The way a request reaches the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// Absolute-form, with a token in each request.
    Proxy,
    /// Origin-form, in the TLS connection of a CONNECT.
    Tls,
}

const DOORS: [Door; 2] = [Door::Proxy, Door::Tls];

/// The scene with the data that raw requests need.
struct Raw {
    scene: Scene,
    tls: Arc<ClientConfig>,
}

impl Raw {
    fn new() -> Raw {
        let scene = Scene::new();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(scene.daemon.ca_file()).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Raw { scene, tls: Arc::new(tls) }
    }

    /// The `host:port` of the upstream for `door`.
    fn authority(&self, door: Door) -> String {
        let upstream = &self.scene.upstream;
        let port = match door {
            Door::Proxy => upstream.http_addr().port(),
            Door::Tls => upstream.https_addr().port(),
        };
        format!("{API}:{port}")
    }

    fn proxy_authorization(&self) -> String {
        let token = BASE64.encode(format!("x:{}", self.scene.outside.token).as_bytes());
        format!("Proxy-Authorization: Basic {token}\r\n")
    }

    /// A template with `{at}` for the text before a path, `{host}` for the single valid `Host` line, and `{auth}` for
    /// the credentials of the proxy.
    fn fill(&self, door: Door, template: &str) -> Vec<u8> {
        let authority = self.authority(door);
        let (at, auth) = match door {
            Door::Proxy => (format!("http://{authority}"), self.proxy_authorization()),
            Door::Tls => (String::new(), String::new()),
        };
        let filled = template.replace("{at}", &at).replace("{auth}", &auth);
        filled.replace("{host}", &format!("Host: {authority}\r\n{auth}")).into_bytes()
    }

    /// Sends the filled `template` and reads until the daemon closes.
    fn exchange(&self, door: Door, template: &str) -> String {
        let bytes = self.fill(door, template);
        let mut stream = connect(&self.scene.daemon);
        match door {
            Door::Proxy => converse(&mut stream, &bytes),
            Door::Tls => {
                let authority = self.authority(door);
                let auth = self.proxy_authorization();
                let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{auth}\r\n");
                stream.write_all(head.as_bytes()).unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    answer.extend(byte);
                }
                assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", answer.escape_ascii());
                let name = ServerName::try_from(API).unwrap();
                let tls = ClientConnection::new(Arc::clone(&self.tls), name).unwrap();
                converse(&mut Grepped::new(StreamOwned::new(tls, stream)), &bytes)
            }
        }
    }

    /// The audit records above `seq`.
    fn records_after(&self, seq: u64) -> Vec<Value> {
        let records = self.scene.daemon.audit();
        records.into_iter().filter(|record| record["seq"].as_u64() > Some(seq)).collect()
    }
}

fn connect(daemon: &Daemon) -> Socket {
    let stream = Socket::connect(daemon.explicit_addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn converse(stream: &mut (impl Read + Write), bytes: &[u8]) -> String {
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap_or_else(|error| {
        panic!(
            "{error} after {}, for {}",
            answer.escape_ascii(),
            bytes[..bytes.len().min(500)].escape_ascii()
        )
    });
    String::from_utf8(answer).unwrap()
}

/// Checks for one response, a refusal that an agent can read. Returns its request id.
fn assert_refusal(what: &str, answer: &str, status: u16, code: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{what}: {answer:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
    let has = |line: &str| head.lines().any(|l| l.eq_ignore_ascii_case(line));
    assert!(
        has(&format!("x-onecli-error: {code}")) && has("content-type: application/json"),
        "{what}: {answer}"
    );
    assert!(has("connection: close"), "{what}: {answer}");
    let error: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{what}: {e} in {answer}"));
    let text = |name: &str| error["error"][name].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("code"), code, "{what}: {answer}");
    assert!(!text("message").is_empty() && !text("hint").is_empty(), "{what}: {answer}");
    assert!(!text("request_id").is_empty(), "{what}: {answer}");
    text("request_id")
}

/// A request that is refused at every entry point: template, status, code.
type Row = (&'static str, String, u16, &'static str);

fn rows() -> Vec<Row> {
    let bad = |what, template: &str| (what, template.to_owned(), 400, "bad_request");
    let get = |what, fields: &str| bad(what, &format!("GET {{at}}/echo HTTP/1.1\r\n{{host}}{fields}\r\n"));
    let post = |what, fields: &str| {
        bad(what, &format!("POST {{at}}/upload HTTP/1.1\r\n{{host}}{fields}\r\n5\r\nhello\r\n0\r\n\r\n"))
    };
    let line = |what, line: &str| bad(what, &format!("{line}\r\n{{host}}\r\n"));
    let version = |what, line: &str| (what, format!("{line}\r\n{{host}}\r\n"), 505, "version_unsupported");
    let long = "x".repeat(1 << 20);
    let too_large = |what, template: String| (what, template, 431, "head_too_large");
    vec![
        line("no version", "GET {at}/echo"),
        line("two spaces before the target", "GET  {at}/echo HTTP/1.1"),
        line("two spaces before the version", "GET {at}/echo  HTTP/1.1"),
        line("a space behind the version", "GET {at}/echo HTTP/1.1 "),
        line("a tab in the request line", "GET\t{at}/echo HTTP/1.1"),
        line("a space in the path", "GET {at}/ec ho HTTP/1.1"),
        line("a method that is no token", "G@T {at}/echo HTTP/1.1"),
        line("a NUL in the method", "G\0T {at}/echo HTTP/1.1"),
        version("HTTP/0.9", "GET {at}/echo HTTP/0.9"),
        version("HTTP/1.2", "GET {at}/echo HTTP/1.2"),
        version("HTTP/2.0", "GET {at}/echo HTTP/2.0"),
        version("HTTP/9.9", "GET {at}/echo HTTP/9.9"),
        line("a lower-case version", "GET {at}/echo http/1.1"),
        line("a fragment", "GET {at}/echo#x HTTP/1.1"),
        line("an empty fragment", "GET {at}/echo# HTTP/1.1"),
        line("quotes in the path", "GET {at}/\"echo\" HTTP/1.1"),
        line("angle brackets in the path", "GET {at}/<echo> HTTP/1.1"),
        line("a backtick in the path", "GET {at}/`echo` HTTP/1.1"),
        line("bytes above ASCII in the path", "GET {at}/\u{e4} HTTP/1.1"),
        line("a NUL in the path", "GET {at}/ec\0ho HTTP/1.1"),
        line("asterisk-form of GET", "GET * HTTP/1.1"),
        line("authority-form of GET", "GET api.test:443 HTTP/1.1"),
        line("absolute-form without a host", "GET http:///echo HTTP/1.1"),
        bad("two empty lines before", "\r\n\r\nGET {at}/echo HTTP/1.1\r\n{host}\r\n"),
        bad("LF behind the request line", "GET {at}/echo HTTP/1.1\n{host}\r\n"),
        bad("no Host", "GET {at}/echo HTTP/1.1\r\n{auth}\r\n"),
        get("two Hosts", "Host: api.test\r\n"),
        get("Host of another beside", "Host: other.test\r\n"),
        get("a space before the colon", "X-One : 1\r\n"),
        get("a tab before the colon", "X-One\t: 1\r\n"),
        get("a name with a space", "X One: 1\r\n"),
        get("a name that is empty", ": 1\r\n"),
        get("a line without a colon", "X-One\r\n"),
        get("a NUL in a name", "X\0One: 1\r\n"),
        get("a name above ASCII", "X-\u{e4}: 1\r\n"),
        get("a folded line", "X-One: 1\r\n two\r\n"),
        get("a folded line, by a tab", "X-One: 1\r\n\ttwo\r\n"),
        get("a bare LF between fields", "X-One: 1\nX-Two: 2\r\n"),
        get("a bare CR between fields", "X-One: 1\rX-Two: 2\r\n"),
        get("a bare LF at the end", "X-One: 1\r\n\n"),
        get("a NUL in a value", "X-One: a\0b\r\n"),
        get("an escape in a value", "X-One: \x1b[2J\r\n"),
        get("DEL in a value", "X-One: \x7f\r\n"),
        post("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        post("two equal lengths", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        post("a list of lengths", "Content-Length: 5, 5\r\n"),
        post("a negative length", "Content-Length: -1\r\n"),
        post("a length with a sign", "Content-Length: +5\r\n"),
        post("a hexadecimal length", "Content-Length: 0x5\r\n"),
        post("an empty length", "Content-Length:\r\n"),
        post("a length past every bound", "Content-Length: 18446744073709551621\r\n"),
        post("length, then chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        post("chunks, then length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        post("an unknown coding", "Transfer-Encoding: zzz\r\n"),
        post("a coding before chunked", "Transfer-Encoding: gzip, chunked\r\n"),
        post("a coding behind chunked", "Transfer-Encoding: chunked, identity\r\n"),
        post("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        post("chunked with a vertical tab", "Transfer-Encoding: \x0bchunked\r\n"),
        post("chunked behind a fold", "Transfer-Encoding:\r\n chunked\r\n"),
        bad(
            "chunks in HTTP/1.0",
            "POST {at}/upload HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        line("a method in lower case", "get {at}/echo HTTP/1.1\r\nConnection: close"),
        ("TRACE", "TRACE {at}/echo HTTP/1.1\r\n{host}\r\n".to_owned(), 405, "method_not_allowed"),
        too_large("a huge field", format!("GET {{at}}/echo HTTP/1.1\r\n{{host}}X-One: {long}\r\n\r\n")),
        too_large("a huge target", format!("GET {{at}}/{long} HTTP/1.1\r\n{{host}}\r\n")),
        too_large(
            "very many fields",
            format!("GET {{at}}/echo HTTP/1.1\r\n{{host}}{}\r\n", "X-One: 1\r\n".repeat(5000)),
        ),
    ]
}

#[test]
fn malformed_requests_are_refused_at_every_entry_point() {
    let mut raw = Raw::new();
    let mut last = 0;
    for door in DOORS {
        for (what, template, status, code) in rows() {
            let what = format!("{what}, {door:?}");
            let answer = raw.exchange(door, &template);
            let id = assert_refusal(&what, &answer, status, code);
            let records = raw.records_after(last);
            let [record] = records.as_slice() else {
                panic!("{what}: expected one record, got {records:#?}")
            };
            last = record["seq"].as_u64().unwrap();
            assert_eq!(record["request_id"], id.as_str(), "{what}: {record:#}");
            assert_eq!(record["code"], code, "{what}: {record:#}");
            assert_eq!(record["verdict"], "deny", "{what}: {record:#}");
            assert_eq!(record["status"], status, "{what}: {record:#}");
            let requests = raw.scene.upstream.requests();
            assert!(requests.is_empty(), "{what}: the upstream received {requests:#?}");
        }
        raw.scene.daemon.assert_healthy();
    }
}

/// The record of a malformed request names the sender and all readable fields.
#[test]
fn malformed_request_is_recorded_with_its_readable_fields() {
    let raw = Raw::new();
    for door in DOORS {
        let _ = raw.exchange(door, "PUT {at}/some/path?query HTTP/1.1\r\n{host}X-One : 1\r\n\r\n");
        let record = raw.scene.daemon.audit().pop().unwrap();
        assert_eq!(record["agent"], "outside", "{door:?}: {record:#}");
        assert_eq!(record["method"], "PUT", "{door:?}: {record:#}");
        assert_eq!(record["host"], API, "{door:?}: {record:#}");
        assert_eq!(record["path"], "/some/path", "{door:?}: {record:#}");
        assert!(!record.to_string().contains("query"), "{door:?}: {record:#}");
    }
}

#[test]
fn malformed_connect_requests_are_refused() {
    let raw = Raw::new();
    let authority = raw.authority(Door::Tls);
    let auth = raw.proxy_authorization();
    let connect = |target: &str, fields: &str| format!("CONNECT {target} HTTP/1.1\r\n{fields}{auth}\r\n");
    let host = format!("Host: {authority}\r\n");
    let cases: Vec<(&str, String, u16, &str)> = vec![
        ("no Host", connect(&authority, ""), 400, "bad_request"),
        ("two Hosts", connect(&authority, &format!("{host}{host}")), 400, "bad_request"),
        ("Host of another", connect(&authority, "Host: other.test:443\r\n"), 421, "misdirected"),
        ("Host with another port", connect(&authority, "Host: api.test:1\r\n"), 421, "misdirected"),
        ("a length", connect(&authority, &format!("{host}Content-Length: 3\r\n")), 400, "bad_request"),
        ("chunks", connect(&authority, &format!("{host}Transfer-Encoding: chunked\r\n")), 400, "bad_request"),
        ("a path", connect(&format!("{authority}/x"), &host), 400, "bad_request"),
        ("a URL", connect(&format!("https://{authority}/"), &host), 400, "bad_request"),
        ("a fragment", connect(&format!("{authority}#x"), &host), 400, "bad_request"),
        ("half an IPv6 address", connect("[::1:443", &host), 400, "bad_request"),
        ("no port", connect(API, &host), 400, "bad_request"),
        ("user information", connect(&format!("me@{authority}"), &host), 400, "bad_request"),
        (
            "a host that is not allowed",
            connect("other.test:443", "Host: other.test:443\r\n"),
            403,
            "egress_denied",
        ),
    ];
    let smuggled = format!("GET http://{}/smuggled HTTP/1.1\r\n{{host}}\r\n", raw.authority(Door::Proxy));
    for (what, head, status, code) in &cases {
        let before = raw.scene.daemon.audit().len();
        // Bytes sent ahead for the tunnel are not treated as a request.
        let answer = raw.exchange(Door::Proxy, &format!("{head}{smuggled}"));
        assert_refusal(what, &answer, *status, code);
        assert_eq!(raw.scene.daemon.audit().len(), before + 1, "{what}");
    }
    assert_eq!(raw.scene.upstream.request_count(), 0);
}

/// Two requests in one: the second is never forwarded, however other servers read the framing.
#[test]
fn smuggled_requests_are_not_forwarded() {
    let raw = Raw::new();
    let heads = [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 0\r\nContent-Length: 44\r\n",
        "Content-Length: 0\r\nContent-Length: 0\r\n",
        "Content-Length: 0\r\nTransfer-Encoding : chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
    ];
    let bodies = [
        "5\nhello\r\n0\r\n\r\n",
        "2\r\nhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
    ];
    let next = "GET {at}/smuggled HTTP/1.1\r\n{host}\r\n";
    for door in DOORS {
        for fields in heads {
            let answer = raw.exchange(
                door,
                &format!("POST {{at}}/upload HTTP/1.1\r\n{{host}}{fields}\r\n0\r\n\r\n{next}"),
            );
            assert_refusal(fields, &answer, 400, "bad_request");
        }
        assert_eq!(raw.scene.upstream.request_count(), 0, "{:#?}", raw.scene.upstream.requests());
        for body in bodies {
            let head = "POST {at}/upload HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n";
            let answer = raw.exchange(door, &format!("{head}{body}{next}"));
            assert!(!answer.contains("HTTP/1.1 2"), "{door:?}, {body:?}: {answer}");
        }
        let seen = raw.scene.upstream.requests();
        assert!(!seen.iter().any(|request| request.path.contains("smuggled")), "{door:?}: {seen:#?}");
        raw.scene.upstream.clear();
    }
}

/// Absolute-form inside TLS is an ordinary request if it names the connection's own scheme and host (RFC 9110 section
/// 7.4).
#[test]
fn absolute_form_inside_tls_must_name_the_connections_host() {
    let raw = Raw::new();
    let authority = raw.authority(Door::Tls);
    let get = |url: &str| format!("GET {url} HTTP/1.1\r\n{{host}}Connection: close\r\n\r\n");
    let answer = raw.exchange(Door::Tls, &get(&format!("https://{authority}/status/204")));
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    raw.scene.upstream.clear();
    for url in [
        format!("http://{authority}/echo"),
        format!("ftp://{authority}/echo"),
        "https://other.test/echo".to_owned(),
        format!("https://{API}:1/echo"),
    ] {
        assert_refusal(&url, &raw.exchange(Door::Tls, &get(&url)), 421, "misdirected");
    }
    assert_eq!(raw.scene.upstream.request_count(), 0);
}

/// Valid requests before a malformed one on the same connection get their responses.
#[test]
fn valid_requests_before_a_malformed_one_are_answered() {
    let raw = Raw::new();
    let good = "GET {at}/status/204 HTTP/1.1\r\n{host}\r\n";
    let chunks = "POST {at}/upload HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nA: b\r\n\r\n";
    let answer = raw.exchange(
        Door::Tls,
        &format!("{good}{chunks}\r\n{good}GET {{at}}/ HTTP/1.1\r\n{{host}}A : b\r\n\r\n"),
    );
    let (head, refusal) = answer.rsplit_once("HTTP/1.1 ").unwrap();
    assert_refusal("the last", &format!("HTTP/1.1 {refusal}"), 400, "bad_request");
    assert_eq!(head.matches("HTTP/1.1 204").count(), 2, "{answer}");
    assert_eq!(head.matches("HTTP/1.1 200").count(), 1, "{answer}");
    assert_eq!(raw.scene.upstream.request_count(), 3);
}
