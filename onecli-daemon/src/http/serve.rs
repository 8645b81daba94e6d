//! Serves HTTP to an agent on a connection that is ours by now.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::Body;
use super::connection::Connection;
use super::exchange::exchange;
use super::gateway::Gateway;
use super::trail::Trail;
use crate::model::Code;

/// Largest head, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Most header fields.
const MAX_HEADERS: usize = 128;
/// How long a head may take, and an idle connection may wait for its next.
const HEAD_TIME: Duration = Duration::from_mins(1);
/// HTTP/2 streams at a time.
const MAX_STREAMS: u32 = 128;
/// HTTP/2 flow-control windows, in bytes: one stream's and one connection's.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// HTTP/1.1 or HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HttpVersion {
    Http1,
    Http2,
}

/// Serves requests until the connection ends; each is an [`exchange`].
pub(super) async fn serve_exchanges<S>(
    gateway: &Arc<Gateway>,
    connection: Connection,
    stream: S,
    version: HttpVersion,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Arc::new(connection);
    let result = serve_with(stream, version, |request| {
        let (gateway, connection) = (Arc::clone(gateway), Arc::clone(&connection));
        exchange(gateway, connection, request)
    })
    .await;
    if let Err(error) = result {
        record_broken(gateway, &connection, &error).await;
    }
}

/// Serves requests with `answer`, within the bounds above.
///
/// # Errors
/// hyper's, where the connection broke.
pub(super) async fn serve_with<S, F, A>(
    stream: S,
    version: HttpVersion,
    answer: F,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let io = TokioIo::new(stream);
    match version {
        HttpVersion::Http1 => {
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .max_buf_size(MAX_HEAD)
                .max_headers(MAX_HEADERS)
                .serve_connection(io, service)
                .with_upgrades()
                .await
        }
        HttpVersion::Http2 => {
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
                .max_concurrent_streams(MAX_STREAMS)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .keep_alive_interval(HEAD_TIME)
                .serve_connection(io, service)
                .await
        }
    }
}

/// A head that hyper could not read is a refused request, and is recorded as one.
pub(super) async fn record_broken(gateway: &Arc<Gateway>, connection: &Connection, error: &hyper::Error) {
    let code = if error.is_parse_too_large() {
        Code::HeadTooLarge
    } else if error.is_parse() {
        Code::BadRequest
    } else {
        tracing::debug!(%error, "an agent's connection ended");
        return;
    };
    if let Ok(mut trail) = Trail::begin(gateway, connection) {
        if let Ok(identity) = connection.identify(gateway) {
            trail.identify(&identity);
        }
        trail.refuse(code).await;
    }
}
