//! Reads along what an agent sends over a WebSocket (RFC 6455 section 5), and searches its messages.
//!
//! Nothing is changed and nothing is refused: a frame that the upstream does not like is the upstream's to refuse.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::content_scan::ContentScan;

/// Bytes that are unmasked at a time.
const STEP: usize = 1024;
/// Longest head of a frame: two bytes, a length of eight, a mask of four.
const HEAD: usize = 14;

/// An agent's side of a WebSocket, searched as it is read.
#[derive(Debug)]
pub(super) struct ScannedFrames<S> {
    stream: S,
    frames: ClientFrames,
}

impl<S> ScannedFrames<S> {
    /// Searches with `scan`.
    pub(super) fn new(stream: S, scan: ContentScan) -> ScannedFrames<S> {
        ScannedFrames { stream, frames: ClientFrames::new(scan) }
    }
}

/// Follows a client's frames.
#[derive(Debug)]
struct ClientFrames {
    head: [u8; HEAD],
    /// So many bytes of the head are there.
    have: usize,
    payload: Option<Payload>,
    /// Messages may be cut into frames anywhere; control frames come between.
    messages: ContentScan,
    control: ContentScan,
}

/// A frame's payload under way.
#[derive(Debug, Clone, Copy)]
struct Payload {
    left: u64,
    mask: [u8; 4],
    /// The place in the mask of the next byte.
    at: usize,
    is_control: bool,
    is_last: bool,
}

impl ClientFrames {
    fn new(scan: ContentScan) -> ClientFrames {
        ClientFrames { head: [0; HEAD], have: 0, payload: None, control: scan.clone(), messages: scan }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while let Some(&first) = bytes.first() {
            let Some(payload) = self.payload else {
                self.head[self.have] = first;
                self.have += 1;
                bytes = &bytes[1..];
                if let Some(payload) = parse(&self.head[..self.have]) {
                    self.have = 0;
                    self.go_on(payload);
                }
                continue;
            };
            let length = usize::try_from(payload.left).unwrap_or(usize::MAX).min(bytes.len()).min(STEP);
            self.search(payload, &bytes[..length]);
            bytes = &bytes[length..];
        }
    }

    /// Searches the next bytes of a payload.
    fn search(&mut self, mut payload: Payload, masked: &[u8]) {
        let mut plain = [0; STEP];
        let plain = &mut plain[..masked.len()];
        for (to, from) in plain.iter_mut().zip(masked) {
            *to = from ^ payload.mask[payload.at & 3];
            payload.at += 1;
        }
        (if payload.is_control { &mut self.control } else { &mut self.messages }).push(plain);
        payload.left -= u64::try_from(masked.len()).unwrap_or(payload.left);
        payload.at &= 3;
        self.go_on(payload);
    }

    /// Goes on with a payload of which something may be left.
    fn go_on(&mut self, payload: Payload) {
        self.payload = (payload.left > 0).then_some(payload);
        if payload.left == 0 && payload.is_control {
            self.control.end_message();
        } else if payload.left == 0 && payload.is_last {
            self.messages.end_message();
        }
    }
}

/// Reads a head; `None` while it is not complete.
fn parse(head: &[u8]) -> Option<Payload> {
    let &[first, second, ref rest @ ..] = head else { return None };
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let masked = if second & 0x80 != 0 { 4 } else { 0 };
    if rest.len() < extended + masked {
        return None;
    }
    let long = rest[..extended].iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
    let left = if extended == 0 { u64::from(second & 0x7f) } else { long };
    let mask = rest[extended..].try_into().unwrap_or_default();
    Some(Payload { left, mask, at: 0, is_control: first & 0x08 != 0, is_last: first & 0x80 != 0 })
}

impl<S: AsyncRead + Unpin> AsyncRead for ScannedFrames<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.frames.push(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ScannedFrames<S> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let check = |head: &[u8], left: u64, mask: [u8; 4], is_control: bool, is_last: bool| {
            for short in 0..head.len() {
                assert!(parse(&head[..short]).is_none(), "{head:?} {short}");
            }
            let payload = parse(head).unwrap();
            assert_eq!((payload.left, payload.mask), (left, mask), "{head:?}");
            assert_eq!((payload.is_control, payload.is_last), (is_control, is_last), "{head:?}");
        };
        check(&[0x81, 0x85, 1, 2, 3, 4], 5, [1, 2, 3, 4], false, true);
        check(&[0x01, 0xfe, 1, 0, 1, 2, 3, 4], 256, [1, 2, 3, 4], false, false);
        check(&[0x89, 0x80, 1, 2, 3, 4], 0, [1, 2, 3, 4], true, true);
        check(&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 9, 8, 7, 6], 65_536, [9, 8, 7, 6], false, true);
        // No client may leave the mask out; read as it stands all the same.
        check(&[0x82, 0x03], 3, [0; 4], false, true);
    }
}
