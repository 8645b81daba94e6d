//! HTTP as a protocol of the data plane: detection, and the entry to its two kinds of connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use onecli_model::Refusal;
use onecli_net::PrefixedStream;
use onecli_policy::Decision;
use tokio::io::AsyncReadExt;

use super::proxy_requests::serve_proxy;
use super::serve::{HttpVersion, finish, serve_exchanges, serve_with};
use crate::accept::protocol::{Detection, FirstBytes, Protocol, SILENCE, Stream};
use crate::http::body::Body;
use crate::http::body::peer_body::PeerBody;
use crate::http::body::reject;
use crate::http::context::connection::HttpConnection;
use crate::http::context::handles::Http;
use crate::http::request::head::Head;
use crate::session::destination::Destination;
use crate::session::{Security, Session};

/// The first bytes of SSH (RFC 4253 section 4.2), which look like an HTTP method.
const SSH: &[u8] = b"SSH-";
/// The first bytes of HTTP/2's preface (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI ";
/// The size of the buffer for the first bytes.
const AHEAD: usize = 2048;

impl Protocol for Http {
    fn detect(&self, session: &Session, first: FirstBytes<'_>) -> Detection {
        match (&session.destination, session.security) {
            (_, Security::Unread) => Detection::NotMine,
            (Destination::Proxy, _) | (_, Security::Terminated { .. }) => Detection::Mine,
            (_, Security::Plain) => detect(first),
        }
    }

    fn serve(self: Arc<Self>, session: Session, io: Stream) -> BoxFuture<'static, ()> {
        async move {
            if matches!(session.destination, Destination::Proxy) {
                return serve_proxy(&self, session, io).await;
            }
            let (version, io) = version_of(&session, io).await;
            serve_exchanges(&self, session, io, version).await;
        }
        .boxed()
    }

    fn refuse(self: Arc<Self>, session: Session, refusal: Refusal, io: Stream) -> BoxFuture<'static, ()> {
        refuse_requests(session, refusal, io).boxed()
    }
}

/// Returns whether the bytes begin with a method token, or may do so.
fn detect(first: FirstBytes<'_>) -> Detection {
    let more = |at_most| Detection::NeedMore { at_most, within: SILENCE };
    let is_begun = |word: &[u8]| word.starts_with(first.bytes) && first.bytes.len() < word.len();
    match first.bytes {
        _ if !first.is_all && (is_begun(SSH) || is_begun(PREFACE)) => more(SSH.len()),
        bytes if bytes.starts_with(SSH) || SSH.starts_with(bytes) => Detection::NotMine,
        [letter, ..] if letter.is_ascii_alphabetic() => Detection::Mine,
        _ => Detection::NotMine,
    }
}

/// Returns the version that the client speaks, and the stream from its first byte.
async fn version_of(session: &Session, mut io: Stream) -> (HttpVersion, Stream) {
    if let Security::Terminated { is_h2 } = session.security {
        return (if is_h2 { HttpVersion::Http2 } else { HttpVersion::Http1 }, io);
    }
    // Detection has read the preface as a whole, and this read returns what it has read.
    let mut ahead = BytesMut::with_capacity(AHEAD);
    let _ = io.read_buf(&mut ahead).await;
    let version = if ahead.starts_with(PREFACE) { HttpVersion::Http2 } else { HttpVersion::Http1 };
    (version, Box::new(PrefixedStream::new(ahead.freeze(), io)))
}

/// Answers each request on a refused connection with the refusal.
async fn refuse_requests(session: Session, refusal: Refusal, io: Stream) {
    let (version, io) = version_of(&session, io).await;
    let is_asked = AtomicBool::new(false);
    let connection = Arc::new(HttpConnection::new(session, 1));
    let refusal = Arc::new(refusal);
    let served = serve_with(io, version, Default::default(), |request| {
        is_asked.store(true, Ordering::Relaxed);
        let (connection, refusal) = (Arc::clone(&connection), Arc::clone(&refusal));
        async move {
            let version = request.version();
            let mut response = refuse_request(&connection, &refusal, request).await;
            finish(&connection.session, version, &mut response);
            response
        }
    })
    .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a refused client's connection ended");
    }
    if !is_asked.into_inner() {
        connection.session.refuse(&*refusal, |_| {}).await;
    }
}

/// Refuses one request, but still reads its head. A placeholder of another agent, or one on its way to another host,
/// is a more severe refusal than a host that is not allowed.
async fn refuse_request(
    connection: &HttpConnection,
    refusal: &Refusal,
    request: Request<PeerBody>,
) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let alert = match (connection.session.identify(), Head::read(&parts, &connection.expected)) {
        (Ok(identity), Ok(head)) => {
            match connection.session.policy.snapshot().decide(&identity, &head.facts()).decision {
                Decision::Deny(worse) if worse.code.is_alert() => Some(worse),
                _ => None,
            }
        }
        _ => None,
    };
    let request = Request::from_parts(parts, ());
    let refusal = alert.as_ref().unwrap_or(refusal);
    let id = connection.session.refuse(refusal, |record| connection.expected.note(&request, record)).await;
    reject::answer(refusal, id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_detected_by_its_first_bytes() {
        let more = Detection::NeedMore { at_most: SSH.len(), within: SILENCE };
        for (bytes, expected, at_the_end) in [
            (&b""[..], more, Detection::NotMine),
            (b"GET / HTTP/1.1\r\n", Detection::Mine, Detection::Mine),
            (b"P", more, Detection::Mine),
            (b"PRI * HTTP/2.0", Detection::Mine, Detection::Mine),
            (b"SEARCH / HTTP/1.1\r\n", Detection::Mine, Detection::Mine),
            (b"SS", more, Detection::NotMine),
            (b"SSH-2.0-OpenSSH_10.0\r\n", Detection::NotMine, Detection::NotMine),
            (b"\x16\x03", Detection::NotMine, Detection::NotMine),
            (b"\x00\x01", Detection::NotMine, Detection::NotMine),
        ] {
            assert_eq!(detect(FirstBytes { bytes, is_all: false }), expected, "{bytes:?}");
            assert_eq!(detect(FirstBytes { bytes, is_all: true }), at_the_end, "{bytes:?} and no more");
        }
    }
}
