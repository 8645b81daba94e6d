//! Malformed HTTP/2, as raw frames: refused below us, and on record all the same.

use std::io::{Read, Write};
use std::time::Duration;

use onecli_tests::socket::Socket;

use crate::scene::{API, Scene};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A HEADERS frame that begins and ends stream 1 (RFC 9113 section 6.2).
fn headers(block: &[u8]) -> Vec<u8> {
    let length = u32::try_from(block.len()).unwrap().to_be_bytes();
    [&length[1..], &[1, 5, 0, 0, 0, 1], block].concat()
}

/// A literal field with a new name (RFC 7541 section 6.2.2); `indexed` adds it to the dynamic table.
fn field(name: &str, value: &[u8], indexed: bool) -> Vec<u8> {
    let mut out = vec![if indexed { 0x40 } else { 0 }];
    for text in [name.as_bytes(), value] {
        match text.len() {
            short @ ..127 => out.push(u8::try_from(short).unwrap()),
            // RFC 7541 section 5.1, in two bytes more.
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
    let fields: [(&str, &[u8]); 4] =
        [(":method", method), (":scheme", b"http"), (":path", path), (":authority", API.as_bytes())];
    fields.iter().flat_map(|(name, value)| field(name, value, false)).collect()
}

#[test]
fn what_http2_refuses_by_itself_is_on_record() {
    let scene = Scene::new();
    let port = scene.upstream.http_addr().port();
    // Seventeen or more times 4000 bytes, of which sixteen are one byte each on the wire.
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

fn refused(scene: &Scene, port: u16, what: &str, bytes: &[u8], code: &str) {
    let last = scene.daemon.audit().iter().filter_map(|r| r["seq"].as_u64()).max().unwrap_or_default();
    let mut stream = Socket::connect(scene.daemon.explicit_addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(
        stream,
        "CONNECT {API}:{port} HTTP/1.1\r\nHost: {API}:{port}\r\nProxy-Authorization: Bearer {}\r\n\r\n",
        scene.outside.token
    )
    .unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK", "{what}");
    stream.write_all(bytes).unwrap();
    // While the connection is open still.
    let record = scene.daemon.audit_until(what, |r| r["seq"].as_u64() > Some(last) && r["verdict"] == "deny");
    assert_eq!((&record["code"], &record["agent"]), (&code.into(), &"outside".into()), "{what}: {record}");
}
