//! Clients that close their sending side after the request and continue to read, as `nc -N`, ncat and old scripts do.
//!
//! TCP and TLS can be closed in one direction (RFC 9293 section 3.6, RFC 8446 section 6.1). hyper interprets the end
//! of the request direction as a disconnect. [`HalfClosed`] withholds that end while a response is pending. A client
//! that has closed both directions of a TCP connection looks the same until the daemon sends data to it. So the wait
//! has a limit.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::body::{Body, BodyError};
use crate::http::h1::StrictReader;
use crate::limits::idle_timeout::IdleTimeout;

/// Whether a response is pending. A connection and its service share this; HTTP/1.1 answers one request at a time.
#[derive(Debug, Default)]
pub(super) struct Owed {
    is_owed: AtomicBool,
    reader: AtomicWaker,
}

impl Owed {
    /// Reports that a request has reached the service.
    pub(crate) fn begin(&self) {
        self.is_owed.store(true, Ordering::Release);
    }

    /// Keeps the response pending until its body is dropped.
    pub(super) fn until_sent(self: &Arc<Self>, response: Response<Body>) -> Response<Body> {
        let owed = Arc::clone(self);
        response.map(|body| OwedBody { body, owed }.boxed_unsync())
    }

    fn poll_owed(&self, cx: &Context<'_>) -> bool {
        self.reader.register(cx.waker());
        self.is_owed.load(Ordering::Acquire)
    }
}

/// The body of a response. hyper drops it once all of it is in hyper's buffer, and writes that buffer before it ends
/// a connection.
struct OwedBody {
    body: Body,
    owed: Arc<Owed>,
}

impl HttpBody for OwedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for OwedBody {
    fn drop(&mut self) {
        self.owed.is_owed.store(false, Ordering::Release);
        self.owed.reader.wake();
    }
}

/// A connection whose client may close its side before it has the response.
#[derive(Debug)]
pub(super) struct HalfClosed<S> {
    reader: StrictReader<S>,
    owed: Arc<Owed>,
    /// Set when the client has closed its side.
    has_ended: bool,
    /// Runs while the client has closed its side and nothing is written to it.
    idle_timeout: IdleTimeout,
}

impl<S> HalfClosed<S> {
    /// Reads from `reader`. A client that has closed its side may wait for `limit` without receiving a byte.
    pub(crate) fn new(reader: StrictReader<S>, owed: Arc<Owed>, limit: Duration) -> HalfClosed<S> {
        HalfClosed { reader, owed, has_ended: false, idle_timeout: IdleTimeout::new(limit) }
    }

    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        if self.has_ended && matches!(written, Poll::Ready(Ok(1..))) {
            self.idle_timeout.renew();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HalfClosed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.reader).poll_read(cx, buf);
        let is_end = matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before;
        // An end within a request aborts the request.
        if !is_end || !self.reader.is_between_requests() {
            return read;
        }
        if !self.owed.poll_owed(cx) {
            return read;
        }
        if !std::mem::replace(&mut self.has_ended, true) {
            // The next read fails if the client has closed both directions and TLS shows it.
            cx.waker().wake_by_ref();
        }
        self.idle_timeout.poll_over(cx).map(Ok)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for HalfClosed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.reader).poll_write(cx, buf);
        self.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.reader).poll_write_vectored(cx, bufs);
        self.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.reader.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Instant, sleep, timeout};

    use super::*;
    use crate::http::body::full;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const LIMIT: Duration = Duration::from_millis(300);

    /// A connection whose client has sent a request and closed its side, and the client's end.
    async fn half_closed() -> (HalfClosed<tokio::io::DuplexStream>, Arc<Owed>, tokio::io::DuplexStream) {
        let (mut client, server) = tokio::io::duplex(1024);
        let (reader, _handle) = StrictReader::new(server, Duration::from_mins(1));
        let owed = Arc::<Owed>::default();
        let mut stream = HalfClosed::new(reader, Arc::clone(&owed), LIMIT);
        client.write_all(HEAD).await.unwrap();
        client.shutdown().await.unwrap();
        let mut head = vec![0; HEAD.len()];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(head, HEAD);
        (stream, owed, client)
    }

    #[tokio::test]
    async fn end_is_withheld_while_a_response_is_pending() {
        let (mut stream, owed, _client) = half_closed().await;
        owed.begin();
        let response = owed.until_sent(Response::new(full("x")));
        assert!(timeout(LIMIT / 3, stream.read(&mut [0; 8])).await.is_err());
        let read = tokio::spawn(async move { stream.read(&mut [0; 8]).await });
        sleep(LIMIT / 10).await;
        let dropped = Instant::now();
        drop(response);
        assert_eq!(read.await.unwrap().unwrap(), 0);
        assert!(dropped.elapsed() < LIMIT / 2, "the reader is woken");
    }

    #[tokio::test]
    async fn end_is_reported_at_once_without_a_request() {
        let (mut stream, _owed, _client) = half_closed().await;
        assert_eq!(timeout(LIMIT / 3, stream.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    }

    /// Each write restarts the limit; silence runs into it.
    #[tokio::test]
    async fn silence_of_a_response_is_limited() {
        let (mut stream, owed, _client) = half_closed().await;
        owed.begin();
        let started = Instant::now();
        for _ in 0..4 {
            assert!(timeout(LIMIT / 2, stream.read(&mut [0; 8])).await.is_err());
            stream.write_all(b"piece").await.unwrap();
        }
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(started.elapsed() >= LIMIT * 3, "{:?}", started.elapsed());
    }
}
