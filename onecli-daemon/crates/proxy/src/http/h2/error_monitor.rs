//! Detects requests that the HTTP/2 layer refuses. Requests that h2 itself answers or resets never reach a service,
//! and hyper reports few of them. The outgoing frames show them (RFC 9113 section 6).

use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use onecli_model::Code;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// The frame types and the flag that are evaluated (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;

/// Refusals by the HTTP/2 layer of one connection.
#[derive(Debug, Default)]
pub(crate) struct H2Rejections {
    /// Number of requests that a service answered.
    answered: AtomicU64,
    first: OnceLock<Code>,
    noticed: Notify,
}

impl H2Rejections {
    /// Records that a service returned a response.
    pub(crate) fn answered(&self) {
        self.answered.fetch_add(1, Ordering::SeqCst);
    }

    /// Resolves at the first refusal.
    pub(crate) async fn first(&self) -> Code {
        loop {
            if let Some(code) = self.first.get() {
                return *code;
            }
            self.noticed.notified().await;
        }
    }

    /// Returns the first refusal, if there was any.
    pub(crate) fn any(&self) -> Option<Code> {
        self.first.get().copied()
    }

    fn notice(&self, code: Code) {
        if self.first.set(code).is_ok() {
            self.noticed.notify_one();
        }
    }
}

/// A connection whose outgoing frames are examined.
#[derive(Debug)]
pub(crate) struct H2ErrorMonitor<S> {
    stream: S,
    leaving: Leaving,
    rejections: Arc<H2Rejections>,
}

impl<S> H2ErrorMonitor<S> {
    /// Wraps `stream`, and reports refusals to `rejections`.
    pub(crate) fn new(stream: S, rejections: Arc<H2Rejections>) -> H2ErrorMonitor<S> {
        H2ErrorMonitor { stream, leaving: Leaving::default(), rejections }
    }

    fn follow(&mut self, bytes: &[u8]) {
        let answered = self.rejections.answered.load(Ordering::SeqCst);
        if let Some(code) = self.leaving.push(bytes, answered) {
            self.rejections.notice(code);
        }
    }
}

/// The outgoing frames so far, of a server that sends no preface.
#[derive(Debug, Default)]
struct Leaving {
    head: [u8; 9],
    head_len: usize,
    /// The first bytes of the payload, which contain all that is read of a reset or a GOAWAY.
    payload: [u8; 8],
    payload_len: usize,
    left: usize,
    /// Streams whose response has begun and not ended. Their number is limited by the number of open streams.
    open: HashSet<u32>,
    /// Number of responses that have begun.
    begun: u64,
}

impl Leaving {
    /// Examines `bytes`, when the service has `answered` this many requests. Returns the code of a refusal in them.
    fn push(&mut self, mut bytes: &[u8], answered: u64) -> Option<Code> {
        let mut refused = None;
        while !bytes.is_empty() {
            if self.head_len < self.head.len() {
                let (now, rest) = bytes.split_at(bytes.len().min(self.head.len() - self.head_len));
                self.head[self.head_len..self.head_len + now.len()].copy_from_slice(now);
                self.head_len += now.len();
                bytes = rest;
                if self.head_len < self.head.len() {
                    break;
                }
                let [a, b, c, ..] = self.head;
                self.left = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
                self.payload_len = 0;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(self.left));
            let kept = now.len().min(self.payload.len() - self.payload_len);
            self.payload[self.payload_len..self.payload_len + kept].copy_from_slice(&now[..kept]);
            self.payload_len += kept;
            self.left -= now.len();
            bytes = rest;
            if self.left == 0 {
                self.head_len = 0;
                refused = refused.or(self.judge(answered));
            }
        }
        refused
    }

