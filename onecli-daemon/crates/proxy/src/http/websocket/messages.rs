//! Scrubs the messages that an upstream sends over a WebSocket (RFC 6455 section 5).
//!
//! No extension is negotiated, so payloads are not compressed, and a server does not mask. Frames that violate this
//! end the connection. Scrubbing does not change lengths, so frames remain as they are; a message may be split into
//! frames anywhere.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::frame_head::FrameHead;
use super::read_filter::{Filter, Filtered};
use crate::http::response::returned::withheld;
use crate::http::scrub::Scrubber;
use crate::limits::idle_timeout::IdleTimeout;

/// Bytes that are read from the upstream at once.
const CHUNK: usize = 16 * 1024;
/// Maximum number of heads that wait until the payload before them is decided. It exceeds the number of plain bytes
/// that can be held.
const MAX_WAITING: usize = 2048;

/// The opcode of a close frame.
const CLOSE: u8 = 8;
/// Length of a control frame's head.
const CONTROL_HEAD: usize = 2;

/// Matches on a WebSocket, readable while it is open.
#[derive(Debug, Default)]
pub(crate) struct Hits {
    count: AtomicU64,
    is_searched: AtomicBool,
}

impl Hits {
    /// Number of matches so far; `None` if there was no value to search for.
    pub(super) fn count(&self) -> Option<u64> {
        self.is_searched.load(Ordering::Relaxed).then(|| self.count.load(Ordering::Relaxed))
    }

    fn note(&self, scrubber: &Scrubber) {
        self.count.store(scrubber.hits(), Ordering::Relaxed);
        self.is_searched.store(!scrubber.is_idle(), Ordering::Relaxed);
    }
}

/// Wraps an upstream's side of a WebSocket, which is scrubbed as it is read. Matches are counted in `hits`.
pub(crate) fn scrubbed<S>(stream: S, scrubber: Scrubber, hits: Arc<Hits>) -> Filtered<S, Scrubbing> {
    let input = vec![0; CHUNK].into();
    let flush = scrubber.flush_after().map(IdleTimeout::new);
    hits.note(&scrubber);
    Filtered::new(
        stream,
        Scrubbing { frames: H2ErrorMonitor::new(scrubber), input, clean: BytesMut::new(), hits, flush },
    )
}

/// Scrubs the bytes that are read.
#[derive(Debug)]
pub(crate) struct Scrubbing {
    frames: H2ErrorMonitor,
    input: Box<[u8]>,
    clean: BytesMut,
    hits: Arc<Hits>,
    /// How long held bytes wait for later bytes, if that is limited.
    flush: Option<IdleTimeout>,
}

/// Parses the frames of one direction.
///
/// The payloads of a message pass through the scrubber as one stream. Frame heads and control frames between them
/// wait until the preceding payload is decided.
#[derive(Debug)]
struct H2ErrorMonitor {
    scrubber: Scrubber,
    state: State,
    /// Number of payload bytes of messages that went into the scrubber, and that came out of it.
    pushed: u64,
    emitted: u64,
    /// Frame heads and control frames, with the number of payload bytes that precede each.
    waiting: VecDeque<(u64, Bytes)>,
}

#[derive(Debug)]
enum State {
    /// Within a frame's head, with the bytes received so far.
    Head(Vec<u8>),
    /// Within a data frame with `left` bytes to come; `last` is set for the last frame of its message.
    Payload { left: u64, last: bool },
    /// Within a control frame, head and payload.
    Control { frame: BytesMut, left: usize },
}

