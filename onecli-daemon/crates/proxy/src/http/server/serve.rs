//! Serves HTTP to an agent on an accepted connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use onecli_model::Code;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::half_closed::{HalfClosed, Owed};
use crate::accept::protocol::Stream;
use crate::http::body::Body;
use crate::http::body::peer_body::PeerBody;
use crate::http::body::reject;
use crate::http::context::connection::HttpConnection;
use crate::http::context::handles::Http;
use crate::http::exchange::exchange;
use crate::http::h1::{MAX_FIELDS, MAX_HEAD, RejectedRequest, StrictReader};
use crate::http::h2::error_monitor::{H2Rejections, is_fault};
use crate::http::h2::{MAX_STREAMS, serve as serve_http2};
use crate::limits::capped::Capped;
use crate::limits::write_timeout::WriteTimeout;
use crate::session::Session;

/// Time limit for a head, from its first byte.
const HEAD_TIME: Duration = Duration::from_mins(1);
/// Time limit for waiting for the next head and reading all of it. A head that begins late in this time is cut off
/// without a response. A client that has closed its side may wait as long for each piece of its response.
const IDLE_TIME: Duration = Duration::from_mins(2);
/// Time limit for a client that reads nothing.
const WRITE_TIMEOUT: Duration = Duration::from_mins(2);

/// HTTP/1.1 or HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    Http1,
    Http2,
}

/// Serves requests until the connection ends; each is an [`exchange`].
pub(super) async fn serve_exchanges(
    http: &Arc<Http>,
    session: Session,
    stream: Stream,
    version: HttpVersion,
) {
    let streams = if version == HttpVersion::Http1 { 1 } else { MAX_STREAMS as usize };
    let rejections = Arc::new(H2Rejections::default());
    let displaced = session.client.displaced();
    let connection = Arc::new(HttpConnection::new(session, streams));
    let session = &connection.session;
    let served = serve_with(stream, version, (Arc::clone(&rejections), displaced), |request| {
        let (http, connection) = (Arc::clone(http), Arc::clone(&connection));
        async move {
            let version = request.version();
            let mut response = match RejectedRequest::of(&request) {
                Some(rejected) => answer_rejected(&connection, rejected).await,
                None => Box::pin(exchange(Arc::clone(&http), Arc::clone(&connection), request)).await,
            };
            finish(&connection.session, version, &mut response);
            response
        }
    });
    tokio::pin!(served);
    // There is one record for a connection, however often HTTP/2 refuses its data.
    let result = tokio::select! {
        result = &mut served => result,
        code = rejections.first() => {
            session.refuse(code, |_| {}).await;
            return drop(served.await);
        }
    };
    match (rejections.any(), result) {
        (Some(code), _) => _ = session.refuse(code, |_| {}).await,
        (None, Err(error)) => record_broken(session, &error).await,
        (None, Ok(())) => {}
    }
}

/// Completes the head of a response. While the daemon stops, it tells an HTTP/1 client that the connection ends (RFC
/// 9112 section 9.6), so that the client sends the next request on another one. Over HTTP/2 it adds the date (RFC 9110
/// section 6.6.1), which hyper sets over HTTP/1.
pub(super) fn finish(session: &Session, version: Version, response: &mut Response<Body>) {
    if version == Version::HTTP_2 {
        let now = session.recorder.clock.now();
        response.headers_mut().entry(header::DATE).or_insert_with(|| http_date(now));
    }
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if session.lifecycle.is_stopping() && version <= Version::HTTP_11 && !switches {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The current `Date` field (RFC 9110 section 5.6.7).
fn http_date(now: Timestamp) -> HeaderValue {
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok();
    // Only a year beyond 9999 has no date.
    date.and_then(|date| date.try_into().ok())
        .unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

/// Serves requests with `answer`, within the limits above. Over HTTP/1, `answer` also gets the requests that replace
/// malformed ones: see [`RejectedRequest`]. Over HTTP/2, refusals that `answer` does not see are reported to
/// `rejections`. A connection that is `displaced` gets that refusal in place of its next request.
///
/// # Errors
/// The connection broke.
pub(crate) async fn serve_with<S, F, A>(
    stream: S,
    version: HttpVersion,
    (rejections, displaced): (Arc<H2Rejections>, CancellationToken),
    answer: F,
) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<PeerBody>) -> A,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let stream = WriteTimeout::new(stream, WRITE_TIMEOUT);
    match version {
        HttpVersion::Http1 => {
            let (reader, handle) = StrictReader::new(Capped::new(stream), HEAD_TIME);
            let owed = Arc::<Owed>::default();
            let reader = HalfClosed::new(reader.until(displaced), Arc::clone(&owed), IDLE_TIME);
            let service = service_fn(|request: Request<Incoming>| {
                let mut request = request.map(PeerBody::from);
                let turn = handle.arrive(&mut request);
                owed.begin();
                let (handle, owed, answer) = (Arc::clone(&handle), Arc::clone(&owed), answer(request));
                async move {
                    let mut response = answer.await;
                    handle.leave(&turn, &mut response);
                    Ok::<_, Infallible>(owed.until_sent(response))
                }
            });
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE_TIME)
                .max_buf_size(MAX_HEAD)
                .max_headers(MAX_FIELDS)
                .serve_connection(TokioIo::new(reader), service)
                .with_upgrades()
                .await
                .map_err(ServeError::Http1)
        }
        HttpVersion::Http2 => serve_http2(stream, rejections, answer).await.map_err(ServeError::Http2),
    }
}

/// Refuses a request that broke the framing.
pub(super) async fn answer_rejected(
    connection: &HttpConnection,
    rejected: &RejectedRequest,
) -> Response<Body> {
    let refusal = rejected.refusal();
    let id = connection.session.refuse(&refusal, |record| rejected.describe(record)).await;
    reject::answer(&refusal, id)
}

/// Records a head that hyper could not read as a refused request. Over HTTP/1 the strict reader refuses all of these
/// first. If one passes it, it is still recorded.
pub(super) async fn record_broken(session: &Session, error: &ServeError) {
    if let Some(code) = error.refused() {
        session.refuse(code, |_| {}).await;
        return;
    }
    tracing::debug!(%error, "an agent's connection ended");
}

/// The reason that an agent's connection broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Http1(hyper::Error),
    #[error(transparent)]
    Http2(h2::Error),
}

impl ServeError {
    /// The code, if the client's data caused the error.
    fn refused(&self) -> Option<Code> {
        match self {
            ServeError::Http1(error) if error.is_parse_too_large() => Some(Code::HeadTooLarge),
            ServeError::Http1(error) => error.is_parse().then_some(Code::BadRequest),
            ServeError::Http2(error) => {
                let is_refused =
                    error.is_library() && error.reason().is_some_and(|reason| is_fault(reason.into()));
                is_refused.then_some(Code::BadRequest)
            }
        }
    }
}
