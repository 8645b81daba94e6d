//! A strict reader of HTTP/1 in front of hyper.
//!
//! hyper repairs requests that must be refused here: it drops a `Content-Length` beside a `Transfer-Encoding`, merges
//! equal lengths, accepts bare LFs and removes fragments. What it does refuse, it answers without a body.
//! [`StrictReader`] sits between the connection and hyper. It follows the framing and passes only bytes that it has
//! checked, unchanged. In place of a malformed head, hyper reads a fixed head that cannot be forwarded. The service
//! finds the [`RejectedRequest`] in the extensions of that request. It answers and records it in order, after the
//! responses to earlier requests. Bytes after a malformed head are dropped.

mod chunks;
mod reader_handle;
mod section;
#[cfg(test)]
mod tests;
mod violation;

pub(crate) use reader_handle::{ReaderHandle, RejectedRequest};
pub(crate) use section::{MAX_FIELDS, MAX_HEAD, MAX_TRAILERS, no_target};
pub(crate) use violation::Violation;

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use onecli_model::Refusal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use chunks::{Chunks, Progress};
use reader_handle::Switch;
use section::{Complete, Framing, Section};

/// Returns the violation that [`StrictReader`] reported to hyper for a body with broken framing, if `error` resulted
/// from it.
pub(super) fn violation_in(error: &(dyn std::error::Error + 'static)) -> Option<Refusal> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(violation) = inner.and_then(|inner| inner.downcast_ref::<Violation>()) {
            return Some(violation.refusal());
        }
        cause = error.source();
    }
    None
}

/// Bytes of a head that are read at a time.
const READ: usize = 8 * 1024;
/// Maximum number of bytes that are read ahead while a CONNECT or an upgrade waits for its response.
const MAX_AHEAD: usize = 64 * 1024;
/// How much of the client's remaining data is read after the last response, and for how long. Without this, a reset
/// would discard the response (RFC 9112 section 9.6).
pub(crate) const LINGER_BYTES: usize = 4 << 20;
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(2);

/// The head that hyper reads in place of a malformed one; the method decides whether the response may have content.
/// If the service misses the [`RejectedRequest`], the request still cannot be forwarded: `.invalid` never resolves (RFC
/// 6761 section 6.4).
const IN_PLACE: &[u8] = b"GET / HTTP/1.1\r\nHost: malformed.invalid\r\nConnection: close\r\n\r\n";
const IN_PLACE_OF_HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nHost: malformed.invalid\r\nConnection: close\r\n\r\n";

/// The part of the message that the next byte belongs to.
#[derive(Debug)]
enum State {
    /// A head.
    Head,
    /// A body with this many bytes left.
    Body(u64),
    /// The chunks of a body.
    Chunked(Chunks),
    /// The trailer section of a chunked body.
    Trailers,
    /// Unknown until the head of this number is answered, because it asked to leave HTTP/1.
    Undecided(u64),
    /// Another protocol.
    Raw,
    /// None: the connection ends after the pending responses.
    Refused,
    /// None: the last request's body broke its framing. `Some` until hyper has got the violation.
    Broken(Option<Violation>),
}

/// Whether to run another reading step now.
enum Step {
    Again,
    /// The reader's buffer holds all available bytes. If nothing was added, there are no more.
    Done,
}

/// A connection whose requests are checked before hyper reads them.
#[derive(Debug)]
pub(super) struct StrictReader<S> {
    stream: S,
    state: State,
    /// Bytes that were read but not passed on; the current section starts at the front.
    held: BytesMut,
    /// The number of bytes in `held` that are checked.
    checked: usize,
    section: Section,
    /// Number of heads that were passed on.
    heads: u64,
    /// The number of the last head, if it asked to leave HTTP/1.
    switching: Option<u64>,
    head_time: Duration,
    /// Runs while a head is incomplete, or while the end is awaited.
    timer: Option<Pin<Box<Sleep>>>,
    /// Resolves when the connection must make room; `None` after that.
    displaced: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    handle: Arc<ReaderHandle>,
    /// Set when the client has closed its side.
    ended: bool,
    shut: bool,
    lingered: usize,
}

