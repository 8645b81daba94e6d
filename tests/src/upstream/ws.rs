//! WebSocket echo (RFC 6455).

use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::answer::{Answer, Request, text};
use super::issue;
use super::record::Recorded;

/// Answers the handshake and echoes messages. The reply to the message `headers` is the handshake's header fields as
/// JSON. It shows a test whether an injected value can be read back through the socket.
pub(super) fn upgrade(mut request: Request, seen: &Recorded) -> Answer {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|k| derive_accept_key(k.as_bytes()));
    let Some(accept) = key else {
        return text(StatusCode::BAD_REQUEST, "this path requires a WebSocket handshake\n");
    };
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().map(str::to_owned));
    let fields = serde_json::to_string(&seen.headers).expect("headers are text");
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            let reply = match message {
                Message::Text(text) if text.as_str() == "headers" => Message::text(fields.clone()),
                Message::Text(_) | Message::Binary(_) => message,
                // The library answers pings and completes closes.
                _ => continue,
            };
            if socket.send(reply).await.is_err() {
                return;
            }
        }
    });
    let mut answer = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let fields = answer.headers_mut();
    fields.remove(header::CONTENT_TYPE);
    fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    issue::add(query.as_deref(), fields);
    match path.as_str() {
        "/ws/unaccepted" => {}
        "/ws/of-another" => {
            let other = derive_accept_key(b"of another request");
            fields.insert(header::SEC_WEBSOCKET_ACCEPT, other.parse().expect("base64 is a field value"));
        }
        _ => {
            fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept.parse().expect("base64 is a field value"));
        }
    }
    answer
}
