//! Parts of HTTP beside head and content: trailers, announced ranges, and upgrades.

use std::io::{Read, Write};

use onecli_tests::client::curl;
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::h2wire::{self, Server};
use onecli_tests::scripted::{ScriptedUpstream, read_http1};
use onecli_tests::socket::Grepped;
use onecli_tests::upstream::Upstream;

use crate::raw_tls;
use crate::scene::{API, Scene, VALUE, Way, curl_with_key};
use crate::stage::Stage;

/// The announced trailers of the request. Credentials, overrides and framing are not forwarded, announced or not.
const ANNOUNCED: &str = "X-Checksum, X-Api-Key, X-Http-Method-Override, X-Forwarded-Host, Content-Digest";
/// The trailers of the request.
const TRAILERS: [(&str, &str); 6] = [
    ("x-checksum", "42"),
    ("x-api-key", "the-agents-own"),
    ("x-http-method-override", "DELETE"),
    ("x-forwarded-host", "evil.test"),
    ("x-unannounced", "1"),
    ("content-digest", "sha-256=:AAAA:"),
];

/// An upstream for one version, and an agent.
struct One {
    daemon: Daemon,
    upstream: Upstream,
    agent: Agent,
    placeholder: String,
    foreign: String,
}

impl One {
    fn new(alpn: &str) -> One {
        let upstream = Upstream::builder(&[API]).alpn(&[alpn]).start();
        let daemon = Daemon::builder().upstream(&upstream).no_ebpf().start();
        let agent = daemon.add_agent("outside", &["--factors", "token"]);
        let other = daemon.add_agent("other", &["--factors", "token"]);
        let host = format!("{API}:{}", upstream.https_addr().port());
        daemon.add_secret("api", VALUE, &["--host", &host, "--bearer"]);
        let (placeholder, foreign) =
            (daemon.grant(&agent, "api").placeholder, daemon.grant(&other, "api").placeholder);
        One { daemon, upstream, agent, placeholder, foreign }
    }

    /// Sends `POST /upload` with these trailers over this version.
    fn post(&self, alpn: &str, announced: &str, trailers: &[(&str, &str)]) {
        let authority = format!("{API}:{}", self.upstream.https_addr().port());
        let mut tls = raw_tls::tls(&self.daemon, &self.agent.token, &authority, alpn);
        let authorization = format!("Bearer {}", self.placeholder);
        let end = if alpn == "h2" {
            let owned = |fields: &[(&str, &str)]| {
                fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>()
            };
            let head = [
                (":method", "POST"),
                (":scheme", "https"),
                (":authority", &authority),
                (":path", "/upload"),
                ("authorization", &authorization),
                ("trailer", announced),
                ("te", "trailers"),
            ];
            let frames = [
                h2wire::preface(),
                h2wire::frame(1, 4, 1, &h2wire::block(&owned(&head))),
                h2wire::frame(0, 0, 1, b"body"),
                h2wire::frame(1, h2wire::END, 1, &h2wire::block(&owned(trailers))),
            ];
            tls.write_all(&frames.concat()).unwrap();
            br#""bytes":4"#
        } else {
            let lines: String =
                trailers.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
            write!(
                tls,
                "POST /upload HTTP/1.1\r\nHost: {authority}\r\nAuthorization: {authorization}\r\nTrailer: {announced}\r\n\
                 Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n{lines}\r\n"
            )
            .unwrap();
            br#""bytes":4"#
        };
        tls.flush().unwrap();
        let (mut stream, mut read) = (Grepped::new(tls), Vec::new());
        while memchr::memmem::find(&read, end).is_none() {
            let mut piece = [0; 4096];
            let length = stream.read(&mut piece).unwrap();
            assert!(length > 0, "{alpn}: {}", read.escape_ascii());
            read.extend_from_slice(&piece[..length]);
        }
    }
}