impl<S> StrictReader<S> {
    /// Reads requests from `stream`; each head may take `head_time` from its first byte.
    pub(super) fn new(stream: S, head_time: Duration) -> (StrictReader<S>, Arc<ReaderHandle>) {
        let handle = Arc::new(ReaderHandle::default());
        let reader = StrictReader {
            stream,
            state: State::Head,
            held: BytesMut::new(),
            checked: 0,
            section: Section::head(),
            heads: 0,
            switching: None,
            head_time,
            timer: None,
            displaced: None,
            handle: Arc::clone(&handle),
            ended: false,
            shut: false,
            lingered: 0,
        };
        (reader, handle)
    }

    /// Adds a cancellation token: when `displaced` is cancelled, an incomplete head is refused.
    pub(super) fn until(mut self, displaced: CancellationToken) -> StrictReader<S> {
        self.displaced = Some(Box::pin(displaced.cancelled_owned()));
        self
    }

    /// Returns whether every request that has begun is complete.
    pub(super) fn is_between_requests(&self) -> bool {
        match self.state {
            State::Head => self.section.is_blank(),
            State::Undecided(_) => true,
            _ => false,
        }
    }

    fn is_displaced(&mut self, cx: &mut Context<'_>) -> bool {
        self.displaced.take_if(|displaced| displaced.as_mut().poll(cx).is_ready()).is_some()
    }

    /// Replaces the current head with a fixed one.
    fn refuse(&mut self, violation: Violation) {
        let rejected = RejectedRequest::new(violation, &self.section, &self.held);
        let is_head = self.section.method(&self.held) == Some(b"HEAD");
        self.handle.refuse(self.heads, rejected);
        self.heads += 1;
        self.timer = None;
        self.held.clear();
        self.held.extend_from_slice(if is_head { IN_PLACE_OF_HEAD } else { IN_PLACE });
        self.checked = self.held.len();
        self.state = State::Refused;
    }

    /// Passes a complete head on.
    fn pass_head(&mut self, head: &Complete) {
        self.held.advance(head.bytes.start);
        self.checked = head.bytes.len();
        self.timer = None;
        self.switching = head.switches.then_some(self.heads);
        self.heads += 1;
        match head.framing {
            Framing::Length(0) => self.end_message(),
            Framing::Length(length) => self.state = State::Body(length),
            Framing::Chunked => self.state = State::Chunked(Chunks::new()),
        }
    }

    /// Ends a complete request.
    fn end_message(&mut self) {
        self.state = match self.switching.take() {
            Some(number) => State::Undecided(number),
            None => State::Head,
        };
        self.section = Section::head();
    }

    /// Checks the chunks of a body in `bytes`. Returns how many bytes may pass.
    fn chunked(state: &mut State, section: &mut Section, bytes: &[u8]) -> usize {
        let State::Chunked(chunks) = state else { return 0 };
        match chunks.advance(bytes) {
            Progress::All => bytes.len(),
            Progress::Last(length) => {
                *state = State::Trailers;
                *section = Section::trailers();
                length
            }
            Progress::Bad(length, violation) => {
                *state = State::Broken(Some(violation));
                length
            }
        }
    }
}

