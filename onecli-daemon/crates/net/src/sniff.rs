//! Detection of a client's protocol from its first bytes.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The maximum number of bytes read ahead. A ClientHello with post-quantum keys and many extensions is well below it.
const MAX_AHEAD: usize = 32 * 1024;
/// The time that a client has for its first message after the first byte.
const SNIFF_TIMEOUT: Duration = Duration::from_secs(10);

/// The protocol of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A TLS handshake record (RFC 8446 section 5.1).
    Tls,
    /// A method token: HTTP/1, or HTTP/2's preface.
    Http,
    /// Any other protocol.
    Other,
}

/// The reason why a client's protocol is unknown.
#[derive(Debug, thiserror::Error)]
pub enum SniffError {
    /// The client closed before the first byte.
    #[error("the client closed the connection before it sent anything")]
    Closed,
    /// The client sent no byte. In its protocol, the server may speak first.
    #[error("the client sent nothing")]
    Silent,
    /// The client did not complete its first message in time.
    #[error("the client did not complete its first message within 10 s")]
    Slow,
    /// The ClientHello has more than 32 KiB.
    #[error("the client's first message is longer than 32 KiB")]
    TooLong,
    /// The socket failed.
    #[error("reading from the client failed: {0}")]
    Io(#[from] io::Error),
}

/// The first bytes of SSH (RFC 4253 section 4.2), which look like an HTTP method.
const SSH: &[u8] = b"SSH-";

/// Reads until the protocol is known and, for TLS, until `complete` returns that the first message is complete. The
/// first byte must arrive within `silence`.
///
/// # Errors
/// [`SniffError`].
pub async fn sniff<S: AsyncRead + Unpin>(
    stream: &mut S,
    complete: impl Fn(&[u8]) -> bool,
    silence: Duration,
) -> Result<(Protocol, Bytes), SniffError> {
    let mut ahead = BytesMut::with_capacity(2048);
    let first = tokio::time::timeout(silence, stream.read_buf(&mut ahead)).await;
    if first.map_err(|_| SniffError::Silent)?? == 0 {
        return Err(SniffError::Closed);
    }
    let read = async {
        loop {
            match ahead[0] {
                0x16 if complete(&ahead) => return Ok(Protocol::Tls),
                0x16 if ahead.len() >= MAX_AHEAD => return Err(SniffError::TooLong),
                0x16 => {}
                b'S' if SSH.starts_with(&ahead) && ahead.len() < SSH.len() => {}
                b'S' if ahead.starts_with(SSH) => return Ok(Protocol::Other),
                first if first.is_ascii_alphabetic() => return Ok(Protocol::Http),
                _ => return Ok(Protocol::Other),
            }
            if stream.read_buf(&mut ahead).await? == 0 {
                return Ok(Protocol::Other);
            }
        }
    };
    let protocol = tokio::time::timeout(SNIFF_TIMEOUT, read).await.map_err(|_| SniffError::Slow)??;
    Ok((protocol, ahead.freeze()))
}
