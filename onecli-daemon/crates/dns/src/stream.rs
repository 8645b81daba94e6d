//! DNS over TCP (RFC 7766): two length bytes before each message.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::message::{MAX_QUERY, Transport};
use super::server::{DnsClient, Server};

/// The time that a connection may be idle, and the time limit of a message (RFC 7766 section 6.2.3: a few seconds).
const IDLE: Duration = Duration::from_secs(10);

impl Server {
    /// Answers one query after another until the client closes, is idle for too long or sends bytes that are not DNS.
    /// Closes a connection beyond the agent's limit.
    pub async fn serve_stream<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        client: Arc<DnsClient>,
        mut stream: S,
    ) {
        let Ok(_place) = client.streams.try_acquire() else { return };
        while let Ok(Some(query)) = in_time(read(&mut stream)).await {
            let Ok(_query) = client.queries.acquire().await else { return };
            let Some(answer) = self.handler.answer(&client, &query, Transport::Stream).await else { return };
            if in_time(write(&mut stream, &answer)).await.is_err() {
                return;
            }
        }
    }
}

async fn in_time<T>(work: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    tokio::time::timeout(IDLE, work).await?
}

/// Reads one message; `None` if it is larger than a query may be.
async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Option<Vec<u8>>> {
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_QUERY {
        return Ok(None);
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Writes length and message in one write, as RFC 7766 section 8 requires.
async fn write<S: AsyncWrite + Unpin>(stream: &mut S, answer: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[length.to_be_bytes().as_slice(), answer].concat()).await
}
