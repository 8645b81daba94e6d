//! A server that fails in all its ways.

use onecli_tests::tap::{Fault, Tap};

use super::*;

fn answer(status: &str, headers: &str) -> Fault {
    Fault::Answer(format!("HTTP/1.1 {status}\r\n{headers}content-length: 0\r\n\r\n").into_bytes())
}

/// Uses plain HTTP through the tap, which loopback addresses permit.
fn tapped(server: &OpenBao, tap: &Tap, tls: bool) -> Settings {
    let method = Method::Token { file: token_file(server, ROOT) };
    let scheme = if tls { "https" } else { "http" };
    Settings {
        address: Address::parse(&format!("{scheme}://127.0.0.1:{}", tap.address().port())).unwrap(),
        timeout: Duration::from_secs(2),
        ..settings(server, method)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_statuses_map_to_errors() {
    let Some(server) = server("statuses") else { return };
    let tap = Tap::start(([127, 0, 0, 1], server.port()).into());
    for (fault, expected) in [
        (answer("503 Service Unavailable", ""), "sealed or in maintenance"),
        (answer("429 Too Many Requests", "retry-after: 0\r\n"), "rate limit"),
        (answer("472 DR Secondary", ""), "standby that does not serve"),
        (answer("473 Performance Standby", ""), "standby that does not serve"),
        (answer("412 Precondition Failed", ""), "has not caught up"),
        (answer("307 Temporary Redirect", "location: https://evil.example/\r\n"), "not followed"),
        (answer("500 Internal Server Error", ""), "with 500"),
        (Fault::Answer(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_vec()), "cannot be parsed"),
        (Fault::Answer(b"nonsense\r\n\r\n".to_vec()), "cannot be reached"),
        (Fault::Refuse, "cannot be reached"),
        (Fault::Stall, "did not answer within 2s"),
    ] {
        tap.set(fault.clone());
        let client = client_of(tapped(&server, &tap, false), &Arc::default());
        let error = value(&client, "secret/open/api#key").await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expected), "{fault:?}: {text}");
        assert!(!text.contains(ROOT) && !text.contains("evil"), "{text}");
        assert_eq!(error.is_outage(), !text.contains("cannot be parsed"), "{text}");
    }
    // TLS: a connection cut in the middle of the handshake, and a certificate of another issuer.
    tap.set(Fault::CutAfter(600));
    let client = client_of(tapped(&server, &tap, true), &Arc::default());
    assert!(value(&client, "secret/open/api#key").await.unwrap_err().is_outage());
    tap.set(Fault::None);
    let strangers = Settings { ca_file: None, ..tapped(&server, &tap, true) };
    let error =
        value(&client_of(strangers, &Arc::default()), "secret/open/api#key").await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_idle_connection_is_replaced() {
    let Some(server) = server("a connection that died") else { return };
    put(&server, "open/a", "value-of-a");
    put(&server, "open/b", "value-of-b");
    let tap = Tap::start(([127, 0, 0, 1], server.port()).into());
    let client = client_of(tapped(&server, &tap, true), &Arc::default());
    assert_eq!(value(&client, "secret/open/a#key").await.unwrap(), "value-of-a");
    let before = tap.connections();
    tap.cut();
    assert_eq!(value(&client, "secret/open/b#key").await.unwrap(), "value-of-b");
    assert!(tap.connections() > before, "over a new connection");
}

/// Numbers and names that no honest server sends cause an error or are bounded. They cause no panic and no endless
/// loop.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_server_responses_are_bounded() {
    let hostile = Hostile::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ROOT).unwrap();
    let settings = Settings {
        address: Address::parse(&format!("http://127.0.0.1:{}", hostile.port)).unwrap(),
        namespace: None,
        ca_file: None,
        method: Method::Token { file: file.path().to_owned() },
        timeout: Duration::from_secs(5),
        cache_ttl: Duration::from_secs(30),
        stale_for: Duration::from_hours(24),
    };
    let memory = Arc::new(Memory::default());
    let client = client_of(settings, &memory);
    assert_eq!(value(&client, "database/creds/forever#key").await.unwrap(), "value-for-ever");
    let status = client.status().await;
    assert!(status.token_ttl.unwrap() > Duration::from_hours(24 * 365), "{status:?}");
    // Due times are computed with these lifetimes.
    tokio::time::timeout(Duration::from_millis(300), client.maintain()).await.expect_err("it never returns");
    for path in ["long", "control", "negative", "deep"] {
        let error = value(&client, &format!("database/creds/{path}#key")).await.unwrap_err();
        assert!(matches!(error, BackendError::Answer { .. }), "{path}: {error}");
    }
    let kept = memory.leases.lock().clone();
    assert_eq!(kept.iter().map(|lease| lease.id.as_str()).collect::<Vec<_>>(), ["database/creds/forever/1"]);
}

/// A server with arbitrary responses.
struct Hostile {
    port: u16,
}

impl Hostile {
    fn start() -> Hostile {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer_all(stream.unwrap());
            }
        });
        Hostile { port }
    }
}

fn answer_all(mut stream: std::net::TcpStream) {
    use std::io::{Read as _, Write as _};
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let most = u64::MAX;
    let leased = |lease: &str, time: &str| {
        format!(
            r#"{{"lease_id":"{lease}","lease_duration":{time},"renewable":true,"data":{{"key":"value-for-ever"}}}}"#
        )
    };
    let path = head.split(' ').nth(1).unwrap().trim_start_matches("/v1/");
    let body = match path {
        "auth/token/lookup-self" => format!(r#"{{"data":{{"ttl":{most},"renewable":true}}}}"#),
        "database/creds/forever" => leased("database/creds/forever/1", &most.to_string()),
        "database/creds/long" => leased(&"x".repeat(1025), "60"),
        "database/creds/control" => leased("a\\u001b[2J", "60"),
        "database/creds/negative" => leased("a", "-1"),
        "database/creds/deep" => format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)),
        path if path.starts_with("sys/internal/ui/mounts/") => {
            r#"{"data":{"path":"database/","type":"database"}}"#.to_owned()
        }
        _ => r#"{"initialized":true,"version":"0"}"#.to_owned(),
    };
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_values_are_used_during_outage_only_if_configured() {
    let Some(server) = server("stale values") else { return };
    put(&server, "open/api", "the-value");
    let short = |stale_for| {
        let method = Method::Token { file: token_file(&server, ROOT) };
        let settings =
            Settings { cache_ttl: Duration::from_millis(200), stale_for, ..settings(&server, method) };
        client_of(settings, &Arc::default())
    };
    let (strict, lenient) = (short(Duration::ZERO), short(Duration::from_mins(1)));
    for client in [&strict, &lenient] {
        assert_eq!(value(client, "secret/open/api#key").await.unwrap(), "the-value");
    }
    server.seal();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(matches!(value(&strict, "secret/open/api#key").await, Err(BackendError::Sealed)));
    let material = lenient.fetch(agent(1), &"secret/open/api#key".parse().unwrap()).await.unwrap();
    assert!(material.stale);
    assert_eq!(material.value.expose(), b"the-value");
    server.unseal();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    for client in [&strict, &lenient] {
        let material = client.fetch(agent(1), &"secret/open/api#key".parse().unwrap()).await.unwrap();
        assert!(!material.stale);
    }
    // A deleted secret is not an outage.
    server.root("DELETE", "secret/metadata/open/api", &json!({}));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let error = value(&lenient, "secret/open/api#key").await.unwrap_err();
    assert!(matches!(error, BackendError::NoSuchPath { .. }), "{error}");
}
