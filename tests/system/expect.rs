//! `Expect: 100-continue` (RFC 9110 section 10.1.1): which side answers it, and when the body is sent.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onecli_tests::client::{Outcome, curl};
use onecli_tests::daemon::Daemon;
use onecli_tests::h2wire::{Server, block, frame, read_frame};
use onecli_tests::scripted::{Conn, ScriptedUpstream, write_http1};
use parking_lot::Mutex;

use crate::scene::{API, VALUE};
use crate::stage::Stage;

/// The time in seconds that curl waits for a 100. A body that arrives earlier was requested.
const CURL_WAITS: &str = "15";
/// Far less than that, and far more than a request takes.
const SOON: Duration = Duration::from_secs(9);
/// The time in which the upstream must receive no body.
const LISTENS: Duration = Duration::from_millis(300);

const AGENTS: [&str; 2] = ["--http1.1", "--http2"];
const UPSTREAMS: [&str; 2] = ["http/1.1", "h2"];

/// The upstream's reaction to the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Waits for a while, then sends 100 and reads the body.
    Proceed,
    /// Sends a final response.
    Refuse,
    /// Sends nothing, and reads the body.
    Wait,
}

/// The parts of a request that the upstream received.
#[derive(Clone, Debug, Default)]
struct Seen {
    is_expecting: bool,
    /// Whether a body arrived before the upstream sent anything.
    came_unasked: bool,
    /// The time from the head to the first byte of the body.
    waited: Duration,
    body: Vec<u8>,
}

type All = Arc<Mutex<Vec<Seen>>>;

/// The value `100-continue` in HPACK (RFC 7541 section 5.2).
const CONTINUE_IN_HPACK: [u8; 9] = [0x88, 0x08, 0x00, 0xb1, 0x0f, 0x52, 0x4d, 0x55, 0xa5];

fn read_head(conn: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        conn.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).to_ascii_lowercase())
}

