//! Many concurrent requests, and clients that flood: each is bounded and does not delay the others.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use onecli_tests::client::{Run, curl, patient_curl};
use onecli_tests::h2wire::{END, block, frame, head_frame, preface};
use onecli_tests::socket::Socket;
use onecli_tests::upstream::Upstream;
use onecli_tests::wait_for;

use crate::scene::{API, Scene, Way, curl_with_key, in_shell};

/// Requests of one agent to one host do not wait for each other if the upstream allows few streams on a connection.
#[test]
fn upstream_with_few_streams_gets_more_connections() {
    let upstream = Upstream::builder(&[API]).streams(2).start();
    let scene = Scene::with(upstream, &["--bearer"]);
    let url = scene.url("/slow/1500?[1-12]");
    let run = curl(&url)
        .args(["--http2", "--parallel", "--parallel-max", "12", "--output", "/dev/null"])
        .args(["--write-out", "%{http_code}\n"]);
    let started = Instant::now();
    let outcome = scene.daemon.explicit(&scene.outside.token, run).outcome();
    let took = started.elapsed();
    let served = outcome.out().lines().filter(|line| line.contains("200")).count();
    assert_eq!(served, 12, "{outcome:?}");
    // Two at a time would take nine seconds.
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(scene.upstream.connection_count() >= 6, "{}", scene.upstream.connection_count());
}

/// Unread responses do not delay those of other clients.
#[test]
fn unread_responses_do_not_delay_others() {
    let scene = Scene::new();
    let token = &scene.outside.token;
    let stalled: Vec<_> = (0..6)
        .map(|_| {
            let run = Run::new("sh").arg("-c").arg(r#""$@" | sleep 30"#).arg("sh");
            let fetch = curl(&scene.url("/bytes/50000000")).args(["--http2"]);
            let run = run.arg(fetch.program()).args(fetch.arguments());
            scene.daemon.explicit(token, run).start()
        })
        .collect();
    let began = wait_for(Duration::from_secs(15), || (scene.upstream.request_count() == 6).then_some(()));
    assert!(began.is_some(), "{}", scene.upstream.request_count());
    std::thread::sleep(Duration::from_millis(500));
    let outcome = scene.run(Way::Explicit, curl_with_key(&scene.url("/bytes/5000000"), &["--http2"]));
    assert_eq!(outcome.reply().body.len(), 5_000_000);
    drop(stalled);
}

/// Compressed data is decompressed as the client reads it, not in advance.
#[test]
fn decompression_bomb_uses_bounded_memory() {
    const MIB: usize = 64;
    let scene = Scene::new();
    let url = scene.url(&format!("/bomb/{MIB}"));
    let token = &scene.outside.token;
    for version in ["--http1.1", "--http2"] {
        let before = resident(scene.daemon.pid());
        scene.upstream.clear();
        let shell = |script: &str| {
            let run = in_shell(&patient_curl(&url).arg(version), script);
            scene.daemon.explicit(token, run.timeout(Duration::from_mins(20)))
        };
        let unread: Vec<_> = (0..4).map(|_| shell(r#""$@" | sleep 5"#).start()).collect();
        let began = wait_for(Duration::from_secs(20), || (scene.upstream.request_count() == 4).then_some(()));
        assert!(began.is_some(), "{version}");
        let read = shell(r#""$@" | wc -c"#).outcome().out();
        let grown = resident(scene.daemon.pid()).saturating_sub(before);
        assert!(read.trim().starts_with(&(MIB << 20).to_string()), "{version}: {read}");
        assert!(grown < 48 << 20, "{version}: {} MiB more", grown >> 20);
        drop(unread);
    }
}

/// An HTTP/2 connection in plain text through a CONNECT.
fn http2(scene: &Scene) -> Socket {
    let port = scene.upstream.http_addr().port();
    let mut stream = Socket::connect(scene.daemon.explicit_addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let token = &scene.outside.token;
    write!(
        stream,
        "CONNECT {API}:{port} HTTP/1.1\r\nHost: {API}:{port}\r\nProxy-Authorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", answer.escape_ascii());
    stream
}

/// Floods that are known to have stopped servers end only their own connection.
#[test]
fn http2_floods_end_only_their_connection() {
    let mut scene = Scene::new();
    let authority = format!("{API}:{}", scene.upstream.http_addr().port());
    let fields: Vec<(String, String)> =
        [(":method", "GET"), (":scheme", "http"), (":authority", &authority), (":path", "/slow/5000")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
    let on = |stream: u32, mut frame: Vec<u8>| {
        frame[5..9].copy_from_slice(&stream.to_be_bytes());
        frame
    };
    let rapid_reset: Vec<u8> = (0..20_000)
        .flat_map(|n| {
            let id = 2 * n + 1;
            [on(id, head_frame(&fields, END)), frame(3, 0, id, &8_u32.to_be_bytes())].concat()
        })
        .collect();
    let half = block(&fields);
    let mut continuations = frame(1, 0, 1, &half);
    for _ in 0..20_000 {
        continuations.extend(frame(9, 0, 1, &block(&[("x-one".to_owned(), "y".repeat(100))])));
    }
    let mut empty_continuations = frame(1, 0, 1, &half);
    for _ in 0..200_000 {
        empty_continuations.extend(frame(9, 0, 1, &[]));
    }
    let repeated = |one: Vec<u8>, count: usize| one.repeat(count);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("rapid reset", rapid_reset),
        ("continuations", continuations),
        ("empty continuations", empty_continuations),
        ("settings", repeated(frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]), 100_000)),
        ("pings", repeated(frame(6, 0, 0, &[7; 8]), 100_000)),
        ("empty data", [head_frame(&fields, 4), repeated(frame(0, 0, 1, &[]), 200_000)].concat()),
        ("priorities", repeated(frame(2, 0, 1, &[0, 0, 0, 0, 16]), 200_000)),
        ("window updates", repeated(frame(8, 0, 0, &[0, 0, 0, 1]), 200_000)),
    ];
    let before = resident(scene.daemon.pid());
    for (what, flood) in &cases {
        let mut stream = http2(&scene);
        // The connection may be closed at any time, or may not be read while the responses are unread.
        let _ = stream.write_all(&[&preface(), flood.as_slice()].concat());
        let reply = scene.run(Way::Explicit, curl_with_key(&scene.url("/echo"), &[])).reply();
        assert_eq!(reply.verdict(), 200, "{what}: {reply:?}");
        scene.daemon.assert_healthy();
    }
    let grown = resident(scene.daemon.pid()).saturating_sub(before);
    assert!(grown < 200 << 20, "{} MiB more", grown >> 20);
    let started = scene.upstream.requests().iter().filter(|r| r.path == "/slow/5000").count();
    assert!(started < 2000, "{started} of 20000 reset requests reached the upstream");
}

/// The resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> usize {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
