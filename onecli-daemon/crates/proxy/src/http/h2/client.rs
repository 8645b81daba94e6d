//! Sends requests to an upstream over HTTP/2, one at a time on a connection.

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{self, HeaderValue};
use http::{Method, Request, Response};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::keep_alive;
use super::pipe::pipe;
use crate::http::body::H2Body;
use crate::http::body::expect::Gate;
use crate::http::body::replay::AttemptBody;
use crate::http::fields::head_size;
use crate::limits::capped::{Capped, Received};

/// Flow-control windows, in bytes: one stream's and one connection's (RFC 9113 section 5.2). The upstream gets its
/// credit back as the agent reads. With windows this small, a response that the agent does not read would block all
/// others on its connection. So a connection carries one request at a time.
const STREAM_WINDOW: u32 = 48 << 10;
const CONNECTION_WINDOW: u32 = 64 << 10;
/// Bytes of a request that may wait to be written.
const SEND_BUFFER: usize = 16 << 10;
/// A connection in use is tested with a PING after this much silence.
const PING_AFTER: Duration = Duration::from_secs(20);

/// A connection to an upstream.
#[derive(Debug)]
pub(crate) struct H2Sender {
    sender: SendRequest<Bytes>,
    connection: AbortHandle,
    /// False while the connection carries no request.
    is_busy: Arc<AtomicBool>,
    /// Dropped together with the sender. That wakes the connection so that it ends.
    _alive: oneshot::Sender<()>,
}

/// The reason that there is no response.
#[derive(Debug)]
pub(crate) struct Unanswered {
    /// Set if nothing was sent.
    pub(crate) is_unsent: bool,
    /// The connection's error, or the stream's.
    pub(crate) error: h2::Error,
}

impl H2Sender {
    /// Starts HTTP/2 on `stream`.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) async fn handshake<S>(stream: S) -> Result<H2Sender, h2::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let received = Received::default();
        let (sender, connection) = Builder::new()
            // Applies until the upstream's settings arrive.
            .initial_max_send_streams(1)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(head_size::MAX_READ)
            .enable_push(false)
            .handshake(Capped::noting(stream, received.clone()))
            .await?;
        let is_busy = Arc::<AtomicBool>::default();
        let (alive, is_dropped) = oneshot::channel();
        let connection = tokio::spawn(drive(connection, received, Arc::clone(&is_busy), is_dropped));
        Ok(H2Sender { sender, connection: connection.abort_handle(), is_busy, _alive: alive })
    }

    /// Returns whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.connection.is_finished()
    }

    /// Returns whether a request can be sent at once.
    pub(crate) async fn is_ready(&mut self) -> bool {
        poll_fn(|cx| self.sender.poll_ready(cx)).await.is_ok() && !self.is_closed()
    }

    /// Reports that the response was read to its end.
    pub(crate) fn rest(&self) {
        self.is_busy.store(false, Ordering::Relaxed);
    }

    /// Sends a request. Its body continues to be sent after the response has begun, unless it still waits at `gate`.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(crate) async fn send(
        &mut self,
        request: Request<AttemptBody>,
        gate: Option<&Gate>,
    ) -> Result<Response<H2Body>, Unanswered> {
        let unsent = |error| Unanswered { is_unsent: true, error };
        self.is_busy.store(true, Ordering::Relaxed);
        // A separate handle. A handle retains the stream until the stream is open, and `self.sender` would retain it
        // longer.
        let mut sender = self.sender.clone().ready().await.map_err(unsent)?;
        let (mut parts, body) = request.into_parts();
        if let Some(length) = announced(&parts.method, &body) {
            parts.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
        }
        let is_end = body.is_end_stream();
        let (response, stream) =
            sender.send_request(Request::from_parts(parts, ()), is_end).map_err(unsent)?;
        drop(sender);
        let writing = if is_end { Writing::default() } else { Writing::begin(body, stream).await };
        let response =
            answered(response, gate).await.map_err(|error| Unanswered { is_unsent: false, error })?;
        if gate.is_none_or(|gate| !gate.close()) {
            writing.go_on();
        }
        let (parts, stream) = response.into_parts();
        let body = H2Body::new(stream, &parts.headers);
        Ok(Response::from_parts(parts, body))
    }
}

/// The length to declare: that of the body, or 0 if the method allows a body (RFC 9110 section 8.6).
fn announced(method: &Method, body: &AttemptBody) -> Option<u64> {
    let has_content = !matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT);
    body.size_hint().exact().filter(|length| *length > 0 || has_content)
}

/// Waits for the final response. Interim responses open the `gate`, or are dropped.
async fn answered(
    mut response: ResponseFuture,
    gate: Option<&Gate>,
) -> Result<Response<RecvStream>, h2::Error> {
    poll_fn(|cx| {
        loop {
            match response.poll_informational(cx) {
                Poll::Ready(Some(interim)) => {
                    let status = interim?.status();
                    if let Some(gate) = gate {
                        gate.interim(status);
                    }
                }
                Poll::Ready(None) => return Pin::new(&mut response).poll(cx),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// A body that is being written. Dropping this stops the writing.
#[derive(Debug, Default)]
struct Writing(Option<AbortHandle>);

impl Writing {
    /// Starts to write. A body that is completely available needs no task.
    async fn begin(body: AttemptBody, stream: SendStream<Bytes>) -> Writing {
        let mut writing = Box::pin(pipe(body, stream));
        let at_once = poll_fn(|cx: &mut Context<'_>| Poll::Ready(writing.as_mut().poll(cx))).await;
        if at_once.is_ready() {
            return Writing(None);
        }
        let task = tokio::spawn(async move {
            if let Err(error) = writing.await {
                tracing::debug!(%error, "a request's body over HTTP/2 broke off");
            }
        });
        Writing(Some(task.abort_handle()))
    }

    /// Lets the body be written to its end.
    fn go_on(mut self) {
        self.0 = None;
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// Runs a connection until it ends.
async fn drive<S>(
    mut connection: Connection<S, Bytes>,
    received: Received,
    is_busy: Arc<AtomicBool>,
    mut is_dropped: oneshot::Receiver<()>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let pings = connection.ping_pong();
    let mut lost = pin!(async move {
        match pings {
            Some(pings) => {
                keep_alive::lost(pings, received, PING_AFTER, || !is_busy.load(Ordering::Relaxed)).await;
            }
            None => pending().await,
        }
    });
    let mut is_used = true;
    loop {
        tokio::select! {
            ended = &mut connection => {
                return tracing::debug!(?ended, "an upstream HTTP/2 connection ended");
            }
            () = &mut lost => return tracing::debug!("an upstream does not answer PING"),
            // h2 notices dropped handles only when it is polled.
            _ = &mut is_dropped, if is_used => is_used = false,
        }
    }
}
