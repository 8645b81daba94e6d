//! Reads an agent's WebSocket traffic (RFC 6455 section 5), and searches its messages.
//!
//! Nothing is changed or refused here. The upstream itself refuses frames that it does not accept.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::frame_head::{FrameHead, LONGEST};
use super::read_filter::{Filter, Filtered};
use crate::http::placeholders::content_scan::ContentScan;

/// Bytes that are unmasked at a time.
const STEP: usize = 1024;

/// Wraps an agent's side of a WebSocket, which `scan` searches as it is read.
pub(crate) fn scanned<S>(stream: S, scan: ContentScan) -> Filtered<S, ClientFrames> {
    Filtered::new(stream, ClientFrames::new(scan))
}

/// Parses a client's frames.
#[derive(Debug)]
pub(super) struct ClientFrames {
    head: [u8; LONGEST],
    /// Number of head bytes received so far.
    have: usize,
    payload: Option<Payload>,
    /// Messages may be split into frames anywhere, with control frames between them.
    messages: ContentScan,
    control: ContentScan,
}

/// The payload of the current frame.
#[derive(Debug, Clone, Copy)]
struct Payload {
    left: u64,
    mask: [u8; 4],
    /// The position of the next byte in the mask.
    at: usize,
    is_control: bool,
    is_last: bool,
}

impl ClientFrames {
    fn new(scan: ContentScan) -> ClientFrames {
        ClientFrames { head: [0; LONGEST], have: 0, payload: None, control: scan.clone(), messages: scan }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while let Some(&first) = bytes.first() {
            let Some(payload) = self.payload else {
                self.head[self.have] = first;
                self.have += 1;
                bytes = &bytes[1..];
                if let Some(head) = FrameHead::parse(&self.head[..self.have]) {
                    self.have = 0;
                    self.go_on(Payload::of(head));
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

    /// Continues with a payload that may have bytes left.
    fn go_on(&mut self, payload: Payload) {
        self.payload = (payload.left > 0).then_some(payload);
        if payload.left == 0 && payload.is_control {
            self.control.end_message();
        } else if payload.left == 0 && payload.is_last {
            self.messages.end_message();
        }
    }
}

impl Payload {
    /// Returns the whole payload of a frame.
    fn of(head: FrameHead) -> Payload {
        let FrameHead { is_last, length, mask, .. } = head;
        Payload { left: length, mask, at: 0, is_control: head.is_control(), is_last }
    }
}

impl<S: AsyncRead> Filter<S> for ClientFrames {
    fn poll_read(
        &mut self,
        stream: Pin<&mut S>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(stream.poll_read(cx, buf))?;
        self.push(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}
