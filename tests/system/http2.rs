//! Malformed HTTP/2 as raw frames, which the HTTP/2 library refuses. The refusals are still recorded.

use std::io::{Read, Write};
use std::time::Duration;

use onecli_tests::h2wire::{frame, head_frames, read_frame};
use onecli_tests::socket::Socket;

use crate::scene::{API, Scene};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A HEADERS frame that begins and ends stream 1 (RFC 9113 section 6.2).
fn headers(block: &[u8]) -> Vec<u8> {
    let length = u32::try_from(block.len()).unwrap().to_be_bytes();
    [&length[1..], &[1, 5, 0, 0, 0, 1], block].concat()
}

/// A literal field with a new name (RFC 7541 section 6.2.2). `indexed` adds it to the dynamic table.
fn field(name: &str, value: &[u8], indexed: bool) -> Vec<u8> {
    let mut out = vec![if indexed { 0x40 } else { 0 }];
    for text in [name.as_bytes(), value] {
        match text.len() {
            short @ ..127 => out.push(u8::try_from(short).unwrap()),
            // RFC 7541 section 5.1, in two more bytes.
            long => {
                let rest = u16::try_from(long - 127).unwrap();
                out.extend([127, u8::try_from(rest & 127).unwrap() | 128, u8::try_from(rest >> 7).unwrap()]);
            }
        }
        out.extend(text);
    }
    out
}

fn block(method: &[u8], path: &[u8]) -> Vec<u8> {
    block_to(API, method, path)
}

fn block_to(authority: &str, method: &[u8], path: &[u8]) -> Vec<u8> {
    let fields: [(&str, &[u8]); 4] =
        [(":method", method), (":scheme", b"http"), (":path", path), (":authority", authority.as_bytes())];
    fields.iter().flat_map(|(name, value)| field(name, value, false)).collect()
}

#[test]
fn requests_refused_by_the_http2_library_are_recorded() {
    let scene = Scene::new();
    let port = scene.upstream.http_addr().port();
    // Seventeen or more times 4000 bytes, of which sixteen take one byte each on the wire.
    let mut long = block(b"GET", b"/echo");
    long.extend(field("x-long", &[b'x'; 3900], true));
    long.extend([0xbe; 20]);
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("a path with a space", headers(&block(b"GET", b"/a b")), "bad_request"),
        ("a NUL in the method", headers(&block(b"GE\0T", b"/")), "bad_request"),
        (
            "a field name in capitals",
            headers(&[block(b"GET", b"/"), field("X-A", b"1", false)].concat()),
            "bad_request",
        ),
        ("a header list past its bound", headers(&long), "head_too_large"),
        ("a block that is no HPACK", headers(&[0xff; 8]), "bad_request"),
        ("a frame past its bound", vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1], "bad_request"),
    ];
    for (what, frames, code) in cases {
        refused(&scene, port, what, &[PREFACE, frames].concat(), code);
    }
    refused(&scene, port, "garbage in the preface", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "bad_request");
    assert_eq!(scene.upstream.request_count(), 0);
}

/// Fields of `size` bytes in total, on `stream`, in as many frames as needed (RFC 9113 section 6.10).
fn large_head(authority: &str, stream: u32, size: usize) -> Vec<u8> {
    let mut block = block_to(authority, b"GET", b"/echo");
    (0..size / 4000).for_each(|_| block.extend(field("x-long", &[b'x'; 3990], false)));
    head_frames(stream, &block)
}

#[test]
fn oversized_head_is_answered_and_its_connection_stays_open() {
    let scene = Scene::new();
    let port = scene.upstream.http_addr().port();
    let (authority, mut stream) = (format!("{API}:{port}"), tunnel(&scene, port));
    stream.write_all(PREFACE).unwrap();
    for (stream_id, size) in [(1, 72_000), (3, 120_000), (5, 200_000)] {
        stream.write_all(&large_head(&authority, stream_id, size)).unwrap();
        let answer = loop {
            let received = read_frame(&mut stream).unwrap();
            if received.kind == 0 && received.stream == stream_id {
                break String::from_utf8(received.payload).unwrap();
            }
        };
        assert!(answer.contains("head_too_large") && answer.contains("the limit is 65536"), "{answer}");
    }
    stream.write_all(&large_head(&authority, 7, 4000)).unwrap();
    let data = std::iter::repeat_with(|| read_frame(&mut stream).unwrap())
        .find(|frame| frame.stream == 7 && frame.kind == 0)
        .unwrap();
    let text = String::from_utf8_lossy(&data.payload).into_owned();
    assert!(text.contains("egress_denied"), "the next request is judged: {text}");
}

