//! A TLS connection with an agent that may close its own side first.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// A TLS connection with an agent.
///
/// After the agent's closure alert every read returns the end of the stream, while the TCP connection is open in that
/// direction: the agent may still read (RFC 8446 section 6.1). After that, reads fail, because the agent is gone.
#[derive(Debug)]
pub struct ServerStream<S> {
    tls: TlsStream<S>,
    has_ended: bool,
}

impl<S> ServerStream<S> {
    pub(super) fn new(tls: TlsStream<S>) -> ServerStream<S> {
        ServerStream { tls, has_ended: false }
    }

    /// Returns the stream below TLS, and the session.
    pub fn get_ref(&self) -> (&S, &ServerConnection) {
        self.tls.get_ref()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ServerStream<S> {
    /// Polls the stream below TLS, on which no bytes may follow the closure alert. The task is woken when some do.
    fn poll_below(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut byte = [0];
        let below = self.tls.get_mut().0;
        match pin!(below.read(&mut byte)).poll(cx) {
            Poll::Pending => Poll::Ready(Ok(())),
            Poll::Ready(Ok(_)) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ServerStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_ended {
            return self.poll_below(cx);
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tls).poll_read(cx, buf);
        self.has_ended =
            matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before && buf.remaining() > 0;
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ServerStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
