//! A connection that is read in small portions. hyper doubles its buffer, up to the longest head, for a peer that
//! fills it.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Maximum number of bytes that are read at once. It is one less than a power of two, so hyper's buffer of that size
/// is never full and stays at 16 KiB.
const BITE: u64 = (16 << 10) - 1;

/// Reports whether any byte was received on a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Received(Arc<AtomicBool>);

impl Received {
    /// Clears the flag.
    pub(crate) fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Returns whether a byte was received since [`Received::reset`].
    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream that reads at most 16 KiB at once.
#[derive(Debug)]
pub(crate) struct Capped<S> {
    stream: S,
    received: Received,
}

impl<S> Capped<S> {
    /// Wraps `stream`.
    pub(crate) fn new(stream: S) -> Capped<S> {
        Capped::noting(stream, Received::default())
    }

    /// Wraps `stream`, and sets `received` when a byte arrives.
    pub(crate) fn noting(stream: S, received: Received) -> Capped<S> {
        Capped { stream, received }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Capped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = pin!((&mut self.stream).take(BITE)).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.received.0.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Capped<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_are_at_most_16_kib() {
        let mut capped = Capped::new(io::Cursor::new(vec![1; 40_000]));
        let mut sizes = Vec::new();
        loop {
            let mut buffer = vec![0; 30_000];
            match capped.read(&mut buffer).await.unwrap() {
                0 => break,
                size => sizes.push(size),
            }
        }
        assert_eq!(sizes, [16_383, 16_383, 7_234]);
    }
}