#[test]
fn request_trailers_pass_if_announced_and_harmless() {
    for upstream in ["http/1.1", "h2"] {
        let one = One::new(upstream);
        for alpn in ["http/1.1", "h2"] {
            one.upstream.clear();
            one.post(alpn, ANNOUNCED, &TRAILERS);
            let seen = one.upstream.only_request();
            let mut trailers = seen.trailers.clone();
            trailers.sort();
            let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let expected = [own("content-digest", "sha-256=:AAAA:"), own("x-checksum", "42")];
            assert_eq!(trailers, expected, "{alpn} to {upstream}: {seen:#?}");
            assert_eq!(seen.header("trailer"), Some("x-checksum, content-digest"), "{alpn} to {upstream}");
            assert_eq!(
                seen.header("authorization"),
                Some(&*format!("Bearer {VALUE}")),
                "{alpn} to {upstream}"
            );
            // None of it is in the head, where policy would have judged it.
            assert!(seen.header("x-checksum").is_none() && seen.header("x-api-key").is_none(), "{seen:#?}");
        }
        // The placeholder of another agent raises an alert, and is not forwarded.
        one.upstream.clear();
        one.post("h2", "x-checksum, x-note", &[("x-checksum", "1"), ("x-note", &one.foreign)]);
        let alert = one.daemon.audit_until("the alert", |r| r["event"] == "alert");
        assert_eq!(alert["code"], "placeholder_foreign", "{alert}");
        assert_eq!(one.upstream.only_request().trailers, [("x-checksum".to_owned(), "1".to_owned())]);
    }
}

#[test]
fn response_trailers_pass_scrubbed() {
    let base64 = data_encoding::BASE64.encode(VALUE.as_bytes());
    let fields = [
        ("x-sum", "7".to_owned()),
        ("x-leak", VALUE.to_owned()),
        ("x-leak64", base64.clone()),
        ("set-cookie", "a=b".to_owned()),
        ("x-onecli-error", "internal".to_owned()),
    ];
    let announced = fields.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    for upstream in ["http/1.1", "h2"] {
        let (announced, sent) = (announced.clone(), fields.clone());
        let stage = Stage::new(upstream, move |_, conn| {
            let own = |(name, value): &(&str, String)| ((*name).to_owned(), value.clone());
            if upstream == "h2" {
                let mut server = Server::greet(conn)?;
                loop {
                    let stream = server.request(1 << 20)?.stream;
                    let head =
                        [vec![0x88], h2wire::block(&[("trailer".to_owned(), announced.clone())])].concat();
                    let trailers: Vec<_> = sent.iter().map(own).collect();
                    let frames = [
                        h2wire::frame(1, 4, stream, &head),
                        h2wire::frame(0, 0, stream, b"body"),
                        h2wire::frame(1, h2wire::END, stream, &h2wire::block(&trailers)),
                    ];
                    server.send(&frames.concat())?;
                }
            }
            loop {
                let _ = read_http1(conn)?;
                let lines: String =
                    sent.iter().flat_map(|(name, value)| [name, ": ", value.as_str(), "\r\n"]).collect();
                write!(
                    conn,
                    "HTTP/1.1 200 OK\r\nTrailer: {announced}\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n{lines}\r\n"
                )?;
                conn.flush()?;
            }
        });
        for version in ["--http1.1", "--http2"] {
            let what = format!("{version} to {upstream}");
            let reply = stage.send(&[version, "--include", "--header", "TE: trailers"]);
            assert_eq!(reply.verdict(), 200, "{what}: {reply:?}");
            let (_, rest) =
                reply.text().rsplit_once("body").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
            let rest = rest.to_ascii_lowercase();
            assert!(rest.contains("x-sum: 7"), "{what}: {rest}");
            let masked = format!("x-leak: {}", "*".repeat(VALUE.len()));
            assert!(rest.contains(&masked) && rest.contains("x-leak64: *"), "{what}: {rest}");
            assert!(!rest.contains(&base64.to_ascii_lowercase()), "{what}: {rest}");
            assert!(!rest.contains("set-cookie") && !rest.contains("x-onecli-error"), "{what}: {rest}");
        }
    }
}

