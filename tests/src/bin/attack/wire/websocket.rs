//! WebSocket frames (RFC 6455 section 5.2), for both ends.

use std::io::{self, Read, Write};

pub(crate) const TEXT: u8 = 1;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// A length field with this value is followed by the length in two bytes.
const LONG: u8 = 0x7e;
/// The key of every masked frame here, which leaves the payload readable in a trace.
const MASK: [u8; 4] = [0; 4];

/// The header fields of a client's handshake. The `Sec-WebSocket-Accept` for its key is [`ACCEPT`].
pub(crate) const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// The `Sec-WebSocket-Accept` for that key (RFC 6455 section 1.3).
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The head of a response that accepts the handshake.
pub(crate) fn switch() -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: \
         {ACCEPT}\r\n\r\n"
    )
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

/// Writes a text frame, masked as a client would or not.
pub(crate) fn send(stream: &mut impl Write, text: &[u8], masked: bool) -> io::Result<()> {
    let mut out = vec![FIN | TEXT];
    let mask = if masked { MASKED } else { 0 };
    if let Ok(short @ ..LONG) = u8::try_from(text.len()) {
        out.push(mask | short);
    } else {
        out.push(mask | LONG);
        out.extend(u16::try_from(text.len()).map_err(io::Error::other)?.to_be_bytes());
    }
    if masked {
        out.extend(MASK);
    }
    out.extend(text);
    stream.write_all(&out)?;
    stream.flush()
}

/// Reads one frame.
pub(crate) fn receive(stream: &mut impl Read) -> io::Result<Message> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let length = match head[1] & 0x7f {
        LONG => {
            let mut long = [0; 2];
            stream.read_exact(&mut long)?;
            u64::from(u16::from_be_bytes(long))
        }
        0x7f => {
            let mut long = [0; 8];
            stream.read_exact(&mut long)?;
            u64::from_be_bytes(long)
        }
        short => u64::from(short),
    };
    let mut mask = [0; 4];
    if head[1] & MASKED != 0 {
        stream.read_exact(&mut mask)?;
    }
    let mut payload = vec![0; usize::try_from(length.min(1 << 24)).map_err(io::Error::other)?];
    stream.read_exact(&mut payload)?;
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Ok(Message { fin: head[0] & FIN != 0, opcode: head[0] & 0xf, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sent_frame_is_received_unchanged() {
        for (text, masked) in [("short", false), ("short", true), (&*"x".repeat(300), true)] {
            let mut wire = Vec::new();
            send(&mut wire, text.as_bytes(), masked).unwrap();
            let message = receive(&mut wire.as_slice()).unwrap();
            assert_eq!(
                (message.payload.as_slice(), message.fin, message.opcode),
                (text.as_bytes(), true, TEXT)
            );
        }
    }
}
