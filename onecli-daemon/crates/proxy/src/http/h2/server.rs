//! Serves HTTP/2 to an agent.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use super::ahead::Ahead;
use super::error_monitor::{H2ErrorMonitor, H2Rejections};
use super::pipe::pipe;
use super::{grpc, keep_alive};
use crate::http::body::expect::is_continue;
use crate::http::body::peer_body::PeerBody;
use crate::http::body::reject;
use crate::http::body::{Body, BodyError};
use crate::http::body::{H2Body, Unread};
use crate::http::fields::head_size;
use crate::http::h1::{LINGER_BYTES, LINGER_TIME};
use crate::limits::capped::{Capped, Received};

/// Maximum number of concurrent streams.
pub(crate) const MAX_STREAMS: u32 = 128;
/// Flow-control windows, in bytes: one stream's and one connection's (RFC 9113 section 5.2). The agent's data waits
/// here until the upstream accepts it. The agent is local, so a small window costs little latency.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 128 << 10;
/// Bytes of one stream that may wait to be written.
const SEND_BUFFER: usize = 16 << 10;
/// Number of streams that the daemon may reset for client errors before it ends the connection (CVE-2025-8671).
/// Streams that the client resets before they are served are limited by h2's default, 20 (CVE-2023-44487).
const MAX_ERROR_RESETS: usize = 1024;
/// A connection is tested with a PING after this much silence.
const PING_AFTER: Duration = Duration::from_mins(1);

/// Serves requests with `answer` until the connection ends. Requests that h2 itself refuses are reported to
/// `rejections`.
///
/// # Errors
/// The connection broke.
pub(crate) async fn serve<S, F, A>(
    stream: S,
    rejections: Arc<H2Rejections>,
    answer: F,
) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<PeerBody>) -> A,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let received = Received::default();
    let stream = H2ErrorMonitor::new(Capped::noting(stream, received.clone()), Arc::clone(&rejections));
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(head_size::MAX_READ)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buffer_size(SEND_BUFFER)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS));
    let mut connection = builder.handshake::<_, Bytes>(stream).await?;
    let pings = connection.ping_pong();
    let lost = async move {
        match pings {
            Some(pings) => keep_alive::lost(pings, received, PING_AFTER, || false).await,
            None => std::future::pending().await,
        }
    };
    let mut lost = pin!(lost);
    let mut is_lost = false;
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(accepted) => {
                    let (request, reply) = accepted?;
                    let (stream, request) = Stream::new(request, reply, Arc::clone(&rejections));
                    tokio::spawn(stream.serve(answer(request)));
                }
                None => return Ok(()),
            },
            () = &mut lost, if !is_lost => {
                is_lost = true;
                connection.abrupt_shutdown(h2::Reason::NO_ERROR);
            }
        }
    }
}

/// One request's stream.
struct Stream {
    reply: SendResponse<Bytes>,
    rejections: Arc<H2Rejections>,
    is_head: bool,
    is_grpc: bool,
    /// Set while the client waits for 100 (Continue), which it gets when its body is read. `None` after that.
    expected: Option<oneshot::Receiver<()>>,
    unread: Option<Unread>,
}

impl Stream {
    fn new(
        request: Request<RecvStream>,
        reply: SendResponse<Bytes>,
        rejections: Arc<H2Rejections>,
    ) -> (Stream, Request<PeerBody>) {
        let (parts, stream) = request.into_parts();
        let is_whole = stream.is_end_stream();
        let mut body = H2Body::new(stream, &parts.headers);
        let expected = (!is_whole && expects_continue(&parts.headers)).then(|| body.first_read());
        let unread = (!is_whole).then(|| body.unread());
        let is_head = parts.method == Method::HEAD;
        let is_grpc = grpc::is_request(&parts.headers);
        let stream = Stream { reply, rejections, is_head, is_grpc, expected, unread };
        (stream, Request::from_parts(parts, PeerBody::Http2(body)))
    }

    async fn serve(mut self, answer: impl Future<Output = Response<Body>>) {
        let Some(response) = self.answered(answer).await else { return };
        let response = if self.is_head { reject::without_body(response) } else { response };
        let response = if self.is_grpc { grpc::refusal(response) } else { response };
        if let Err(error) = self.write(response).await {
            tracing::debug!(%error, "a response over HTTP/2 broke off");
            return;
        }
        if let Some(unread) = self.unread
            && let Ok(stream) = unread.await
        {
            // This is the last handle. When it is dropped, h2 resets the stream (RFC 9113 section 8.1).
            drop(self.reply);
            linger(stream).await;
        }
    }

    /// Waits for the response. `None`: the client reset the stream, or the connection ended.
    async fn answered(&mut self, answer: impl Future<Output = Response<Body>>) -> Option<Response<Body>> {
        let mut answer = pin!(answer);
        let mut has_begun = false;
        let answered = poll_fn(|cx| {
            let answered = answer.as_mut().poll(cx);
            if let Some(Poll::Ready(read)) = self.expected.as_mut().map(|expected| pin!(expected).poll(cx)) {
                self.expected = None;
                if read.is_ok() && answered.is_pending() {
                    has_begun = true;
                    self.proceed();
                }
            }
            match answered {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                Poll::Pending => self.reply.poll_reset(cx).map(|_| None),
            }
        });
        let response = answered.await;
        if response.is_some() && !has_begun {
            self.rejections.answered();
        }
        response
    }

    /// Sends 100 (Continue).
    fn proceed(&mut self) {
        self.rejections.answered();
        let mut interim = Response::new(());
        *interim.status_mut() = StatusCode::CONTINUE;
        if let Err(error) = self.reply.send_informational(interim) {
            tracing::debug!(%error, "a client that waits for 100 (Continue) disconnected");
        }
    }

    /// Writes the response to its end.
    async fn write(&mut self, response: Response<Body>) -> Result<(), BodyError> {
        let (mut parts, mut body) = response.into_parts();
        if self.expected.is_some() {
            body = Ahead::read(body).await;
        }
        if body.is_end_stream() {
            self.reply.send_response(Response::from_parts(parts, ()), true)?;
            return Ok(());
        }
        if let Some(length) = body.size_hint().exact() {
            parts.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
        }
        let stream = self.reply.send_response(Response::from_parts(parts, ()), false)?;
        pipe(body, stream).await
    }
}

/// Returns whether the client waits for 100 (Continue) before it sends its body (RFC 9110 section 10.1.1).
fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(is_continue)
}

/// Reads the client's remaining data, within limits. Some clients drop a response that is followed immediately by a
/// reset.
async fn linger(mut stream: RecvStream) {
    let mut left = LINGER_BYTES;
    let reading = async {
        while let Some(Ok(data)) = stream.data().await {
            let _ = stream.flow_control().release_capacity(data.len());
            left = left.saturating_sub(data.len());
            if left == 0 {
                break;
            }
        }
    };
    // A timeout is no error, because the reset follows.
    let _ = tokio::time::timeout(LINGER_TIME, reading).await;
}