#[test]
fn unknown_upgrade_is_refused_with_a_reason() {
    let scene = Scene::new();
    for unknown in ["SPDY/3.1", "tcp"] {
        scene.upstream.clear();
        let upgrade = format!("Upgrade: {unknown}");
        let args =
            ["--http1.1", "--request", "POST", "--header", "Connection: Upgrade", "--header", &upgrade];
        let reply = scene.run(Way::Explicit, curl_with_key(&scene.url("/exec"), &args)).reply();
        assert_eq!(reply.verdict(), 501, "{reply:?}");
        let error = &reply.json()["error"];
        assert_eq!(error["code"], "upgrade_unsupported", "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(&unknown.to_ascii_lowercase()), "{message}");
        assert_eq!(scene.upstream.request_count(), 0);
    }
    let record = scene.daemon.audit_until("the refusal", |r| r["code"] == "upgrade_unsupported");
    assert_eq!((&record["agent"], &record["path"]), (&"outside".into(), &"/exec".into()), "{record}");
    // RFC 9110 section 7.8: h2c may be ignored, and its clients continue in HTTP/1.1.
    scene.upstream.clear();
    let h2c = ["--http1.1", "--header", "Connection: Upgrade, HTTP2-Settings", "--header", "Upgrade: h2c"];
    let reply = scene.run(Way::Explicit, curl_with_key(&scene.url("/echo"), &h2c)).reply();
    assert_eq!(reply.verdict(), 200, "{reply:?}");
    let seen = scene.upstream.only_request();
    assert!(seen.header("upgrade").is_none() && seen.header("http2-settings").is_none(), "{seen:#?}");
}

/// A client that sees announced ranges requests parts, and would receive the whole each time.
#[test]
fn ranges_are_announced_only_if_served() {
    let upstream = ScriptedUpstream::start(API, &["http/1.1"], |_, conn| {
        loop {
            let (head, _) = read_http1(conn)?;
            let (status, part) = if head.contains("range: ") {
                ("206 Partial Content\r\nContent-Range: bytes 0-3/8", "part")
            } else {
                ("200 OK", "the part")
            };
            let length = part.len();
            write!(
                conn,
                "HTTP/1.1 {status}\r\nAccept-Ranges: bytes\r\nContent-Length: {length}\r\n\r\n{part}"
            )?;
            conn.flush()?;
        }
    });
    let daemon = Daemon::builder().no_ebpf().scripted(&upstream).start();
    let agent = daemon.add_agent("outside", &["--factors", "token"]);
    let port = upstream.address().port().to_string();
    let allow =
        ["rule", "add", "allow", "--agent", "outside", "--host", API, "--port", &port, "--path", "/file"];
    let _ = daemon.onecli(&allow).ok("rule add");
    let fetch = |args: &[&str]| {
        daemon.explicit(&agent.token, curl(&upstream.url("/file")).args(args)).outcome().reply()
    };
    let reply = fetch(&[]);
    assert_eq!((reply.verdict(), reply.header("accept-ranges")), (200, Some("bytes")), "{reply:?}");
    assert_eq!(fetch(&["--range", "0-3"]).verdict(), 206);
    // With a secret for the host, responses are searched and sent whole.
    daemon.add_secret("api", VALUE, &["--host", &upstream.authority(), "--bearer"]);
    let _ = daemon.grant(&agent, "api");
    for args in [&[][..], &["--head"], &["--range", "0-3"]] {
        let reply = fetch(args);
        assert_eq!(
            (reply.verdict(), reply.header("accept-ranges")),
            (200, Some("none")),
            "{args:?}: {reply:?}"
        );
    }
}
