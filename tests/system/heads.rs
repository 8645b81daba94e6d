//! Heads of requests and responses: one limit of 64 KiB in both versions of HTTP, and messages that name it.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use onecli_tests::h2wire::{Server, block, head_frames};
use onecli_tests::scripted::{Conn, read_http1, write_http1};
use serde_json::Value;

use crate::stage::Stage;

/// `:status: 200` in HPACK's static table.
const OK: u8 = 0x88;

/// Fields of one size.
#[derive(Debug, Clone, Copy)]
struct Fields {
    count: usize,
    value: usize,
}

impl Fields {
    fn all(self) -> Vec<(String, String)> {
        (0..self.count).map(|at| (format!("x-{at}"), "v".repeat(self.value))).collect()
    }

    fn lines(self) -> String {
        self.all().iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"].map(str::to_owned)).collect()
    }
}

/// Heads that exceed the limits of libraries, but not ours.
const WITHIN: [Fields; 4] = [
    Fields { count: 150, value: 8 },
    Fields { count: 3000, value: 1 },
    Fields { count: 8, value: 7_000 },
    Fields { count: 1, value: 60_000 },
];
const BEYOND: [Fields; 3] = [
    Fields { count: 2, value: 33_000 },
    Fields { count: 10, value: 7_000 },
    Fields { count: 16, value: 7_500 },
];

/// Answers every request, however long its head is.
fn serve(alpn: &str, conn: &mut Conn) -> std::io::Result<()> {
    if alpn == "h2" {
        let mut server = Server::greet(conn)?;
        loop {
            let request = server.request(0)?;
            server.respond(request.stream, "done")?;
        }
    }
    loop {
        let _ = read_http1(conn)?;
        write_http1(conn, "done")?;
    }
}

#[test]
fn request_heads_are_limited_to_64_kib() {
    for alpn in ["http/1.1", "h2"] {
        let stage = Stage::new(alpn, move |_, conn| serve(alpn, conn));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fields");
        let send = |version: &str, fields: Fields| {
            std::fs::write(&file, fields.lines()).unwrap();
            stage.send(&[version, "--header", &format!("@{}", file.display())])
        };
        for version in ["--http1.1", "--http2"] {
            for fields in WITHIN {
                let reply = send(version, fields);
                assert_eq!((reply.verdict(), reply.text()), (200, "done".to_owned()), "{alpn} {fields:?}");
            }
        }
        // curl itself does not send such a head over HTTP/2.
        for fields in BEYOND {
            let reply = send("--http1.1", fields);
            assert_eq!(reply.verdict(), 431, "{fields:?}: {reply:?}");
            let message = reply.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
            assert!(message.contains("64 KiB"), "{message}");
            let record = stage.daemon.audit_until("it", |r| r["code"] == "head_too_large");
            assert_eq!(record["agent"], "outside", "{record}");
        }
    }
}

/// The HTTP/2 frames of a response with these fields and without content.
fn response(stream: u32, fields: Fields) -> Vec<u8> {
    head_frames(stream, &[vec![OK], block(&fields.all())].concat())
}

#[test]
fn response_heads_are_limited_to_64_kib() {
    let all: Vec<Fields> = WITHIN.into_iter().chain(BEYOND).collect();
    for alpn in ["http/1.1", "h2"] {
        let (heads, turn) = (all.clone(), AtomicUsize::new(0));
        let stage = Stage::new(alpn, move |_, conn| {
            let next = || heads[turn.fetch_add(1, Ordering::SeqCst) % heads.len()];
            if alpn == "h2" {
                let mut server = Server::greet(conn)?;
                loop {
                    let request = server.request(0)?;
                    server.send(&response(request.stream, next()))?;
                }
            }
            loop {
                let _ = read_http1(conn)?;
                conn.write_all(
                    format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{}\r\n", next().lines()).as_bytes(),
                )?;
                conn.flush()?;
            }
        });
        for (at, fields) in all.iter().enumerate() {
            let reply = stage.send(&["--http2"]);
            if at < WITHIN.len() {
                assert_eq!(reply.verdict(), 200, "{alpn} {fields:?}: {reply:?}");
                let last = format!("x-{}", fields.count - 1);
                assert_eq!(reply.header(&last).map(str::len), Some(fields.value), "{alpn} {fields:?}");
                continue;
            }
            assert_eq!(reply.verdict(), 502, "{alpn} {fields:?}: {reply:?}");
            let error: Value = reply.json();
            let message = error["error"]["message"].as_str().unwrap_or_default();
            assert!(message.contains("64 KiB") || message.contains("65536"), "{message}");
        }
    }
}
