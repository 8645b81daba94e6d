//! Scrubs what an upstream sends over a WebSocket (RFC 6455 section 5.2), frame by frame.
//!
//! Extensions are never negotiated, so payloads are not compressed, and a server does not mask. Scrubbing keeps
//! lengths, so frames stay as they are. A value that the upstream cuts into two frames is not recognised.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::scrub::Scrubber;

/// Read from the upstream at once.
const CHUNK: usize = 16 * 1024;

/// An upstream's side of a WebSocket, scrubbed as it is read.
#[derive(Debug)]
pub(super) struct ScrubbedFrames<S> {
    stream: S,
    frames: Frames,
    input: Box<[u8]>,
    clean: BytesMut,
    hits: Arc<AtomicU64>,
}

impl<S> ScrubbedFrames<S> {
    /// Counts matches into `hits`.
    pub(super) fn new(stream: S, scrubber: Scrubber, hits: Arc<AtomicU64>) -> ScrubbedFrames<S> {
        let frames = Frames { scrubber, state: State::Head(Vec::new()) };
        ScrubbedFrames { stream, frames, input: vec![0; CHUNK].into(), clean: BytesMut::new(), hits }
    }
}

/// Follows the frames of one direction.
#[derive(Debug)]
struct Frames {
    scrubber: Scrubber,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Within a frame's head, with what is there of it.
    Head(Vec<u8>),
    /// Within a payload of which so many bytes are to come.
    Payload(u64),
}

impl Frames {
    fn push(&mut self, mut bytes: Bytes, clean: &mut BytesMut) {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Head(head) => {
                    head.push(bytes.get_u8());
                    if let Some(length) = payload_length(head) {
                        clean.extend_from_slice(head);
                        self.state =
                            if length == 0 { State::Head(Vec::new()) } else { State::Payload(length) };
                    }
                }
                State::Payload(left) => {
                    let take = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    *left -= u64::try_from(take).unwrap_or(u64::MAX);
                    let ended = *left == 0;
                    clean.extend_from_slice(&self.scrubber.push(bytes.split_to(take)));
                    if ended {
                        clean.extend_from_slice(&self.scrubber.finish());
                        self.state = State::Head(Vec::new());
                    }
                }
            }
        }
    }
}

/// The payload's length once the head is complete, its masking key included.
fn payload_length(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (length, extended) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(head.get(2..4)?.try_into().ok()?)), 2),
        127 => (u64::from_be_bytes(head.get(2..10)?.try_into().ok()?), 8),
        short => (u64::from(short), 0),
    };
    (head.len() == 2 + extended + mask).then_some(length)
}

impl<S: AsyncRead + Unpin> AsyncRead for ScrubbedFrames<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.clean.is_empty() {
            let mut input = ReadBuf::new(&mut this.input);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut input))?;
            if input.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.frames.push(Bytes::copy_from_slice(input.filled()), &mut this.clean);
            this.hits.store(this.frames.scrubber.hits(), Ordering::Relaxed);
        }
        let take = this.clean.len().min(buf.remaining());
        buf.put_slice(&this.clean.split_to(take));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ScrubbedFrames<S> {
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
    use crate::model::SecretValue;

    const VALUE: &[u8] = b"s3cr3t-value";

    fn frame(payload: &[u8]) -> Vec<u8> {
        let head = match u16::try_from(payload.len()).unwrap() {
            short @ ..126 => vec![0x81, u8::try_from(short).unwrap()],
            long => [&[0x81, 126], &long.to_be_bytes()[..]].concat(),
        };
        [head, payload.to_vec()].concat()
    }

    #[test]
    fn payloads_are_scrubbed_and_frames_kept_in_every_chunking() {
        let long = [vec![b'x'; 200], VALUE.to_vec(), vec![b's'; 3]].concat();
        let stream = [frame(b"says s3cr3t-value!"), frame(b""), frame(b"ends in s"), frame(&long)].concat();
        let masked = [vec![b'x'; 200], vec![b'*'; VALUE.len()], vec![b's'; 3]].concat();
        let expected =
            [frame(b"says ************!"), frame(b""), frame(b"ends in s"), frame(&masked)].concat();
        for size in 1..stream.len() {
            let mut scrubber = Scrubber::default();
            scrubber.watch(&SecretValue::new(VALUE.to_vec()).unwrap());
            let mut frames = Frames { scrubber, state: State::Head(Vec::new()) };
            let mut clean = BytesMut::new();
            for chunk in stream.chunks(size) {
                frames.push(Bytes::copy_from_slice(chunk), &mut clean);
            }
            assert_eq!(clean, expected, "{size}");
            assert_eq!(frames.scrubber.hits(), 2);
        }
    }

    #[test]
    fn a_frame_is_not_held_back_for_what_may_follow() {
        let mut scrubber = Scrubber::default();
        scrubber.watch(&SecretValue::new(VALUE.to_vec()).unwrap());
        let mut frames = Frames { scrubber, state: State::Head(Vec::new()) };
        let mut clean = BytesMut::new();
        let sent = frame(b"this ends in s3cr3t");
        frames.push(Bytes::from(sent.clone()), &mut clean);
        assert_eq!(clean, sent);
    }
}
