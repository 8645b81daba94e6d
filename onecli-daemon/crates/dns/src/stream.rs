//! DNS over TCP (RFC 7766): two bytes of length before each message.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::message::{MAX_QUERY, Transport};
use super::server::{Asker, Server};

/// How long a connection may be idle, and a message may take (RFC 7766 section 6.2.3: a few seconds).
const IDLE: Duration = Duration::from_secs(10);

impl Server {
    /// Answers one query after the other, until the client ends, is idle for too long or writes no DNS. A connection
    /// past the agent's bound is closed.
    pub async fn serve_stream<S: AsyncRead + AsyncWrite + Unpin>(&self, asker: Arc<Asker>, mut stream: S) {
        let Ok(_place) = asker.streams.try_acquire() else { return };
        while let Ok(Some(query)) = in_time(read(&mut stream)).await {
            let Ok(_query) = asker.queries.acquire().await else { return };
            let Some(answer) = self.parts.answer(&asker, &query, Transport::Stream).await else { return };
            if in_time(write(&mut stream, &answer)).await.is_err() {
                return;
            }
        }
    }
}

async fn in_time<T>(work: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    tokio::time::timeout(IDLE, work).await?
}

/// One message; `None` where it is larger than a query may be.
async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Option<Vec<u8>>> {
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_QUERY {
        return Ok(None);
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Length and message in one write, as section 8 of the RFC asks.
async fn write<S: AsyncWrite + Unpin>(stream: &mut S, answer: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[length.to_be_bytes().as_slice(), answer].concat()).await
}