/// A tunnel through the explicit proxy.
fn tunnel(scene: &Scene, port: u16) -> Socket {
    let mut stream = Socket::connect(scene.daemon.explicit_addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(
        stream,
        "CONNECT {API}:{port} HTTP/1.1\r\nHost: {API}:{port}\r\nProxy-Authorization: Bearer {}\r\n\r\n",
        scene.outside.token
    )
    .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    stream
}

fn refused(scene: &Scene, port: u16, what: &str, bytes: &[u8], code: &str) {
    let last = scene.daemon.audit().iter().filter_map(|r| r["seq"].as_u64()).max().unwrap_or_default();
    let mut stream = tunnel(scene, port);
    stream.write_all(bytes).unwrap();
    // While the connection is still open.
    let record = scene.daemon.audit_until(what, |r| r["seq"].as_u64() > Some(last) && r["verdict"] == "deny");
    assert_eq!((&record["code"], &record["agent"]), (&code.into(), &"outside".into()), "{what}: {record}");
}

/// The bytes of a refused body that the daemon may accept: those it reads and discards, and those that fit its windows.
const TAKEN_AT_MOST: usize = (4 << 20) + (256 << 10);
const DATA: usize = 16_384;

/// A client that sends as much of a body as allowed, on a stream that is refused.
struct Upload {
    conn: Socket,
    /// The number of bytes that may be sent: on the connection, and on the stream.
    credit: [usize; 2],
    sent: usize,
}

impl Upload {
    /// Sends until the stream is reset, and returns the code of the reset.
    fn run(&mut self, stream: u32) -> u32 {
        loop {
            if self.credit.iter().all(|credit| *credit >= DATA) {
                self.conn.write_all(&frame(0, 0, stream, &[b'x'; DATA])).unwrap();
                self.credit.iter_mut().for_each(|credit| *credit -= DATA);
                self.sent += DATA;
                continue;
            }
            let received = read_frame(&mut self.conn).unwrap();
            let word = |at: usize| u32::from_be_bytes(received.payload[at..at + 4].try_into().unwrap());
            match received.kind {
                3 => return word(0),
                8 => {
                    let credit = usize::try_from(word(0)).unwrap();
                    self.credit[usize::from(received.stream != 0)] += credit;
                }
                _ => {}
            }
        }
    }
}

#[test]
fn remainder_of_a_refused_body_is_read_up_to_a_limit() {
    let scene = Scene::new();
    let port = scene.upstream.http_addr().port();
    let authority = format!("{API}:{port}");
    let mut upload = Upload { conn: tunnel(&scene, port), credit: [65_535; 2], sent: 0 };
    upload.conn.write_all(PREFACE).unwrap();
    for stream in [1, 3] {
        upload.credit[1] = 65_535;
        upload.sent = 0;
        upload.conn.write_all(&frame(1, 4, stream, &block_to(&authority, b"POST", b"/echo"))).unwrap();
        assert_eq!(upload.run(stream), 0, "NO_ERROR: the response was complete (RFC 9113 section 8.1)");
        let sent = upload.sent;
        assert!(sent > 1 << 20 && sent <= TAKEN_AT_MOST, "{sent} bytes were accepted on stream {stream}");
    }
    upload.conn.write_all(&frame(1, 5, 5, &block_to(&authority, b"GET", b"/echo"))).unwrap();
    let data = std::iter::repeat_with(|| read_frame(&mut upload.conn).unwrap())
        .find(|frame| frame.stream == 5 && frame.kind == 0)
        .unwrap();
    assert!(String::from_utf8_lossy(&data.payload).contains("egress_denied"), "{data:?}");
}