impl<S: AsyncRead + Unpin> StrictReader<S> {
    /// Reads into `held`. Returns the number of bytes, 0 at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.held.capacity() - self.held.len() < READ / 8 {
            self.held.reserve(READ);
        }
        let read = ready!(pin!(self.stream.read_buf(&mut self.held)).poll(cx))?;
        self.ended |= read == 0;
        Poll::Ready(Ok(read))
    }

    /// Returns whether the timer has expired. The first call starts it.
    fn is_late(&mut self, cx: &mut Context<'_>, time: Duration) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        timer.as_mut().poll(cx).is_ready()
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Step>> {
        match self.section.read(&self.held) {
            Ok(Some(head)) => self.pass_head(&head),
            Ok(None) => match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) if self.section.is_blank() => return Poll::Ready(Ok(Step::Done)),
                Poll::Ready(Ok(0)) => self.refuse(Violation::CutOff),
                Poll::Ready(read) => drop(read?),
                Poll::Pending if self.is_displaced(cx) => self.refuse(Violation::Displaced),
                Poll::Pending if self.section.is_blank() => return Poll::Pending,
                Poll::Pending if self.is_late(cx, self.head_time) => self.refuse(Violation::Slow),
                Poll::Pending => return Poll::Pending,
            },
            Err(violation) => self.refuse(violation),
        }
        Poll::Ready(Ok(Step::Again))
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        left: u64,
    ) -> Poll<io::Result<Step>> {
        let passed = if self.held.is_empty() {
            let before = buf.filled().len();
            ready!(pin!((&mut self.stream).take(left)).poll_read(cx, buf))?;
            let read = buf.filled().len() - before;
            self.ended |= read == 0;
            read
        } else {
            let there = self.held.len();
            self.checked = usize::try_from(left).map_or(there, |left| left.min(there));
            self.checked
        };
        match left.saturating_sub(u64::try_from(passed).unwrap_or(u64::MAX)) {
            0 => self.end_message(),
            left => self.state = State::Body(left),
        }
        // The next step passes the held bytes on.
        Poll::Ready(Ok(if self.checked > 0 { Step::Again } else { Step::Done }))
    }

    fn poll_chunked(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<Step>> {
        if !self.held.is_empty() {
            self.checked = Self::chunked(&mut self.state, &mut self.section, &self.held);
            return Poll::Ready(Ok(Step::Again));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        if read.is_empty() {
            self.ended = true;
            return Poll::Ready(Ok(Step::Done));
        }
        let good = Self::chunked(&mut self.state, &mut self.section, read);
        self.held.extend_from_slice(&read[good..]);
        buf.set_filled(before + good);
        Poll::Ready(Ok(if good > 0 { Step::Done } else { Step::Again }))
    }

    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Step>> {
        match self.section.read(&self.held) {
            Ok(Some(trailers)) => {
                self.checked = trailers.bytes.len();
                self.end_message();
            }
            Ok(None) => {
                if ready!(self.poll_fill(cx))? == 0 {
                    return Poll::Ready(Ok(Step::Done));
                }
            }
            Err(violation) => self.state = State::Broken(Some(violation)),
        }
        Poll::Ready(Ok(Step::Again))
    }

    fn poll_undecided(&mut self, cx: &mut Context<'_>, number: u64) -> Poll<io::Result<Step>> {
        let handle = Arc::clone(&self.handle);
        if let Poll::Ready(switch) = handle.poll_switch(number, cx) {
            self.state = match switch {
                Switch::Leaves => State::Raw,
                Switch::Stays => State::Head,
                Switch::Ends => State::Refused,
            };
            return Poll::Ready(Ok(Step::Again));
        }
        // Further bytes are read only to notice whether the client is still connected.
        if self.held.len() >= MAX_AHEAD {
            return Poll::Pending;
        }
        let read = ready!(self.poll_fill(cx))?;
        Poll::Ready(Ok(if read == 0 { Step::Done } else { Step::Again }))
    }

    /// Reads the client's remaining data, within limits, so that the last response reaches the client.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let open = !self.ended && !matches!(self.state, State::Raw);
        let idle = matches!(self.state, State::Head) && self.held.is_empty();
        while open && !idle && self.lingered < LINGER_BYTES {
            self.held.clear();
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => break,
                Poll::Ready(Ok(read)) => self.lingered += read,
                Poll::Pending if self.is_late(cx, LINGER_TIME) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StrictReader<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let reader = self.get_mut();
        loop {
            if reader.checked > 0 {
                let length = reader.checked.min(buf.remaining());
                buf.put_slice(&reader.held[..length]);
                reader.held.advance(length);
                reader.checked -= length;
                return Poll::Ready(Ok(()));
            }
            let step = match &mut reader.state {
                State::Head => ready!(reader.poll_head(cx))?,
                State::Body(left) => {
                    let left = *left;
                    ready!(reader.poll_body(cx, buf, left))?
                }
                State::Chunked(_) => ready!(reader.poll_chunked(cx, buf))?,
                State::Trailers => ready!(reader.poll_trailers(cx))?,
                State::Undecided(number) => {
                    let number = *number;
                    ready!(reader.poll_undecided(cx, number))?
                }
                State::Raw if reader.held.is_empty() => {
                    reader.held = BytesMut::new();
                    return Pin::new(&mut reader.stream).poll_read(cx, buf);
                }
                State::Raw => {
                    reader.checked = reader.held.len();
                    Step::Again
                }
                // Pending responses come first. If the stream ended here, hyper would assume that the client had
                // left.
                State::Refused => return Poll::Pending,
                State::Broken(violation) => match violation.take() {
                    Some(violation) => {
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
                    }
                    None => return Poll::Ready(Ok(())),
                },
            };
            if matches!(step, Step::Done) {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for StrictReader<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let reader = self.get_mut();
        if !reader.shut {
            ready!(Pin::new(&mut reader.stream).poll_shutdown(cx))?;
            reader.shut = true;
            reader.timer = None;
        }
        reader.poll_linger(cx).map(Ok)
    }
}