    /// Judges a complete frame.
    fn judge(&mut self, answered: u64) -> Option<Code> {
        let [_, _, _, kind, flags, id @ ..] = self.head;
        let id = u32::from_be_bytes(id) & 0x7fff_ffff;
        let ends = flags & END_STREAM != 0;
        // A reset starts with its code; a GOAWAY has it after the last stream's id (RFC 9113 sections 6.4 and 6.8).
        let word =
            |at: usize| self.payload[at..at + 4].iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        let (first, second) = (word(0), word(4));
        match kind {
            HEADERS => {
                let begins = !self.open.contains(&id);
                self.begun += u64::from(begins);
                if ends {
                    self.open.remove(&id);
                } else {
                    self.open.insert(id);
                }
                // The only response that h2 sends by itself is 431, without content.
                (begins && ends && self.begun > answered).then_some(Code::HeadTooLarge)
            }
            DATA if ends => {
                self.open.remove(&id);
                None
            }
            // If a response has begun, the request was read and has its own record.
            RST_STREAM => {
                let unread = !self.open.remove(&id);
                (unread && is_fault(first)).then_some(Code::BadRequest)
            }
            GOAWAY => is_fault(second).then_some(Code::BadRequest),
            _ => None,
        }
    }
}

/// Returns whether the error code blames the other side (RFC 9113 section 7).
pub(crate) fn is_fault(code: u32) -> bool {
    const PROTOCOL_ERROR: u32 = 0x1;
    const FLOW_CONTROL_ERROR: u32 = 0x3;
    const STREAM_CLOSED: u32 = 0x5;
    const FRAME_SIZE_ERROR: u32 = 0x6;
    const COMPRESSION_ERROR: u32 = 0x9;
    const ENHANCE_YOUR_CALM: u32 = 0xb;
    matches!(
        code,
        PROTOCOL_ERROR
            | FLOW_CONTROL_ERROR
            | STREAM_CLOSED
            | FRAME_SIZE_ERROR
            | COMPRESSION_ERROR
            | ENHANCE_YOUR_CALM
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for H2ErrorMonitor<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for H2ErrorMonitor<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.follow(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let now = left.min(buf.len());
            self.follow(&buf[..now]);
            left -= now;
        }
        Poll::Ready(Ok(written))
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

    fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &id.to_be_bytes(), payload].concat()
    }

    fn reset(id: u32, code: u8) -> Vec<u8> {
        frame(RST_STREAM, 0, id, &[0, 0, 0, code])
    }

    #[test]
    fn refusals_are_distinguished_from_responses() {
        let check = |frames: &[Vec<u8>], answered: u64, expected: Option<Code>| {
            let bytes = frames.concat();
            for size in [1, 7, bytes.len()] {
                let mut leaving = Leaving::default();
                let found = bytes.chunks(size).find_map(|piece| leaving.push(piece, answered));
                assert_eq!(found, expected, "{frames:?} in pieces of {size}");
                assert!(leaving.open.len() <= 1, "{:?}", leaving.open);
            }
        };
        let settings = frame(4, 0, 0, &[0; 12]);
        let head = frame(HEADERS, 4, 1, b"head");
        check(&[settings.clone(), head.clone(), frame(DATA, END_STREAM, 1, &[3; 100])], 1, None);
        check(&[settings.clone(), head.clone(), frame(HEADERS, 5, 1, b"trailers")], 1, None);
        check(&[settings.clone(), frame(HEADERS, 5, 1, b"204")], 1, None);
        check(&[settings.clone(), frame(HEADERS, 5, 1, b"431")], 0, Some(Code::HeadTooLarge));
        check(&[settings.clone(), reset(1, 1)], 0, Some(Code::BadRequest));
        check(&[settings.clone(), reset(1, 11)], 0, Some(Code::BadRequest));
        // Codes that the daemon may send for its own reasons: refused stream, cancel, internal error, no error.
        for code in [7, 8, 2, 0] {
            check(&[settings.clone(), reset(1, code)], 0, None);
        }
        // A response that breaks off already has a record.
        check(&[head, reset(1, 1)], 1, None);
        check(&[frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 1, b'x'])], 0, Some(Code::BadRequest));
        check(&[frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])], 0, None);
    }
}
