//! A timeout for clients that stop reading. Such a client would occupy an upstream connection for as long as the
//! daemon waits.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::idle_timeout::IdleTimeout;

/// A connection that ends if the client reads nothing for too long while data is waiting to be written.
#[derive(Debug)]
pub(crate) struct WriteTimeout<S> {
    stream: S,
    idle_timeout: IdleTimeout,
}

impl<S> WriteTimeout<S> {
    /// Lets each byte wait for `limit`.
    pub(crate) fn new(stream: S, limit: Duration) -> WriteTimeout<S> {
        WriteTimeout { stream, idle_timeout: IdleTimeout::new(limit) }
    }

    /// Measures the time while a write is pending.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.idle_timeout.renew();
        } else if self.idle_timeout.poll_over(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client has stopped reading",
            )));
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn only_a_client_that_reads_nothing_is_disconnected() {
        let limit = Duration::from_millis(300);
        let (mut client, server) = tokio::io::duplex(4);
        let mut stream = WriteTimeout::new(server, limit);
        // A slow reader: the whole takes longer than one byte may wait.
        let reader = tokio::spawn(async move {
            let mut byte = [0; 4];
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(60)).await;
                client.read_exact(&mut byte).await.unwrap();
            }
            client
        });
        stream.write_all(&[0; 40]).await.unwrap();
        let _client = reader.await.unwrap();
        let error = stream.write_all(&[0; 40]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
