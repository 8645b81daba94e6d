//! Requests without a response: which are sent again, how often, and how they are recorded.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use onecli_tests::daemon::Daemon;
use onecli_tests::h2wire::Server;
use onecli_tests::need;
use onecli_tests::netns::Netns;
use onecli_tests::scripted::{Conn, ScriptedUpstream, read_http1, write_http1};
use parking_lot::Mutex;

use crate::scene::API;
use crate::stage::Stage;

/// RFC 9113 section 7.
const REFUSED_STREAM: u32 = 7;
/// An upper bound for the size of a request body.
const ALL: usize = 1 << 20;

/// Bodies that the upstream read, each with the number of its connection.
type Seen = Arc<Mutex<Vec<(usize, Vec<u8>)>>>;

fn note(seen: &Seen, number: usize, body: Vec<u8>) {
    seen.lock().push((number, body));
}

/// An HTTP/2 upstream that answers the first request of a connection, and runs `then` for every further one of the
/// first connection.
fn after_the_first(
    then: impl Fn(&mut Server<&mut Conn>, u32) -> io::Result<()> + Send + Sync + 'static,
) -> (Stage, Seen) {
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let stage = Stage::new("h2", move |number, conn| {
        let mut server = Server::greet(conn)?;
        loop {
            let request = server.request(ALL)?;
            let is_first = request.stream == 1;
            note(&noted, number, request.body);
            if number == 1 && !is_first {
                return then(&mut server, request.stream);
            }
            server.respond(request.stream, "done")?;
        }
    });
    (stage, seen)
}

#[test]
fn request_excluded_by_goaway_is_sent_again() {
    let body = "x".repeat(5000);
    let check = |args: &[&str], length: usize| {
        let (stage, seen) = after_the_first(|server, stream| server.go_away(stream - 2));
        assert_eq!(stage.send(&[]).verdict(), 200);
        let reply = stage.send(args);
        assert_eq!((reply.verdict(), reply.text()), (200, "done".to_owned()), "{args:?}: {reply:?}");
        let seen = seen.lock().clone();
        let lengths: Vec<_> = seen.iter().map(|(number, body)| (*number, body.len())).collect();
        assert_eq!(lengths, [(1, 0), (1, length), (2, length)], "{args:?}");
        // Every attempt has a decision, and the request has one outcome.
        let records = stage.last_request();
        let count = |event: &str| records.iter().filter(|r| r["event"] == event).count();
        assert_eq!((count("decision"), count("outcome")), (2, 1), "{records:#?}");
    };
    check(&[], 0);
    check(&["--request", "DELETE"], 0);
    check(&["--data", &body], body.len());
    check(&["--request", "PATCH", "--data", &body], body.len());
    check(&["--data", &body, "--header", "Transfer-Encoding: chunked"], body.len());
    check(&["--http2", "--data", &body], body.len());
}

#[test]
fn request_included_by_goaway_is_not_sent_again() {
    let (stage, seen) = after_the_first(|server, stream| server.go_away(stream + 2));
    assert_eq!(stage.send(&[]).verdict(), 200);
    let reply = stage.send(&["--data", "x"]);
    assert_eq!(reply.verdict(), 502, "{reply:?}");
    assert_eq!(reply.header("x-onecli-error"), Some("upstream_protocol"), "{reply:?}");
    assert_eq!(seen.lock().len(), 2);
}

#[test]
fn refused_request_is_sent_again_up_to_five_times() {
    let check = |refusals: usize, status: u16, attempts: usize| {
        let stage = Stage::new("h2", move |number, conn| {
            let mut server = Server::greet(conn)?;
            let request = server.request(ALL)?;
            if number <= refusals {
                server.reset(request.stream, REFUSED_STREAM)?;
            } else {
                server.respond(request.stream, "done")?;
            }
            server.request(ALL).map(drop)
        });
        // The limit counts the request once.
        let limit = ["rule", "add", "limit", "--host", API, "--port", "*", "--rate", "1/h"];
        stage.daemon.onecli(&limit).ok("limit");
        let reply = stage.send(&["--data", "body"]);
        assert_eq!(reply.verdict(), status, "{refusals}: {reply:?}");
        assert_eq!(stage.upstream.connection_count(), attempts, "{refusals}");
        let records = stage.last_request();
        let decisions = records.iter().filter(|r| r["event"] == "decision").count();
        assert_eq!(decisions, attempts, "{records:#?}");
    };
    check(0, 200, 1);
    check(3, 200, 4);
    check(5, 200, 6);
    check(6, 502, 6);
}

#[test]
fn partly_sent_long_body_is_not_sent_again() {
    let stage = Stage::new("h2", |_, conn| {
        let mut server = Server::greet(conn)?;
        let request = server.request(40_000)?;
        server.reset(request.stream, REFUSED_STREAM)?;
        server.request(ALL).map(drop)
    });
    let reply = stage.send(&["--data", &"x".repeat(60_000)]);
    assert_eq!(reply.verdict(), 502, "{reply:?}");
    assert_eq!(stage.upstream.connection_count(), 1);
}

