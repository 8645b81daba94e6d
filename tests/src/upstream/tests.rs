//! Tests the upstream itself with curl, git and a WebSocket client.

use serde_json::Value;

use super::*;
use crate::client::{Outcome, Reply, Run, curl};

const NAME: &str = "api.test";

/// curl with `args` for `path` over TLS, by name.
fn get(upstream: &Upstream, path: &str, args: &[&str]) -> Outcome {
    let port = upstream.https_addr().port();
    curl(&upstream.https_url(NAME, path))
        .trusting(upstream.ca_file())
        .args(["--resolve", &format!("{NAME}:{port}:127.0.0.1")])
        .args(args)
        .outcome()
}

fn reply(upstream: &Upstream, path: &str, args: &[&str]) -> Reply {
    let outcome = get(upstream, path, args);
    assert!(outcome.status.success(), "{path}: {outcome:?}");
    outcome.reply()
}

#[test]
fn echoes_and_records_over_both_versions() {
    let upstream = Upstream::start(&[NAME]);
    for (flag, version, alpn) in [("--http1.1", "1.1", "http/1.1"), ("--http2", "2", "h2")] {
        upstream.clear();
        let reply = reply(&upstream, "/echo?q=1", &[flag, "-H", "X-One: a b", "--data", "body"]);
        assert_eq!((reply.status, reply.version.as_str()), (200, version));
        assert_eq!(reply.header("x-echo-x-one"), Some("a b"));
        let body = reply.json();
        assert_eq!(body["method"], "POST");
        assert_eq!(body["path"], "/echo?q=1");
        assert_eq!(body["body"], "body");
        let seen = upstream.only_request();
        assert_eq!(seen.alpn.as_deref(), Some(alpn));
        assert_eq!(seen.sni.as_deref(), Some(NAME));
        assert_eq!(seen.header("x-one"), Some("a b"));
        assert_eq!(seen.authority, format!("{NAME}:{}", upstream.https_addr().port()));
        assert_eq!((seen.body.as_slice(), seen.body_len), (b"body".as_slice(), 4));
        assert_eq!(seen.count("a b"), 1);
    }
    assert_eq!(upstream.connection_count(), 2);
}

#[test]
fn responses_follow_the_path() {
    let upstream = Upstream::start(&[NAME]);
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let cases: &[(&str, &[&str], u16, &str)] = &[
        ("/", &[], 200, "onecli test upstream\n"),
        ("/status/418", &[], 418, "{\"status\":418}"),
        ("/status/99", &[], 404, ""),
        ("/bytes/5", &[], 200, "xxxxx"),
        ("/chunked/5", &[], 200, "xxxxx"),
        ("/upload", &["--data", "abc"], 200, &format!("{{\"bytes\":3,\"sha256\":\"{abc}\"}}")),
        ("/sse?n=2&ms=1", &[], 200, "id: 0\ndata: event 0\n\nid: 1\ndata: event 1\n\n"),
        ("/slow/1", &[], 200, "slow\n"),
        ("/redirect?status=307&to=/x", &[], 307, "elsewhere\n"),
        ("/echo-as/hex", &["-H", "K: ab"], 200, "k: 6162 6162\n"),
        ("/echo-as/base64", &["-H", "K: ab"], 200, "k: YWI= YWI=\n"),
        ("/echo-as/percent", &["-H", "K: ab"], 200, "k: %61%62 %61%62\n"),
        ("/nothing", &[], 404, "the test upstream has no /nothing\n"),
    ];
    for (path, args, status, body) in cases {
        let reply = reply(&upstream, path, args);
        assert_eq!(reply.status, *status, "{path}");
        assert!(reply.text().contains(body), "{path}: {}", reply.text());
    }
    assert_eq!(reply(&upstream, "/redirect", &[]).header("location"), Some("/echo"));
    assert_eq!(reply(&upstream, "/bytes/5", &[]).header("content-length"), Some("5"));
    assert_eq!(reply(&upstream, "/chunked/5", &["--http1.1"]).header("content-length"), None);
}

