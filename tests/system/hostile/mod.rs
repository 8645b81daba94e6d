//! Hostile requests as raw bytes, through every entry point (invariants 1, 2, 4, 6, 7 and 10). Each forwarded request
//! is the one that policy judged. It is recorded, and only requests that the secret is for contain the credential.

pub(crate) mod door;
mod rows;

use onecli_tests::canary::Canary;
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::h2wire::{END, head_frame};
use onecli_tests::upstream::{Recorded, Upstream};

use crate::scene::{API, VALUE};
use door::{Door, Doors, Got};
use rows::{
    AUTHORITIES, BAD_FIELDS, BAD_FIELDS_OF_HTTP2, CHUNKS, CONNECTS, FIELDS, FIELDS_OF_HTTP1, LINES, METHODS,
    PSEUDO, REFUSED_FIELDS, SERVER_NAMES, TARGETS, TARGETS_OF_HTTP1, Then,
};

/// The minimum number of requests in the table.
const CASES: usize = 300;

struct Hostile {
    daemon: Daemon,
    upstream: Upstream,
    agent: Agent,
    doors: Doors,
    canary: Canary,
    cases: usize,
    failures: Vec<String>,
}

impl Hostile {
    fn new() -> Self {
        let upstream = Upstream::start(&[API]);
        let daemon = Daemon::builder().upstream(&upstream).no_ebpf().start();
        let agent = daemon.add_agent("outside", &["--factors", "token"]);
        let limits = ["--method", "GET", "--method", "POST", "--path", "/v1/**"];
        for (name, port, extra) in [
            ("api", upstream.https_addr().port(), &["--bearer"][..]),
            ("plain", upstream.http_addr().port(), &["--bearer", "--allow-plaintext"]),
        ] {
            let host = format!("{API}:{port}");
            daemon.add_secret(name, VALUE, &[&["--host", &host], extra, &limits].concat());
            let _ = daemon.grant(&agent, name);
        }
        let doors = Doors::new(&daemon, &upstream, &agent);
        let canary = Canary::new(VALUE);
        Self { daemon, upstream, agent, doors, canary, cases: 0, failures: Vec::new() }
    }

    /// Checks one case: the response is as expected, exactly the expected requests were forwarded, and the credential
    /// is where it belongs.
    fn judge(&mut self, what: &str, got: &Got, then: Then) {
        self.cases += 1;
        let mut wrong = Vec::new();
        match (then, got.code.as_deref(), got.status) {
            (Then::Yes, None, Some(_)) | (Then::No(..), None, None) => {}
            (Then::No(status, code), Some(got), at) if got == code && at.is_none_or(|at| at == status) => {}
            _ => wrong.push(format!("answered {:?} {:?}", got.status, got.code)),
        }
        let hits = self.canary.find("the answer", &got.bytes);
        if !hits.is_empty() {
            wrong.push(format!("the client received the value: {hits:?}"));
        }
        if !wrong.is_empty() {
            self.failures.push(format!("{what}: wanted {then:?}, {}", wrong.join(", ")));
        }
    }

    /// Sends `bytes` through `door` and checks the result.
    fn check(&mut self, what: &str, door: Door, bytes: &[u8], then: Then) {
        let before = self.upstream.request_count();
        let got = self.doors.send(door, bytes);
        let what = format!("{what}, {door:?}");
        self.judge(&what, &got, then);
        let out = self.upstream.request_count() - before;
        if out != usize::from(then == Then::Yes) {
            self.failures.push(format!("{what}: {out} requests were forwarded"));
        }
    }

    /// A template with `{at}`, `{host}`, `{port}`, `{authority}` and `{head}`, the valid fields.
    fn http1(&mut self, what: &str, door: Door, template: &str, then: Then) {
        let bytes = self.doors.fill(door, template);
        self.check(what, door, &bytes, then);
    }

    /// An HTTP/2 request with these fields, in this order.
    fn http2(&mut self, what: &str, fields: &[(&str, &str)], then: Then) {
        let authority = self.doors.authority(Door::Http2);
        let fields: Vec<_> =
            fields.iter().map(|(n, v)| ((*n).to_owned(), v.replace("{authority}", &authority))).collect();
        self.check(what, Door::Http2, &head_frame(&fields, END), then);
    }

