//! A stream with a filter in one direction: bytes that are read pass through it, bytes that are written do not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Processes the bytes that are read.
pub(super) trait Filter<S> {
    /// Reads from `stream`, as [`AsyncRead::poll_read`] does.
    fn poll_read(
        &mut self,
        stream: Pin<&mut S>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>;
}

/// A stream with a filter.
#[derive(Debug)]
pub(crate) struct Filtered<S, F> {
    stream: S,
    filter: F,
}

impl<S, F> Filtered<S, F> {
    /// Reads `stream` through `filter`.
    pub(crate) fn new(stream: S, filter: F) -> Filtered<S, F> {
        Filtered { stream, filter }
    }
}

impl<S: Unpin, F: Filter<S> + Unpin> AsyncRead for Filtered<S, F> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.filter.poll_read(Pin::new(&mut this.stream), cx, buf)
    }
}

impl<S: AsyncWrite + Unpin, F: Unpin> AsyncWrite for Filtered<S, F> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