#[test]
fn large_bodies_go_both_ways() {
    let upstream = Upstream::start(&[NAME]);
    let big = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(big.path(), vec![b'y'; 3 * BODY_KEPT]).unwrap();
    for flag in ["--http1.1", "--http2"] {
        upstream.clear();
        let data = format!("@{}", big.path().display());
        let sent = reply(&upstream, "/upload", &[flag, "--data-binary", &data]);
        assert_eq!(sent.json()["bytes"], 3 * BODY_KEPT);
        let seen = upstream.only_request();
        assert_eq!((seen.body.len(), seen.body_len), (BODY_KEPT, 3 * BODY_KEPT as u64));
        assert_eq!(reply(&upstream, "/bytes/3000000", &[flag]).body.len(), 3_000_000);
    }
}

#[test]
fn trailers_follow_the_body() {
    let upstream = Upstream::start(&[NAME]);
    for flag in ["--http1.1", "--http2"] {
        let outcome = get(&upstream, "/trailers", &[flag, "--dump-header", "-", "-H", "TE: trailers"]);
        assert!(outcome.out().contains("x-checksum: 42"), "{flag}: {outcome:?}");
    }
}

#[test]
fn alpn_can_be_narrowed_and_unknown_cas_fail() {
    let upstream = Upstream::builder(&[NAME]).alpn(&["http/1.1"]).start();
    assert_eq!(reply(&upstream, "/", &["--http2"]).version, "1.1");
    // A client that trusts only the CAs of the system.
    let url = format!("https://127.0.0.1:{}/", upstream.https_addr().port());
    let outcome = curl(&url).outcome();
    assert_eq!(outcome.code(), Some(60), "{outcome:?}");
    assert_eq!((upstream.failed_handshakes(), upstream.request_count()), (1, 1));
}

#[test]
fn plain_http_and_ipv6_are_served() {
    let upstream = Upstream::start(&[NAME]);
    let url = format!("http://{}/echo", upstream.http_addr());
    assert_eq!(curl(&url).outcome().reply().status, 200);
    assert_eq!(upstream.only_request().sni, None);
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("NOT RUN the IPv6 half: this machine has no ::1");
        return;
    }
    let port = upstream.https_addr().port();
    let reply = curl(&format!("https://[::1]:{port}/echo")).trusting(upstream.ca_file()).outcome().reply();
    assert_eq!(reply.status, 200);
    assert!(upstream.requests()[1].peer.is_ipv6());
}

#[test]
fn git_clone_requires_the_password() {
    let upstream = Upstream::builder(&[NAME]).git(git::Repo::new("user", "right-password")).start();
    let port = upstream.https_addr().port();
    for (password, works) in [("right-password", true), ("wrong", false)] {
        let dir = tempfile::tempdir().unwrap();
        let outcome = Run::new("git")
            .trusting(upstream.ca_file())
            .env("GIT_TERMINAL_PROMPT", "0")
            .args(["-c", &format!("http.curloptResolve={NAME}:{port}:127.0.0.1"), "clone", "--quiet"])
            .arg(format!("https://user:{password}@{NAME}:{port}/git/demo.git"))
            .arg(dir.path().join("clone"))
            .outcome();
        assert_eq!(outcome.status.success(), works, "{outcome:?}");
        if works {
            let file = std::fs::read_to_string(dir.path().join("clone").join(git::FILE)).unwrap();
            assert_eq!(file, git::CONTENT);
        }
    }
}

#[test]
fn websocket_echoes_and_returns_its_handshake() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    let upstream = Upstream::start(&[NAME]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut request = format!("ws://{}/ws", upstream.http_addr()).into_client_request().unwrap();
        request.headers_mut().insert("x-one", "a".parse().unwrap());
        let stream = tokio::net::TcpStream::connect(upstream.http_addr()).await.unwrap();
        let (mut socket, answer) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        assert_eq!(answer.status(), 101);
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
        socket.send(Message::text("headers")).await.unwrap();
        let fields = socket.next().await.unwrap().unwrap().into_text().unwrap();
        let fields: Value = serde_json::from_str(&fields).unwrap();
        assert!(fields.as_array().unwrap().contains(&serde_json::json!(["x-one", "a"])), "{fields}");
    });
    assert_eq!(curl(&format!("http://{}/ws", upstream.http_addr())).outcome().reply().status, 400);
}
