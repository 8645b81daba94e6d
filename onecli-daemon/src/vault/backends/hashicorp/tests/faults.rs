//! A server that fails in all its ways.

use onecli_tests::tap::{Fault, Tap};

use super::*;

fn answer(status: &str, headers: &str) -> Fault {
    Fault::Answer(format!("HTTP/1.1 {status}\r\n{headers}content-length: 0\r\n\r\n").into_bytes())
}

/// Speaks plain HTTP through the tap: a loopback address may.
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
async fn what_the_server_says_is_told_as_what_it_means() {
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
        (
            Fault::Answer(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_vec()),
            "cannot be understood",
        ),
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
        assert_eq!(error.is_outage(), !text.contains("cannot be understood"), "{text}");
    }
    // TLS: cut in the middle of the handshake, and a certificate of somebody else's.
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
async fn a_kept_connection_that_died_is_replaced() {
    let Some(server) = server("a connection that died") else { return };
    put(&server, "open/a", "value-of-a");
    put(&server, "open/b", "value-of-b");
    let tap = Tap::start(([127, 0, 0, 1], server.port()).into());
    let first = client_of(tapped(&server, &tap, true), &Arc::default());
    assert_eq!(value(&first, "secret/open/a#key").await.unwrap(), "value-of-a");
    // The tap closes what is idle on both sides when the server seals and unseals: here, by its own end.
    drop(tap);
    let error = value(&first, "secret/open/b#key").await;
    // Either the kept connection still passes, or the dead one is told as an outage: never a panic, never another value.
    if let Ok(value) = error {
        assert_eq!(value, "value-of-b");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_down_old_values_serve_only_if_that_is_configured() {
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
    // Deleted is not down.
    server.root("DELETE", "secret/metadata/open/api", &json!({}));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let error = value(&lenient, "secret/open/api#key").await.unwrap_err();
    assert!(matches!(error, BackendError::NoSuchPath { .. }), "{error}");
}
