//! Tunnels: bytes passed on without inspection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The number of bytes that passed through a tunnel so far. It can be read while the tunnel is open.
#[derive(Debug, Clone, Default)]
pub struct TunnelBytes {
    from_agent: Arc<AtomicU64>,
    to_agent: Arc<AtomicU64>,
}

impl TunnelBytes {
    /// Bytes from the agent to the upstream.
    pub fn from_agent(&self) -> u64 {
        self.from_agent.load(Ordering::Relaxed)
    }

    /// Bytes from the upstream to the agent.
    pub fn to_agent(&self) -> u64 {
        self.to_agent.load(Ordering::Relaxed)
    }

    fn both(&self) -> u64 {
        self.from_agent().wrapping_add(self.to_agent())
    }
}

/// The reason for a regular end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both sides closed.
    Closed,
    /// The daemon stopped it.
    Stopped,
}

/// Passes bytes both ways until both sides closed, one failed, or `stop` resolves. Counts in `bytes`. After one side
/// has closed, the other may continue to send. It may be silent for `idle` at a time, at most twice that.
///
/// # Errors
/// The first error of either side; [`io::ErrorKind::TimedOut`] for silence.
pub async fn tunnel<A, U>(
    agent: A,
    upstream: U,
    bytes: &TunnelBytes,
    idle: Duration,
    stop: impl Future<Output = ()>,
) -> io::Result<TunnelEnd>
where
    A: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let is_half_closed = AtomicBool::new(false);
    let mut agent =
        CountingStream { stream: agent, read: Arc::clone(&bytes.from_agent), has_ended: &is_half_closed };
    let mut upstream =
        CountingStream { stream: upstream, read: Arc::clone(&bytes.to_agent), has_ended: &is_half_closed };
    tokio::select! {
        result = tokio::io::copy_bidirectional_with_sizes(&mut agent, &mut upstream, 16 * 1024, 16 * 1024) => {
            result.map(|_| TunnelEnd::Closed)
        }
        () = stop => Ok(TunnelEnd::Stopped),
        () = silence(idle, &is_half_closed, bytes) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, "one side has closed, and the other is silent"))
        }
    }
}

/// Resolves when a half-closed tunnel has passed no byte for `idle`.
async fn silence(idle: Duration, is_half_closed: &AtomicBool, bytes: &TunnelBytes) {
    let mut before = None;
    loop {
        tokio::time::sleep(idle).await;
        let now = is_half_closed.load(Ordering::Relaxed).then(|| bytes.both());
        if now.is_some() && before == now {
            return;
        }
        before = now;
    }
}

struct CountingStream<'t, S> {
    stream: S,
    read: Arc<AtomicU64>,
    /// Set at the end of this side.
    has_ended: &'t AtomicBool,
}

impl<S: AsyncRead + Unpin> AsyncRead for CountingStream<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        let got = buf.filled().len() - before;
        self.read.fetch_add(u64::try_from(got).unwrap_or(u64::MAX), Ordering::Relaxed);
        if got == 0 && result.is_ready() && buf.remaining() > 0 {
            self.has_ended.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountingStream<'_, S> {
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
