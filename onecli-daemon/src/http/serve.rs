//! Serves HTTP to an agent on a connection that is ours by now.

use std::convert::Infallible;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::body_memory::ConnectionMemory;
use super::capped::Capped;
use super::connection::Connection;
use super::exchange::exchange;
use super::frames::{Frames, Rejections, is_fault};
use super::front::{Front, MAX_FIELDS, MAX_HEAD, Malformed};
use super::gateway::Gateway;
use super::half_closed::{HalfClosed, Owed};
use super::head_size;
use super::intercept::refuse_quietly;
use super::reject;
use super::stall::Stall;
use super::trail::Trail;
use crate::model::Code;

/// How long a head may take from its first byte.
const HEAD_TIME: Duration = Duration::from_mins(1);
/// How long a connection may wait for its next head, and for the whole of it: a head that began late in this time is
/// cut off without an answer. A client that has closed its side may wait as long for each piece of its response.
const IDLE_TIME: Duration = Duration::from_mins(2);
/// How long a client may take nothing of what it is sent.
const STALL_TIME: Duration = Duration::from_mins(2);
/// HTTP/2 streams at a time.
const MAX_STREAMS: u32 = 128;
/// HTTP/2 flow-control windows, in bytes: one stream's and one connection's (RFC 9113 section 5.2). What the agent sends
/// waits here until the upstream takes it. The agent is near: a small window costs no round trip that counts.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 128 << 10;
/// Bytes of one HTTP/2 stream that may wait to be written.
const SEND_BUFFER: usize = 16 << 10;

/// HTTP/1.1 or HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HttpVersion {
    Http1,
    Http2,
}

/// Serves requests until the connection ends; each is an [`exchange`].
pub(super) async fn serve_exchanges<S>(
    gateway: &Arc<Gateway>,
    mut connection: Connection,
    stream: S,
    version: HttpVersion,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let streams = if version == HttpVersion::Http1 { 1 } else { MAX_STREAMS as usize };
    connection.memory = ConnectionMemory::new(streams);
    let connection = Arc::new(connection);
    let rejections = Arc::new(Rejections::default());
    let displaced = connection.displaced();
    let served = serve_with(stream, version, (Arc::clone(&rejections), displaced), |request| {
        let (gateway, connection) = (Arc::clone(gateway), Arc::clone(&connection));
        async move {
            let version = request.version();
            let mut response = match Malformed::of(&request) {
                Some(malformed) => refuse_malformed(&gateway, &connection, malformed).await,
                None => Box::pin(exchange(Arc::clone(&gateway), connection, request)).await,
            };
            gateway.close_after(version, &mut response);
            response
        }
    });
    tokio::pin!(served);
    // One record for a connection, however often HTTP/2 refuses what comes over it.
    let result = tokio::select! {
        result = &mut served => result,
        code = rejections.first() => {
            refuse_quietly(gateway, &connection, code).await;
            return drop(served.await);
        }
    };
    match (rejections.any(), result) {
        (Some(code), _) => refuse_quietly(gateway, &connection, code).await,
        (None, Err(error)) => record_broken(gateway, &connection, &error).await,
        (None, Ok(())) => {}
    }
}

/// Serves requests with `answer`, within the bounds above. Over HTTP/1, `answer` is also given requests in place of
/// malformed ones: see [`Malformed`]. Over HTTP/2, what is refused without it is noticed in `rejections`. A connection that
/// is `displaced` answers so in place of its next request.
///
/// # Errors
/// hyper's, where the connection broke.
pub(super) async fn serve_with<S, F, A>(
    stream: S,
    version: HttpVersion,
    (rejections, displaced): (Arc<Rejections>, CancellationToken),
    answer: F,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let stream = Stall::new(stream, STALL_TIME);
    match version {
        HttpVersion::Http1 => {
            let (front, link) = Front::new(Capped::new(stream), HEAD_TIME);
            let owed = Arc::<Owed>::default();
            let front = HalfClosed::new(front.until(displaced), Arc::clone(&owed), IDLE_TIME);
            let service = service_fn(|mut request| {
                let turn = link.arrive(&mut request);
                owed.begin();
                let (link, owed, answer) = (Arc::clone(&link), Arc::clone(&owed), answer(request));
                async move {
                    let mut response = answer.await;
                    link.leave(&turn, &mut response);
                    Ok::<_, Infallible>(owed.until_sent(response))
                }
            });
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE_TIME)
                .max_buf_size(MAX_HEAD)
                .max_headers(MAX_FIELDS)
                .serve_connection(TokioIo::new(front), service)
                .with_upgrades()
                .await
        }
        HttpVersion::Http2 => {
            let service = service_fn(|request: Request<Incoming>| {
                let is_head = *request.method() == Method::HEAD;
                let (answer, rejections) = (answer(request), Arc::clone(&rejections));
                async move {
                    let response = answer.await;
                    rejections.answered();
                    Ok::<_, Infallible>(if is_head { reject::without_body(response) } else { response })
                }
            });
            let stream = Frames::new(stream, Arc::clone(&rejections));
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_header_list_size(head_size::MAX_READ)
                .max_concurrent_streams(MAX_STREAMS)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(SEND_BUFFER)
                .keep_alive_interval(HEAD_TIME)
                .serve_connection(TokioIo::new(stream), service)
                .await
        }
    }
}

/// Refuses a request that broke the framing.
pub(super) async fn refuse_malformed(
    gateway: &Arc<Gateway>,
    connection: &Connection,
    malformed: &Malformed,
) -> Response<Body> {
    let refusal = malformed.refusal();
    let Ok(mut trail) = Trail::begin(gateway, connection) else { return reject::answer(&refusal, None) };
    if let Ok(identity) = connection.identify(gateway) {
        trail.identify(&identity);
    }
    malformed.describe(trail.record());
    trail.refuse(refusal.code).await;
    reject::answer(&refusal, trail.request_id())
}

/// A head that hyper could not read is a refused request, and is recorded as one. Over HTTP/1 the front refuses all of
/// these first; one that it let through must not go unrecorded.
pub(super) async fn record_broken(gateway: &Arc<Gateway>, connection: &Connection, error: &hyper::Error) {
    let code = if error.is_parse_too_large() {
        Code::HeadTooLarge
    } else if error.is_parse() || is_fault_of_peer(error) {
        Code::BadRequest
    } else {
        tracing::debug!(%error, "an agent's connection ended");
        return;
    };
    refuse_quietly(gateway, connection, code).await;
}

/// Did HTTP/2 itself end the connection, for what the client sent?
fn is_fault_of_peer(error: &hyper::Error) -> bool {
    let h2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    h2.is_some_and(|h2| h2.is_library() && h2.reason().is_some_and(|reason| is_fault(reason.into())))
}