    /// Final check: each forwarded request is recorded and clean.
    fn finish(mut self) {
        let seen = self.upstream.requests();
        for request in &seen {
            if let Err(wrong) = is_clean(request) {
                self.failures.push(format!("{wrong}: {request:#?}"));
            }
        }
        let records = self.daemon.audit_log();
        let forwarded = records
            .iter()
            .filter(|r| r["event"] == "decision" && r["verdict"] != "deny")
            .inspect(|r| assert_eq!(r["agent"], self.agent.name.as_str(), "{r}"))
            .count();
        assert!(self.failures.is_empty(), "{} failed:\n{}", self.failures.len(), self.failures.join("\n"));
        assert_eq!(
            seen.len(),
            forwarded,
            "requests at the upstream, and forwarded according to the audit log"
        );
        self.canary.assert_absent_in_dir(self.daemon.home().dir());
        self.daemon.assert_healthy();
        assert!(self.cases >= CASES, "{} cases", self.cases);
        println!("{} cases, {forwarded} forwarded", self.cases);
    }
}

/// The credential occurs once, as the bearer of a request that the secret is for. No text remains that the agent sent
/// in its place, or to turn the request into another one.
fn is_clean(request: &Recorded) -> Result<(), String> {
    let path = request.path.split('?').next().unwrap_or_default();
    if !matches!(request.method.as_str(), "GET" | "POST") || !path.starts_with("/v1/") {
        return Err("another request than the secret is for".to_owned());
    }
    let segments = |path: &str| path.split('/').any(|s| matches!(s, "." | ".."));
    if segments(path) || path.contains("//") || path.contains([';', '\\']) {
        return Err("a path that servers read differently".to_owned());
    }
    if request.header("authorization") != Some(&format!("Bearer {VALUE}")) || request.count(VALUE) != 1 {
        return Err("the credential is not exactly once where it belongs".to_owned());
    }
    if !request.authority.starts_with(&format!("{API}:")) {
        return Err("another authority".to_owned());
    }
    let forbidden =
        ["proxy-authorization", "keep-alive", "proxy-connection", "upgrade", "trailer", "http2-settings"];
    for (name, value) in &request.headers {
        let spelled = name.replace('_', "-");
        let copy = spelled == "authorization" && name != "authorization";
        let overriding = ["override", "original", "rewrite", "forwarded-host", "x-host"]
            .iter()
            .any(|part| spelled.contains(part))
            || spelled == "forwarded";
        if copy
            || overriding
            || forbidden.contains(&spelled.as_str())
            || (name == "te" && value != "trailers")
            || (name == "expect" && value != "100-continue")
            || (name == "connection" && value != "te")
        {
            return Err(format!("the field {name} was forwarded"));
        }
    }
    Ok(())
}

#[test]
fn hostile_requests_are_refused_or_forwarded_clean() {
    let mut hostile = Hostile::new();
    targets(&mut hostile);
    methods(&mut hostile);
    authorities(&mut hostile);
    fields(&mut hostile);
    bodies(&mut hostile);
    lines(&mut hostile);
    http2(&mut hostile);
    connects(&mut hostile);
    hostile.finish();
}

