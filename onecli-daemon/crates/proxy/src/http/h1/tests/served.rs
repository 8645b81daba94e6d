//! Tests of the strict reader with hyper behind it.

use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::http::body::peer_body::PeerBody;
use crate::http::body::reject;
use crate::http::body::{Body, empty, full};
use crate::http::server::serve::{HttpVersion, serve_with};

/// The requests that a service got, as method and path; `malformed` for a request that replaces a malformed one.
type Asked = Arc<Mutex<Vec<String>>>;

async fn service(asked: Asked, mut request: Request<PeerBody>) -> Response<Body> {
    if let Some(rejected) = RejectedRequest::of(&request) {
        asked.lock().push("malformed".to_owned());
        return reject::answer(&rejected.refusal(), None);
    }
    asked.lock().push(format!("{} {}", request.method(), request.uri()));
    let switched = request.headers().contains_key("x-switch");
    if switched {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
        });
    }
    match (request.method() == Method::CONNECT, switched) {
        (true, true) => Response::new(empty()),
        (true, false) => Response::builder().status(StatusCode::FORBIDDEN).body(full("no")).unwrap(),
        (false, true) => Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "x")
            .body(empty())
            .unwrap(),
        (false, false) => match request.into_body().collect().await {
            Ok(body) => Response::new(full(format!("<{}>", body.to_bytes().len()))),
            Err(_) => Response::builder().status(StatusCode::BAD_REQUEST).body(full("broken")).unwrap(),
        },
    }
}

/// Returns all responses to a client that sends `bytes` and stays until the server closes, and the requests that the
/// service got.
async fn exchange(bytes: &[u8]) -> (String, Vec<String>) {
    let (mut client, server) = tokio::io::duplex(256 * 1024);
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let task = tokio::spawn(serve_with(server, HttpVersion::Http1, Default::default(), move |request| {
        service(Arc::clone(&seen), request)
    }));
    client.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), client.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    end.unwrap_or_else(|_| panic!("the connection was not closed: {answer}")).unwrap();
    drop(client);
    task.await.unwrap().unwrap();
    let asked = asked.lock().clone();
    (answer, asked)
}

/// A head that the reader accepts must not exceed hyper's limits, because hyper would not explain the refusal.
#[tokio::test]
async fn largest_head_is_served() {
    let close = format!("GET /1 HTTP/1.1\r\n{HEAD}Connection: close\r\n");
    let field = format!("A: {}\r\n\r\n", "b".repeat(MAX_HEAD - close.len() - "A: \r\n\r\n".len()));
    check(&format!("{close}{field}"), &[200], &["GET /1"]).await;
    let fields = "A: b\r\n".repeat(MAX_FIELDS - 2);
    check(&format!("{close}{fields}\r\n"), &[200], &["GET /1"]).await;
    let chunks = format!("0;{}\r\n", "x".repeat(8192));
    let trailers = format!("{}A: {}\r\n\r\n", "A: b\r\n".repeat(127), "b".repeat(8192 - 127 * 6 - 7));
    let close = format!("{close}Transfer-Encoding: chunked\r\n\r\n");
    check(&format!("{close}{chunks}{trailers}"), &[200], &["GET /1"]).await;
}

/// A client that closes its side in the middle of a head may still read.
#[tokio::test]
async fn truncated_head_is_answered() {
    let (mut client, server) = tokio::io::duplex(1024);
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let answer = move |request| service(Arc::clone(&seen), request);
    let task = tokio::spawn(serve_with(server, HttpVersion::Http1, Default::default(), answer));
    client.write_all(b"GET / HTTP/1.1\r\nHost: a").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    task.await.unwrap().unwrap();
    assert_eq!(*asked.lock(), ["malformed"]);
}

