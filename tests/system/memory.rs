//! The amount of daemon memory that one agent can use.

use std::io::Write;
use std::net::TcpListener;
use std::thread::sleep;
use std::time::Duration;

use onecli_tests::daemon::Daemon;
use onecli_tests::h2wire::{END, frame, head_frame, preface};
use onecli_tests::socket::Socket;
use onecli_tests::upstream::Upstream;

use crate::hostile::door::{Door, Doors};
use crate::scene::{API, API_V6, Scene};
use crate::streams::resident;

/// The number of unread responses over HTTP/1.1 and over HTTP/2, and of uploads that the upstream does not read.
const DOWN: usize = 50;
const STREAMS: usize = 33;
const UP: usize = 27;
/// The allowed memory of each, in bytes. docs/security/memory.md has 418 KiB for a connection and 466 KiB for a
/// request, of which 384 KiB are for heads of maximum size. These requests have small heads.
const EACH: usize = 300 << 10;

/// A host that accepts connections and reads nothing.
fn stuck() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            kept.push(stream);
        }
    });
    port
}

/// Sends an endless upload through the proxy, until the proxy accepts no more data.
fn upload(scene: &Scene, port: u16) -> Socket {
    let mut stream = Socket::connect(scene.daemon.explicit_addr()).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let token = &scene.outside.token;
    write!(
        stream,
        "POST http://stuck.test:{port}/ HTTP/1.1\r\nHost: stuck.test:{port}\r\n\
         Proxy-Authorization: Bearer {token}\r\nContent-Length: 100000000\r\n\r\n"
    )
    .unwrap();
    let piece = vec![b'x'; 64 << 10];
    while stream.write_all(&piece).is_ok() {}
    stream
}

#[test]
fn slow_memory_stays_bounded_with_all_limits_reached() {
    let upstream = Upstream::builder(&[API, API_V6]).unrecorded().start();
    let scene = Scene::of(Daemon::builder().host("stuck.test", &["127.0.0.1"]), upstream, &["--bearer"]);
    let doors = Doors::new(&scene.daemon, &scene.upstream, &scene.outside);
    let authority = doors.authority(Door::Tls);
    let key = format!("Bearer {}", scene.outside_grant.placeholder);
    let before = resident(scene.daemon.pid());

    let mut down = Vec::new();
    for _ in 0..DOWN {
        let mut tunnel = doors.tunnel(API, false);
        write!(tunnel, "GET /bytes/100000000 HTTP/1.1\r\nHost: {authority}\r\nAuthorization: {key}\r\n\r\n")
            .unwrap();
        tunnel.flush().unwrap();
        down.push(tunnel);
    }
    let mut streams = doors.tunnel(API, true);
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", authority.as_str()),
        (":path", "/bytes/100000000"),
    ];
    let fields = [&fields[..], &[("authorization", key.as_str())]].concat();
    let fields: Vec<_> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    // The largest windows, for the connection and for each stream: unread data waits in the daemon.
    let windows = frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    let window = frame(8, 0, 0, &0x7000_0000_u32.to_be_bytes());
    streams.write_all(&[preface(), windows, window].concat()).unwrap();
    for number in 0..STREAMS {
        let mut head = head_frame(&fields, END);
        head[5..9].copy_from_slice(&u32::try_from(2 * number + 1).unwrap().to_be_bytes());
        streams.write_all(&head).unwrap();
    }
    streams.flush().unwrap();
    let port = stuck();
    let rule = ["rule", "add", "allow", "--host", "stuck.test", "--port", &port.to_string(), "--path", "/"];
    let _ = scene.daemon.onecli(&rule).ok("rule add");
    let up: Vec<_> = (0..UP).map(|_| upload(&scene, port)).collect();
    sleep(Duration::from_secs(5));

    let open = scene
        .daemon
        .audit()
        .iter()
        .filter(|record| record["event"] == "decision" && record["verdict"] != "deny")
        .count();
    assert!(open >= DOWN + STREAMS + UP, "all of them are in progress: {open}");
    let grown = resident(scene.daemon.pid()).saturating_sub(before);
    println!("{} KiB for each of {}", (grown >> 10) / (DOWN + STREAMS + UP), DOWN + STREAMS + UP);
    assert!(grown < (DOWN + STREAMS + UP) * EACH, "{} MiB", grown >> 20);
    drop((down, streams, up));
}