impl H2ErrorMonitor {
    fn new(scrubber: Scrubber) -> H2ErrorMonitor {
        H2ErrorMonitor {
            scrubber,
            state: State::Head(Vec::new()),
            pushed: 0,
            emitted: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Processes bytes from the upstream, and appends those that are certainly clean.
    fn push(&mut self, mut bytes: Bytes, clean: &mut BytesMut) -> io::Result<()> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Head(head) => {
                    head.push(bytes.get_u8());
                    if let Some(frame) = parse(head)? {
                        let head = Bytes::copy_from_slice(head);
                        self.begin(&frame, head, clean)?;
                    }
                }
                State::Payload { left, last } => {
                    let take = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    *left -= length(take);
                    let (ended, last) = (*left == 0, *last);
                    self.pushed += length(take);
                    let out = self.scrubber.push(bytes.split_to(take));
                    if self.scrubber.is_overrun() {
                        return Err(invalid("more bytes may begin a secret value than the daemon can hold"));
                    }
                    self.emit(out, clean);
                    if ended {
                        self.end_data(last, clean);
                    }
                }
                State::Control { frame, left } => {
                    let take = (*left).min(bytes.len());
                    *left -= take;
                    frame.extend_from_slice(&bytes.split_to(take));
                    if *left == 0 {
                        let mut frame = std::mem::take(frame);
                        self.state = State::Head(Vec::new());
                        if frame[0] & 0x0f == CLOSE {
                            // No message continues after a close frame.
                            self.release(clean);
                        }
                        // A ping or a close reason is complete in itself, even between frames of a message.
                        self.scrubber.whole(&mut frame[CONTROL_HEAD..]);
                        self.wait(frame.freeze(), clean)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, frame: &FrameHead, head: Bytes, clean: &mut BytesMut) -> io::Result<()> {
        if frame.is_control() {
            let left = usize::try_from(frame.length).unwrap_or(usize::MAX);
            self.state = State::Control { frame: BytesMut::from(&head[..]), left };
            if left == 0 {
                self.state = State::Head(Vec::new());
                if frame.opcode == CLOSE {
                    self.release(clean);
                }
                self.wait(head, clean)?;
            }
            return Ok(());
        }
        self.wait(head, clean)?;
        self.state = State::Payload { left: frame.length, last: frame.is_last };
        if frame.length == 0 {
            self.end_data(frame.is_last, clean);
        }
        Ok(())
    }

    /// Ends a data frame. After the last frame of a message, no match can continue.
    fn end_data(&mut self, last: bool, clean: &mut BytesMut) {
        self.state = State::Head(Vec::new());
        if last {
            self.release(clean);
        }
    }

    /// Releases the held bytes, because no later byte can continue their match.
    fn release(&mut self, clean: &mut BytesMut) {
        let rest = self.scrubber.finish();
        self.emit(rest, clean);
    }

    /// Puts `bytes` after all payload so far.
    fn wait(&mut self, bytes: Bytes, clean: &mut BytesMut) -> io::Result<()> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(invalid("too many short frames"));
        }
        self.waiting.push_back((self.pushed, bytes));
        self.emit(Bytes::new(), clean);
        Ok(())
    }

    /// Appends payload, and the waiting bytes at their positions in it.
    fn emit(&mut self, mut payload: Bytes, clean: &mut BytesMut) {
        loop {
            match self.waiting.front() {
                Some((at, _)) if *at <= self.emitted => {
                    if let Some((_, bytes)) = self.waiting.pop_front() {
                        clean.extend_from_slice(&bytes);
                    }
                }
                Some((at, _)) if *at - self.emitted < length(payload.len()) => {
                    let take = usize::try_from(*at - self.emitted).unwrap_or(payload.len());
                    self.emitted += length(take);
                    clean.extend_from_slice(&payload.split_to(take));
                }
                _ if payload.is_empty() => return,
                _ => {
                    self.emitted += length(payload.len());
                    clean.extend_from_slice(&std::mem::take(&mut payload));
                }
            }
        }
    }
}

/// Parses a head; `None` while it is incomplete.
///
/// # Errors
/// A frame that no server may send without an extension: reserved bits or opcodes, a mask, a long control frame.
fn parse(head: &[u8]) -> io::Result<Option<FrameHead>> {
    let &[first, second, ..] = head else { return Ok(None) };
    let opcode = first & 0x0f;
    if first & 0x70 != 0 {
        return Err(invalid("reserved bits are set: an extension that was not negotiated"));
    }
    if !matches!(opcode, 0..=2 | 8..=10) {
        return Err(invalid("a reserved opcode"));
    }
    if second & 0x80 != 0 {
        return Err(invalid("a server's frame is masked"));
    }
    if opcode >= 8 && second & 0x7f > 125 {
        return Err(invalid("a control frame of more than 125 bytes"));
    }
    let frame = FrameHead::parse(head);
    if frame.is_some_and(|frame| frame.length >> 63 != 0) {
        return Err(invalid("a length of more than 63 bits"));
    }
    Ok(frame)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the upstream's WebSocket: {what}"))
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

impl<S: AsyncRead> Filter<S> for Scrubbing {
    fn poll_read(
        &mut self,
        mut stream: Pin<&mut S>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.clean.is_empty() {
            let mut input = ReadBuf::new(&mut self.input);
            match stream.as_mut().poll_read(cx, &mut input)? {
                Poll::Ready(()) if input.filled().is_empty() => {
                    self.frames.release(&mut self.clean);
                    break;
                }
                Poll::Ready(()) => {
                    self.frames.push(Bytes::copy_from_slice(input.filled()), &mut self.clean)?;
                    IdleTimeout::renew_with(&mut self.flush, self.frames.scrubber.flush_after());
                }
                Poll::Pending => {
                    let Some(flush) = self.flush.as_mut().filter(|_| self.frames.scrubber.held() > 0) else {
                        return Poll::Pending;
                    };
                    ready!(flush.poll_over(cx));
                    flush.renew();
                    self.frames.release(&mut self.clean);
                }
            }
        }
        self.hits.note(&self.frames.scrubber);
        if self.frames.scrubber.is_cut() {
            self.clean.clear();
            return Poll::Ready(Err(io::Error::other(withheld())));
        }
        let take = self.clean.len().min(buf.remaining());
        buf.put_slice(&self.clean.split_to(take));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use onecli_model::{SecretValue, WireForm};

    use super::*;

    const VALUE: &[u8] = b"s3cr3t-value";

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let head = match u16::try_from(payload.len()).unwrap() {
            short @ ..126 => vec![first, u8::try_from(short).unwrap()],
            long => [&[first, 126], &long.to_be_bytes()[..]].concat(),
        };
        [head, payload.to_vec()].concat()
    }

    fn frames() -> H2ErrorMonitor {
        let mut scrubber = Scrubber::default();
        scrubber.add_forms(&WireForm::plain(&SecretValue::new(VALUE.to_vec()).unwrap()));
        H2ErrorMonitor::new(scrubber)
    }

    fn check(sent: &[Vec<u8>], expected: &[Vec<u8>], hits: u64) {
        let (sent, expected) = (sent.concat(), expected.concat());
        for size in 1..=sent.len() {
            let mut frames = frames();
            let mut clean = BytesMut::new();
            for chunk in sent.chunks(size) {
                frames.push(Bytes::copy_from_slice(chunk), &mut clean).unwrap();
            }
            assert_eq!(clean, expected, "{size}");
            assert_eq!(frames.scrubber.hits(), hits, "{size}");
        }
    }

    #[test]
    fn payloads_are_scrubbed_and_frames_unchanged_in_every_chunking() {
        let long = [vec![b'x'; 200], VALUE.to_vec(), vec![b's'; 3]].concat();
        let masked = [vec![b'x'; 200], vec![b'*'; VALUE.len()], vec![b's'; 3]].concat();
        check(
            &[
                frame(0x81, b"says s3cr3t-value!"),
                frame(0x82, b""),
                frame(0x81, b"ends in s"),
                frame(0x81, &long),
            ],
            &[
                frame(0x81, b"says ************!"),
                frame(0x82, b""),
                frame(0x81, b"ends in s"),
                frame(0x81, &masked),
            ],
            2,
        );
    }

    #[test]
    fn value_split_by_frames_and_a_ping_is_found() {
        check(
            &[
                frame(0x01, b"a s3cr"),
                frame(0x89, b"s3cr3t-value"),
                frame(0x00, b"3t-v"),
                frame(0x80, b"alue b"),
            ],
            &[
                frame(0x01, b"a ****"),
                frame(0x89, b"************"),
                frame(0x00, b"****"),
                frame(0x80, b"**** b"),
            ],
            2,
        );
        check(
            &[frame(0x01, b"a s3cr"), frame(0x80, b"et")],
            &[frame(0x01, b"a s3cr"), frame(0x80, b"et")],
            0,
        );
    }

    #[test]
    fn complete_message_is_not_held_back() {
        let mut clean = BytesMut::new();
        let sent = frame(0x81, b"this ends in s3cr3t");
        frames().push(Bytes::from(sent.clone()), &mut clean).unwrap();
        assert_eq!(clean, sent);
    }

    /// The interrupted message does not continue, and a client answers a close frame only after it has received it.
    #[test]
    fn close_frame_releases_held_bytes() {
        for close in [frame(0x88, b""), frame(0x88, b"\x03\xe8bye")] {
            let (mut clean, sent) = (BytesMut::new(), [frame(0x01, b"a s3cr"), close].concat());
            frames().push(Bytes::from(sent.clone()), &mut clean).unwrap();
            assert_eq!(clean, sent);
        }
    }

    #[test]
    fn frames_that_require_an_extension_end_the_connection() {
        for bad in
            [&[0xc1, 0x01][..], &[0xa1, 0x00], &[0x91, 0x00], &[0x81, 0x81], &[0x83, 0x00], &[0x89, 126]]
        {
            let pushed = frames().push(Bytes::copy_from_slice(bad), &mut BytesMut::new());
            assert_eq!(pushed.unwrap_err().kind(), io::ErrorKind::InvalidData, "{bad:?}");
        }
    }
}
