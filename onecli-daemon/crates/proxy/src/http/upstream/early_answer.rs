//! An upstream may respond before it has read the request's body, and close the connection (for example with 413).
//! The write that then fails must not discard the response, which can still be read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reports whether a write on a connection failed.
#[derive(Debug, Clone, Default)]
pub(super) struct WriteFailed(Arc<AtomicBool>);

impl WriteFailed {
    /// Returns true after a failed write. The connection then carries no further request.
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection whose writes wait after the peer has closed it. A read first returns the bytes that the peer sent
/// before, and then the error.
#[derive(Debug)]
pub(super) struct EarlyAnswer<S> {
    stream: S,
    failed: WriteFailed,
    /// The error of the failed write, until a read reports it.
    error: Option<io::Error>,
    /// The task that waits to write.
    writer: Option<Waker>,
    /// Set when the peer's bytes are read to their end.
    is_read: bool,
}

impl<S> EarlyAnswer<S> {
    /// Wraps `stream`, and sets `failed` when a write fails.
    pub(crate) fn new(stream: S, failed: WriteFailed) -> EarlyAnswer<S> {
        EarlyAnswer { stream, failed, error: None, writer: None, is_read: false }
    }

    fn write<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut S, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.failed.get() && !self.is_read {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        match ready!(write(&mut self.stream, cx)) {
            Err(error) if is_closed(&error) && !self.is_read => {
                self.error = Some(error);
                self.failed.0.store(true, Ordering::Relaxed);
                // The same task may have to read now.
                cx.waker().wake_by_ref();
                self.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            written => Poll::Ready(written),
        }
    }

    /// Ends reading. From now on, writes report their own errors.
    fn end_reading(&mut self) {
        self.is_read = true;
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

/// Returns whether the error means that the peer closed the connection.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

impl<S: AsyncRead + Unpin> AsyncRead for EarlyAnswer<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if read.is_ok() && (room == 0 || buf.filled().len() > before) {
            return Poll::Ready(Ok(()));
        }
        self.end_reading();
        // The kernel reports a reset once, and then the end of the stream. A body without a length may have been
        // truncated.
        Poll::Ready(self.error.take().map_or(read, Err))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for EarlyAnswer<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(cx, |stream, cx| Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.failed.get() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A peer that writes `answer` and closes the connection with unread bytes, which resets it.
    async fn reset_behind(answer: &[u8]) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        stream.write_all(b"request").await.unwrap();
        peer.readable().await.unwrap();
        peer.write_all(answer).await.unwrap();
        drop(peer);
        // The socket becomes readable when the reset has arrived.
        stream.readable().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        stream
    }

    async fn is_pending<T>(future: impl Future<Output = T>) -> bool {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn response_received_before_a_failed_write_is_read() {
        let failed = WriteFailed::default();
        let mut stream = EarlyAnswer::new(reset_behind(b"413").await, failed.clone());
        assert!(is_pending(stream.write_all(b"more")).await);
        assert!(failed.get());
        let mut read = Vec::new();
        let error = stream.read_to_end(&mut read).await.unwrap_err();
        assert!(is_closed(&error), "{error}");
        assert_eq!(read, b"413");
        assert!(stream.write_all(b"more").await.is_err(), "there is no reason to wait");
    }

    #[tokio::test]
    async fn write_error_is_reported_without_a_response() {
        let mut stream = EarlyAnswer::new(reset_behind(b"").await, WriteFailed::default());
        assert!(is_pending(stream.write_all(b"more")).await);
        let error = stream.read_u8().await.unwrap_err();
        assert!(is_closed(&error), "{error}");
    }
}