/// Returns the response to a client that sends `request` and closes this direction. The service takes `time` to
/// answer.
async fn half_close(request: &str, time: Duration) -> String {
    let (mut client, server) = tokio::io::duplex(1024);
    let answer = move |_: Request<PeerBody>| async move {
        tokio::time::sleep(time).await;
        Response::new(full("late"))
    };
    let task = tokio::spawn(serve_with(server, HttpVersion::Http1, Default::default(), answer));
    client.write_all(request.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let mut read = String::new();
    client.read_to_string(&mut read).await.unwrap();
    // The result may be the error of a connection that was dropped.
    let _ = task.await.unwrap();
    read
}

#[tokio::test]
async fn half_closed_client_is_answered() {
    for request in [
        format!("GET / HTTP/1.1\r\n{HEAD}\r\n"),
        format!("GET / HTTP/1.0\r\n{HEAD}\r\n"),
        // Two requests, as a pipelining client sends them.
        format!("GET /1 HTTP/1.1\r\n{HEAD}\r\nGET /2 HTTP/1.1\r\n{HEAD}\r\n"),
        format!("POST / HTTP/1.1\r\n{HEAD}Content-Length: 3\r\n\r\nabc"),
        format!("GET / HTTP/1.1\r\n{HEAD}Connection: upgrade\r\nUpgrade: h2c\r\n\r\n"),
    ] {
        let count = request.matches(" HTTP/1.").count();
        let answer = half_close(&request, Duration::from_millis(200)).await;
        assert_eq!(answer.matches("late").count(), count, "{request:?}: {answer}");
    }
}

/// Checks that `bytes` get these statuses in this order, and that the service got the `expected` requests.
async fn check(bytes: &str, statuses: &[u16], expected: &[&str]) -> String {
    let (answer, asked) = exchange(bytes.as_bytes()).await;
    let seen: Vec<u16> = answer
        .match_indices("HTTP/1.1 ")
        .filter_map(|(at, begin)| answer[at + begin.len()..].get(..3)?.parse().ok())
        .collect();
    assert_eq!(seen, statuses, "{bytes:?}: {answer}");
    assert_eq!(asked, expected, "{bytes:?}: {answer}");
    answer
}

const HEAD: &str = "Host: a.test\r\n";

#[tokio::test]
async fn malformed_request_is_answered_in_order() {
    let good = format!("POST /1 HTTP/1.1\r\n{HEAD}Content-Length: 3\r\n\r\nabc");
    let bad = format!("GET /2 HTTP/1.1\r\n{HEAD}A : b\r\n\r\n");
    let answer = check(&format!("{good}{bad}{good}"), &[200, 400], &["POST /1", "malformed"]).await;
    assert!(answer.contains("<3>"), "{answer}");
    assert_eq!(answer.matches("connection: close\r\n").count(), 1, "{answer}");
    assert!(answer.contains("x-onecli-error: bad_request\r\n") && answer.ends_with("}\n"), "{answer}");
}

#[tokio::test]
async fn bytes_after_a_malformed_request_are_dropped() {
    let smuggled = format!("0\r\n\r\nGET /smuggled HTTP/1.1\r\n{HEAD}\r\n");
    let both = format!("POST / HTTP/1.1\r\n{HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n");
    check(&format!("{both}{smuggled}"), &[400], &["malformed"]).await;
    let twice = format!("POST / HTTP/1.1\r\n{HEAD}Content-Length: 5\r\nContent-Length: 5\r\n\r\n");
    check(&format!("{twice}{smuggled}"), &[400], &["malformed"]).await;
}

#[tokio::test]
async fn response_to_malformed_head_request_has_no_content() {
    let answer = check(&format!("HEAD / HTTP/1.1\r\n{HEAD}{HEAD}\r\n"), &[400], &["malformed"]).await;
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn body_with_broken_framing_is_an_error() {
    let head = format!("POST /1 HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    for body in ["3\r\nabc\r\n3\nabc\r\n0\r\n\r\n", "1\r\nab\r\n0\r\n\r\n", "0\r\nHost: b\r\n\r\n"] {
        let behind = format!("GET /smuggled HTTP/1.1\r\n{HEAD}\r\n");
        let answer = check(&format!("{head}{body}{behind}"), &[400], &["POST /1"]).await;
        assert!(answer.ends_with("broken"), "{answer}");
    }
}

#[tokio::test]
async fn tunnel_begins_after_its_response() {
    let connect = format!("CONNECT a.test:443 HTTP/1.1\r\n{HEAD}X-Switch: 1\r\n\r\n");
    let answer = check(&format!("{connect}\0raw"), &[200], &["CONNECT a.test:443"]).await;
    assert!(answer.ends_with("\0raw"), "{answer}");
    let upgrade = format!("GET /u HTTP/1.1\r\n{HEAD}Upgrade: x\r\nX-Switch: 1\r\n\r\n");
    let answer = check(&format!("{upgrade}\0raw"), &[101], &["GET /u"]).await;
    assert!(answer.ends_with("\0raw"), "{answer}");
}

/// Bytes that a client sent ahead for a tunnel are not read as requests.
#[tokio::test]
async fn refused_connect_ends_the_connection() {
    let connect = format!("CONNECT a.test:443 HTTP/1.1\r\n{HEAD}\r\n");
    let behind = format!("GET /smuggled HTTP/1.1\r\n{HEAD}\r\n");
    let answer = check(&format!("{connect}{behind}"), &[403], &["CONNECT a.test:443"]).await;
    assert!(answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn requests_after_a_refused_upgrade_are_checked() {
    let upgrade = format!("POST /u HTTP/1.1\r\n{HEAD}Upgrade: h2c\r\nContent-Length: 3\r\n\r\nabc");
    let next = format!("GET /next HTTP/1.1\r\n{HEAD}\r\n");
    let bad = format!("GET /bad HTTP/1.1\r\n{HEAD}A\0: b\r\n\r\n");
    check(
        &format!("{upgrade}{next}{upgrade}{bad}"),
        &[200, 200, 200, 400],
        &["POST /u", "GET /next", "POST /u", "malformed"],
    )
    .await;
}

#[tokio::test]
async fn slow_head_is_refused() {
    let (mut client, server) = tokio::io::duplex(1024);
    let (mut reader, handle) = StrictReader::new(server, Duration::from_millis(50));
    client.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    let mut bytes = vec![0; IN_PLACE.len()];
    reader.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, IN_PLACE);
    let mut request = Request::new(());
    let _ = handle.arrive(&mut request);
    assert_eq!(RejectedRequest::of(&request).map(|rejected| rejected.violation), Some(Violation::Slow));
}

#[tokio::test]
async fn displaced_connection_is_answered_once() {
    for sent in ["", "GET / HTTP/1.1\r\nHost:"] {
        let (mut client, server) = tokio::io::duplex(1024);
        let displaced = CancellationToken::new();
        let (reader, handle) = StrictReader::new(server, Duration::from_mins(1));
        let mut reader = reader.until(displaced.clone());
        client.write_all(sent.as_bytes()).await.unwrap();
        let mut bytes = vec![0; IN_PLACE.len()];
        let waiting = tokio::time::timeout(Duration::from_millis(50), reader.read_exact(&mut bytes)).await;
        assert!(waiting.is_err());
        displaced.cancel();
        reader.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, IN_PLACE);
        let mut request = Request::new(());
        let _ = handle.arrive(&mut request);
        assert_eq!(RejectedRequest::of(&request).map(|it| it.violation), Some(Violation::Displaced));
    }
}

/// Time between requests does not count for a head, not even after an empty line.
#[tokio::test]
async fn idle_connection_is_not_refused_as_slow() {
    let (mut client, server) = tokio::io::duplex(1024);
    let (mut reader, _handle) = StrictReader::new(server, Duration::from_millis(20));
    client.write_all(b"\r\n").await.unwrap();
    let mut bytes = [0; 64];
    let read = tokio::time::timeout(Duration::from_millis(200), reader.read(&mut bytes)).await;
    assert!(read.is_err(), "{read:?}");
}