/// Returns whether nothing arrives within [`LISTENS`].
fn is_silent(conn: &mut Conn) -> bool {
    let limit = |socket: &TcpStream, limit| socket.set_read_timeout(limit).unwrap();
    limit(&conn.sock, Some(LISTENS));
    let read = conn.read(&mut [0; 1]);
    limit(&conn.sock, None);
    matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn serve_http1(conn: &mut Conn, then: Then, seen: &All) -> io::Result<()> {
    let head = read_head(conn)?;
    let mut this = Seen { is_expecting: head.contains("expect: 100-continue"), ..Seen::default() };
    let began = Instant::now();
    if then == Then::Refuse {
        conn.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")?;
        conn.flush()?;
        // The connection ends without a closure alert.
        let _ = conn.read_to_end(&mut this.body);
        seen.lock().push(this);
        return Ok(());
    }
    if then == Then::Proceed {
        this.came_unasked = !is_silent(conn);
        conn.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        conn.flush()?;
    }
    let length = head.split_once("content-length: ").unwrap().1.lines().next().unwrap().parse().unwrap();
    this.body = vec![0; length];
    conn.read_exact(&mut this.body[..1])?;
    this.waited = began.elapsed();
    conn.read_exact(&mut this.body[1..])?;
    seen.lock().push(this);
    write_http1(conn, "done")
}

fn serve_h2(conn: &mut Conn, then: Then, seen: &All) -> io::Result<()> {
    let mut server = Server::greet(conn)?;
    let (mut this, mut stream, mut began) = (Seen::default(), 0, Instant::now());
    loop {
        if stream != 0 && then == Then::Proceed && this.body.is_empty() && this.waited.is_zero() {
            this.came_unasked = !is_silent(server.0);
            let interim = block(&[(":status".to_owned(), "100".to_owned())]);
            server.send(&frame(1, 4, stream, &interim))?;
            this.waited = Duration::from_nanos(1);
        }
        let Ok(received) = read_frame(&mut server.0) else { break };
        match received.kind {
            1 => {
                (stream, began) = (received.stream, Instant::now());
                let mut values = received.payload.windows(CONTINUE_IN_HPACK.len());
                this.is_expecting = values.any(|value| value == CONTINUE_IN_HPACK);
                if then == Then::Refuse {
                    let refused = block(&[(":status".to_owned(), "413".to_owned())]);
                    server.send(&[frame(1, 4, stream, &refused), frame(0, 1, stream, b"no")].concat())?;
                }
            }
            0 => {
                if this.body.is_empty() {
                    this.waited = began.elapsed();
                }
                this.body.extend(&received.payload);
                let credit = u32::try_from(received.payload.len()).unwrap();
                if credit > 0 {
                    let credit = credit.to_be_bytes();
                    server.send(&[frame(8, 0, 0, &credit), frame(8, 0, stream, &credit)].concat())?;
                }
                if received.flags & 1 != 0 {
                    server.respond(stream, "done")?;
                    break;
                }
            }
            // The stream ends without a body.
            3 => break,
            4 if received.flags & 1 == 0 => server.send(&frame(4, 1, 0, &[]))?,
            _ => {}
        }
    }
    seen.lock().push(this);
    Ok(())
}

/// An upstream with this protocol, and the requests that it receives.
fn stage(alpn: &'static str, then: Then) -> (Stage, All) {
    let seen = All::default();
    let noted = Arc::clone(&seen);
    let stage = Stage::new(alpn, move |_, conn| match alpn {
        "h2" => serve_h2(conn, then, &noted),
        _ => serve_http1(conn, then, &noted),
    });
    (stage, seen)
}

/// A small body, because a debug build needs long to search it for placeholders.
const BODY: usize = 5_000;

/// Sends a body after waiting for 100.
fn upload(stage: &Stage, agent: &str) -> Outcome {
    let body = "x".repeat(BODY);
    let args = ["-X", "POST", "--data-binary", &body, agent];
    let expect = ["-H", "Expect: 100-continue", "--expect100-timeout", CURL_WAITS];
    stage.curl(&[&args[..], &expect[..]].concat()).outcome()
}

fn only(what: &str, seen: &All) -> Seen {
    let seen = onecli_tests::wait_for(Duration::from_secs(10), || seen.lock().first().cloned());
    seen.unwrap_or_else(|| panic!("{what}: no request"))
}

/// Calls `check` for each combination of the agent's and the upstream's protocol.
fn each(then: Then, check: impl Fn(&str, &Stage, &Outcome, &Seen)) {
    for alpn in UPSTREAMS {
        for agent in AGENTS {
            let (stage, seen) = stage(alpn, then);
            let outcome = upload(&stage, agent);
            let what = format!("{agent} to {alpn}");
            check(&what, &stage, &outcome, &only(&what, &seen));
        }
    }
}

#[test]
fn body_waits_for_the_100_of_the_upstream() {
    each(Then::Proceed, |what, _, outcome, seen| {
        let reply = outcome.reply();
        assert_eq!((reply.verdict(), reply.text()), (200, "done".to_owned()), "{what}: {outcome:?}");
        assert!(seen.is_expecting, "{what}: {outcome:?}");
        assert!(!seen.came_unasked, "{what}: the body came before the 100");
        assert_eq!(seen.body.len(), BODY, "{what}");
        assert!(outcome.took < SOON, "{what}: {outcome:?}");
    });
}

#[test]
fn final_status_of_the_upstream_replaces_the_100() {
    each(Then::Refuse, |what, stage, outcome, seen| {
        let reply = outcome.reply();
        assert_eq!((reply.verdict(), reply.text()), (413, "no".to_owned()), "{what}: {outcome:?}");
        assert!(seen.body.is_empty(), "{what}: {} bytes of the body were sent", seen.body.len());
        assert!(outcome.took < SOON, "{what}: {outcome:?}");
        let records = stage.last_request();
        let outcome = records.iter().find(|record| record["event"] == "outcome").unwrap();
        assert_eq!((&outcome["status"], &outcome["bytes_in"]), (&413.into(), &0.into()), "{what}: {outcome}");
    });
}

#[test]
fn silent_upstream_gets_the_body_after_a_second() {
    each(Then::Wait, |what, _, outcome, seen| {
        let reply = outcome.reply();
        assert_eq!((reply.verdict(), reply.text()), (200, "done".to_owned()), "{what}: {outcome:?}");
        assert!(seen.is_expecting, "{what}");
        assert!(seen.waited >= Duration::from_millis(900), "{what}: {:?}", seen.waited);
        assert_eq!(seen.body.len(), BODY, "{what}");
        assert!(outcome.took < SOON, "{what}: {outcome:?}");
    });
}

/// The heads that curl received, including interim ones.
fn heads(dir: &tempfile::TempDir, run: impl FnOnce(&[&str]) -> Outcome) -> (Outcome, String) {
    let file = dir.path().join("heads");
    let outcome = run(&["--dump-header", file.to_str().unwrap()]);
    (outcome, std::fs::read_to_string(&file).unwrap_or_default())
}

/// A request, its options, and the refusal.
type Refused<'a> = (&'a str, &'a [&'a str], (u16, &'a str));

#[test]
fn refused_request_gets_its_final_status_at_once() {
    let stage = Stage::new("http/1.1", |_, conn| serve_http1(conn, Then::Wait, &All::default()));
    stage.deny("/denied");
    let dir = tempfile::tempdir().unwrap();
    let body = "x".repeat(BODY);
    let cases: [Refused<'_>; 3] = [
        ("a path that a rule denies", &[], (403, "rule_denied")),
        ("a method in small letters", &["-X", "post"], (400, "bad_request")),
        ("another expectation", &["-H", "Expect: 200-ok"], (417, "expectation_failed")),
    ];
    for agent in AGENTS {
        for (what, args, (status, code)) in cases {
            let upload = ["--data-binary", &body, agent, "--expect100-timeout", CURL_WAITS];
            let (outcome, heads) = heads(&dir, |dump| {
                let expect: &[&str] = if status == 417 { &[] } else { &["-H", "Expect: 100-continue"] };
                let args = [&upload[..], expect, args, dump].concat();
                let run = curl(&stage.upstream.url("/denied")).args(args);
                stage.daemon.explicit(&stage.agent.token, run).outcome()
            });
            let reply = outcome.reply();
            assert_eq!(
                (reply.verdict(), reply.header("x-onecli-error")),
                (status, Some(code)),
                "{agent}, {what}: {outcome:?}"
            );
            assert!(reply.text().contains(code), "{agent}, {what}: {outcome:?}");
            assert!(!heads.contains(" 100"), "{agent}, {what}: {heads}");
            assert!(outcome.took < SOON, "{agent}, {what}: {outcome:?}");
        }
    }
    assert_eq!(stage.upstream.connection_count(), 0);
}

#[test]
fn body_needed_for_the_decision_is_requested_at_once() {
    let seen = All::default();
    let noted = Arc::clone(&seen);
    let serve = move |_, conn: &mut Conn| serve_http1(conn, Then::Wait, &noted);
    let upstream = ScriptedUpstream::start(API, &["http/1.1"], serve);
    let daemon = Daemon::builder().no_ebpf().scripted(&upstream).start();
    let agent = daemon.add_agent("outside", &["--factors", "token"]);
    daemon.add_secret("api", VALUE, &["--host", &upstream.authority(), "--replace", "json:/key"]);
    let placeholder = daemon.grant(&agent, "api").placeholder;
    let body = format!(r#"{{"key":"{placeholder}","text":"{}"}}"#, "x".repeat(BODY));
    for version in AGENTS {
        seen.lock().clear();
        let run = curl(&upstream.url("/x")).args([
            "--data-binary",
            &body,
            version,
            "-H",
            "Content-Type: application/json",
        ]);
        let run = run.args(["-H", "Expect: 100-continue", "--expect100-timeout", CURL_WAITS]);
        let outcome = daemon.explicit(&agent.token, run).outcome();
        assert_eq!(outcome.reply().verdict(), 200, "{version}: {outcome:?}");
        assert!(outcome.took < SOON, "{version}: {outcome:?}");
        let seen = only(version, &seen);
        assert!(!seen.is_expecting, "{version}: the body arrived");
        assert!(
            seen.body.len() > BODY
                && !seen.body.windows(placeholder.len()).any(|at| at == placeholder.as_bytes())
        );
    }
}