#[test]
fn reused_connection_that_ends_silently_is_retried_once_if_idempotent() {
    let check = |method: &str, upstreams: usize, status: u16, attempts: usize| {
        let seen = Seen::default();
        let noted = Arc::clone(&seen);
        // The first connections answer one request, and close when they receive the second.
        let stage = Stage::new("http/1.1", move |number, conn| {
            for request in 1.. {
                let (_, body) = read_http1(conn)?;
                note(&noted, number, body);
                if number <= upstreams && request == 2 {
                    return Ok(());
                }
                write_http1(conn, "done")?;
            }
            Ok(())
        });
        assert_eq!(stage.send(&[]).verdict(), 200);
        let reply = stage.send(&["--request", method]);
        assert_eq!(reply.verdict(), status, "{method}: {reply:?}");
        assert_eq!(seen.lock().len(), 1 + attempts, "{method}");
    };
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        check(method, 1, 200, 2);
    }
    for method in ["POST", "PATCH", "FROB"] {
        check(method, 1, 502, 1);
    }
}

#[test]
fn new_connection_that_ends_silently_is_not_retried() {
    let stage = Stage::new("http/1.1", |_, conn| read_http1(conn).map(drop));
    let reply = stage.send(&[]);
    assert_eq!(reply.verdict(), 502, "{reply:?}");
    assert_eq!(stage.upstream.connection_count(), 1);
}

#[test]
fn response_that_breaks_off_is_not_retried() {
    let stage = Stage::new("http/1.1", |_, conn| {
        let _ = read_http1(conn)?;
        write_http1(conn, "done")?;
        let _ = read_http1(conn)?;
        io::Write::write_all(conn, b"HTTP/1.1 2")
    });
    assert_eq!(stage.send(&[]).verdict(), 200);
    let reply = stage.send(&[]);
    assert_eq!(reply.verdict(), 502, "{reply:?}");
    assert_eq!(stage.upstream.connection_count(), 1);
}

#[test]
fn revoked_grant_ends_the_attempts() {
    let (arrived, wait) = sync_channel(0);
    let (go_on, revoked) = sync_channel(0);
    let revoked = Mutex::new(revoked);
    let stage = Stage::new("h2", move |number, conn| {
        let mut server = Server::greet(conn)?;
        let request = server.request(ALL)?;
        if number == 2 {
            arrived.send(()).map_err(io::Error::other)?;
            let _ = revoked.lock().recv_timeout(Duration::from_secs(20));
        }
        server.reset(request.stream, REFUSED_STREAM)?;
        server.request(ALL).map(drop)
    });
    let client = stage.curl(&["--data", "body"]).start();
    wait.recv_timeout(Duration::from_secs(20)).unwrap();
    stage.daemon.onecli(&["ungrant", "outside", "api"]).ok("ungrant");
    let _ = go_on.send(());
    let reply = client.finish().reply();
    assert_eq!(reply.verdict(), 403, "{reply:?}");
    assert_eq!(stage.upstream.connection_count(), 2);
}

/// The packets of a pooled connection are lost. The daemon notices within 20 seconds, and reaches the host at its other
/// address.
#[test]
fn slow_reused_connection_with_lost_packets_is_retried() {
    if !need::root("lost packets") || !need::program("lost packets", "ip", "iproute2") {
        return;
    }
    let netns = Netns::new();
    let first = netns.join_host("192.0.2.1/30", "192.0.2.2/30");
    let _ = netns.join_host("192.0.2.5/30", "192.0.2.6/30");
    let check = |alpn: &'static str| {
        let upstream = ScriptedUpstream::start_at(Ipv4Addr::UNSPECIFIED, API, &[alpn], move |_, conn| {
            if alpn == "h2" {
                let mut server = Server::greet(conn)?;
                loop {
                    let request = server.request(ALL)?;
                    server.respond(request.stream, "done")?;
                }
            }
            loop {
                let _ = read_http1(conn)?;
                write_http1(conn, "done")?;
            }
        });
        let config = "[egress]\nallow_addresses = [\"192.0.2.0/24\"]";
        let builder = Daemon::builder().no_ebpf().scripted(&upstream).config(config);
        let daemon = builder.host(API, &["192.0.2.2", "192.0.2.6"]).inside(&netns).start();
        let stage = Stage::of(daemon, upstream);
        let send = || netns.wrap(&stage.curl(&["--max-time", "60"])).outcome().reply();
        assert_eq!(send().verdict(), 200);
        assert_eq!(stage.last_request()[0]["address"].as_str().unwrap().split(':').next(), Some("192.0.2.2"));
        // Frames to a link-layer address that no interface has.
        netns.ip(&format!("neighbour replace 192.0.2.2 lladdr 02:00:00:00:00:01 dev {first} nud permanent"));
        let reply = send();
        netns.ip(&format!("neighbour delete 192.0.2.2 dev {first}"));
        assert_eq!((reply.verdict(), reply.text()), (200, "done".to_owned()), "{alpn}: {reply:?}");
    };
    check("http/1.1");
    check("h2");
}
