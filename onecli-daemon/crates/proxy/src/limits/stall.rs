//! A timeout for clients that stop reading. Such a client would occupy an upstream connection for as long as the
//! daemon waits.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::patience::Patience;

/// A connection that ends if the client reads nothing for too long while data is waiting to be written.
#[derive(Debug)]
pub(crate) struct Stall<S> {
    stream: S,
    patience: Patience,
}

impl<S> Stall<S> {
    /// Lets each byte wait for `limit`.
    pub(crate) fn new(stream: S, limit: Duration) -> Stall<S> {
        Stall { stream, patience: Patience::new(limit) }
    }

    /// Measures the time while a write is pending.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.patience.renew();
        } else if self.patience.poll_over(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client has stopped reading",
            )));
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stall<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stall<S> {
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
        let mut stall = Stall::new(server, limit);
        // A slow reader: the whole takes longer than one byte may wait.
        let reader = tokio::spawn(async move {
            let mut byte = [0; 4];
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(60)).await;
                client.read_exact(&mut byte).await.unwrap();
            }
            client
        });
        stall.write_all(&[0; 40]).await.unwrap();
        let _client = reader.await.unwrap();
        let error = stall.write_all(&[0; 40]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