fn request(method: &str, authority: &str, path: &str) -> [(String, String); 4] {
    [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

fn targets(hostile: &mut Hostile) {
    for (target, then) in TARGETS.iter().chain(TARGETS_OF_HTTP1) {
        for door in [Door::Proxy, Door::Tls] {
            // After `http://host:port`, these are other targets.
            let joined = !target.starts_with('/') && door == Door::Proxy;
            if !joined {
                let what = format!("target {target:?}");
                hostile.http1(&what, door, &format!("GET {{at}}{target} HTTP/1.1\r\n{{head}}\r\n"), *then);
            }
        }
    }
    let authority = hostile.doors.authority(Door::Http2);
    for (target, then) in TARGETS {
        let frame = head_frame(&request("GET", &authority, target), END);
        hostile.check(&format!("target {target:?}"), Door::Http2, &frame, *then);
    }
}

fn methods(hostile: &mut Hostile) {
    let authority = hostile.doors.authority(Door::Http2);
    for (method, then) in METHODS {
        let what = format!("method {method}");
        for door in [Door::Proxy, Door::Tls] {
            let template = format!("{method} {{at}}/v1/echo HTTP/1.1\r\n{{head}}\r\n");
            hostile.http1(&what, door, &template, *then);
        }
        let frame = head_frame(&request(method, &authority, "/v1/echo"), END);
        hostile.check(&what, Door::Http2, &frame, *then);
    }
}

fn authorities(hostile: &mut Hostile) {
    for (named, then) in AUTHORITIES {
        let what = format!("authority {named:?}");
        let port = hostile.doors.port(Door::Tls).to_string();
        let template = format!("GET /v1/echo HTTP/1.1\r\nHost: {named}\r\nConnection: close\r\n\r\n");
        let template = template.replace("{host}", API).replace("{port}", &port);
        hostile.check(&what, Door::Tls, template.as_bytes(), *then);
        let named = named.replace("{host}", API).replace("{port}", &port);
        let frame = head_frame(&request("GET", &named, "/v1/echo"), END);
        hostile.check(&what, Door::Http2, &frame, *then);
    }
}

fn fields(hostile: &mut Hostile) {
    for (name, value) in FIELDS.iter().chain(FIELDS_OF_HTTP1) {
        for door in [Door::Proxy, Door::Tls] {
            let template = format!("GET {{at}}/v1/echo HTTP/1.1\r\n{{head}}{name}: {value}\r\n\r\n");
            let control = value.contains('\u{b}');
            let then = if control { Then::No(400, "bad_request") } else { Then::Yes };
            hostile.http1(&format!("field {name}: {value:?}"), door, &template, then);
        }
    }
    for (name, value, then) in REFUSED_FIELDS {
        let what = format!("field {name}: {value:?}");
        for door in [Door::Proxy, Door::Tls] {
            let template = format!("GET {{at}}/v1/a/echo HTTP/1.1\r\n{{head}}{name}: {value}\r\n\r\n");
            hostile.http1(&what, door, &template, *then);
        }
        let authority = hostile.doors.authority(Door::Http2);
        let value = value.replace("{port}", &hostile.doors.port(Door::Http2).to_string());
        let mut all = request("GET", &authority, "/v1/a/echo").to_vec();
        all.push((name.to_lowercase(), value));
        hostile.check(&what, Door::Http2, &head_frame(&all, END), *then);
    }
    for (lines, then) in BAD_FIELDS {
        for door in [Door::Proxy, Door::Tls] {
            let template = format!("POST {{at}}/v1/echo HTTP/1.1\r\n{{head}}{lines}\r\nhello");
            hostile.http1(&format!("fields {lines:?}"), door, &template, *then);
        }
    }
    let authority = hostile.doors.authority(Door::Http2);
    for (name, value) in FIELDS {
        let mut all = request("GET", &authority, "/v1/echo").to_vec();
        all.push((name.to_lowercase(), (*value).to_owned()));
        let what = format!("field {name}: {value:?}");
        hostile.check(&what, Door::Http2, &head_frame(&all, END), Then::Yes);
    }
    for count in [127, 129, 4097] {
        let fields = "X-One: 1\r\n".repeat(count - 2);
        let then = if count > 4096 { Then::No(431, "head_too_large") } else { Then::Yes };
        let template = format!("GET {{at}}/v1/echo HTTP/1.1\r\n{{head}}{fields}\r\n");
        hostile.http1(&format!("{count} fields"), Door::Tls, &template, then);
    }
}

fn bodies(hostile: &mut Hostile) {
    const HEAD: &str = "POST {at}/v1/echo HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for (rest, then) in CHUNKS {
        for door in [Door::Proxy, Door::Tls] {
            let what = format!("chunks {rest:?}");
            // The following bytes must never become a request. The first chunk ensures that the head is forwarded.
            let smuggled = "GET {at}/v1/smuggled HTTP/1.1\r\n{head}\r\n";
            let first = hostile.doors.fill(door, HEAD);
            let second = hostile.doors.fill(door, &format!("{rest}{smuggled}"));
            let before = hostile.upstream.request_count();
            let upstream = &hostile.upstream;
            let got = hostile.doors.send_in_two(door, &first, &second, || upstream.request_count() > before);
            hostile.judge(&what, &got, *then);
            let out = hostile.upstream.request_count() - before;
            if out != 1 {
                hostile.failures.push(format!("{what}, {door:?}: {out} requests were forwarded"));
            }
        }
    }
    let unknown = Then::No(417, "expectation_failed");
    for (expect, then) in [("100-continue", Then::Yes), ("100-Continue", Then::Yes), ("200-maybe", unknown)] {
        let template = format!(
            "POST {{at}}/v1/echo HTTP/1.1\r\n{{head}}Expect: {expect}\r\nContent-Length: 5\r\n\r\nhello"
        );
        hostile.http1(&format!("Expect: {expect}"), Door::Tls, &template, then);
    }
}

fn lines(hostile: &mut Hostile) {
    for (line, then) in LINES {
        for door in [Door::Proxy, Door::Tls] {
            hostile.http1(&format!("line {line:?}"), door, &format!("{line}\r\n{{head}}\r\n"), *then);
        }
    }
    for (what, template, then) in [
        ("nothing but line ends", "\r\n\r\n", Then::No(400, "bad_request")),
        ("LF alone", "GET {at}/v1/echo HTTP/1.1\nHost: api.test\n\n", Then::No(400, "bad_request")),
        ("zeros", "\0\0\0\0\0\0\0\0", Then::No(400, "bad_request")),
    ] {
        // In TLS and at the proxy: both are plain HTTP at this point.
        for door in [Door::Proxy, Door::Tls] {
            hostile.http1(what, door, template, then);
        }
    }
}

fn http2(hostile: &mut Hostile) {
    // h2 chooses between a reset and a response; the daemon must forward nothing.
    for (what, fields) in PSEUDO {
        let then = match *what {
            "CONNECT" | "CONNECT to another" | "extended CONNECT" => Then::No(405, "method_not_allowed"),
            "another scheme" | "an unknown scheme" => Then::No(421, "misdirected"),
            _ => Then::No(400, "bad_request"),
        };
        hostile.http2(what, fields, then);
    }
    for (name, value) in BAD_FIELDS_OF_HTTP2 {
        let good =
            [(":method", "GET"), (":scheme", "https"), (":authority", "{authority}"), (":path", "/v1/echo")];
        let all = [&good[..], &[(name, value)]].concat();
        let then =
            if *value == "evil.test" { Then::No(421, "misdirected") } else { Then::No(400, "bad_request") };
        hostile.http2(&format!("field {name:?}: {value:?}"), &all, then);
    }
}

fn connects(hostile: &mut Hostile) {
    let authority = hostile.doors.authority(Door::Tls);
    let port = hostile.doors.port(Door::Tls).to_string();
    let fill = |text: &str| text.replace("{authority}", &authority).replace("{port}", &port);
    for (target, host, then) in CONNECTS {
        let before = hostile.upstream.request_count();
        let got = hostile.doors.connect(&fill(target), &fill(host));
        let what = format!("CONNECT {target} with Host {host}");
        hostile.judge(&what, &got, *then);
        if hostile.upstream.request_count() != before {
            hostile.failures.push(format!("{what}: a request was forwarded"));
        }
    }
    for (name, good) in SERVER_NAMES {
        let then = if *good { Then::Yes } else { Then::No(421, "misdirected") };
        let bytes = hostile.doors.fill(Door::Tls, "GET {at}/v1/echo HTTP/1.1\r\n{head}\r\n");
        let before = hostile.upstream.request_count();
        let got = hostile.doors.send_as(name, &bytes);
        hostile.judge(&format!("server name {name}"), &got, then);
        let out = hostile.upstream.request_count() - before;
        if out != usize::from(*good) {
            hostile.failures.push(format!("server name {name}: {out} requests were forwarded"));
        }
    }
}
