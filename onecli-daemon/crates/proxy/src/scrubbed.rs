//! A response's body, scrubbed while it streams.
//!
//! Which frames come out, how large they are and when they come depends on the upstream's bytes and on the public classes
//! of the watched values, never on a value that is not in the response.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::body::{BodyError, len};
use super::front::MAX_HEAD;
use super::head_size::size_of;
use super::patience::Patience;
use super::scrub::Scrubber;
use super::trailers::clean_response;

/// Bytes that are searched before other tasks get their turn.
const TURN: usize = 16 << 10;

/// Why a body breaks off.
#[derive(Debug)]
pub(super) enum Fault {
    /// The upstream was silent for too long.
    Silent,
    /// The upstream, or what it sent.
    Upstream(BodyError),
    /// The scrubber's guard had it cut off.
    Withheld,
    /// It cannot be searched for the values that its host has by now.
    Unsearchable,
}

/// A body under way. Not a [`HttpBody`] itself: the caller has an end and an error to account for.
#[derive(Debug)]
pub(super) struct ScrubbedBody<S> {
    /// `None` once nothing more may come of it.
    source: Option<S>,
    scrubber: Scrubber,
    trailers: Option<HeaderMap>,
    /// The upstream's last frame is there, or none may come: what one sends after HEAD, a 204 or a 304 goes no further.
    ended: bool,
    patience: Patience,
    /// How long held bytes wait for the bytes behind them, where that has an end.
    flush: Option<Patience>,
    /// Bytes searched in this turn.
    searched: usize,
}

impl<S: HttpBody<Data = Bytes, Error = BodyError> + Unpin> ScrubbedBody<S> {
    /// Of `source`, which may be silent for as long as `patience` says. `ended` where there is no body.
    pub(super) fn new(source: S, scrubber: Scrubber, patience: Patience, ended: bool) -> ScrubbedBody<S> {
        let flush = scrubber.flush_after().map(Patience::new);
        ScrubbedBody { source: Some(source), scrubber, trailers: None, ended, patience, flush, searched: 0 }
    }

    /// Drops what the upstream still sends, and what is held.
    pub(super) fn cut(&mut self) {
        (self.source, self.trailers) = (None, None);
    }

    /// What is scrubbed; `None` once it was cut off.
    pub(super) fn source(&self) -> Option<&S> {
        self.source.as_ref()
    }

    /// What looks for the values.
    pub(super) fn scrubber(&self) -> &Scrubber {
        &self.scrubber
    }

    /// Must it end, because it cannot be searched for the values that its host has by now?
    pub(super) fn is_blind_now(&mut self) -> bool {
        self.scrubber.is_blind_now()
    }

    /// Whether the upstream's last frame was taken.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether nothing more comes.
    pub(super) fn is_end(&self) -> bool {
        (self.ended || self.source.as_ref().is_some_and(HttpBody::is_end_stream))
            && self.trailers.is_none()
            && self.scrubber.held() == 0
    }

    /// Scrubbing keeps lengths, so what is left is what the upstream still has and what is held.
    pub(super) fn size_hint(&self) -> SizeHint {
        if self.ended {
            return SizeHint::default();
        }
        let held = u64::try_from(self.scrubber.held()).unwrap_or(u64::MAX);
        let inner = self.source.as_ref().map(HttpBody::size_hint).unwrap_or_default();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(held));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }

    /// The next frame; `None` behind the last.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        loop {
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            if self.searched >= TURN {
                // A text of many escapes takes long: two such streams must not stop everybody else's.
                self.searched = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some(source) = self.source.as_mut().filter(|_| !self.ended) else { return Poll::Ready(None) };
            let clean = match Pin::new(&mut *source).poll_frame(cx) {
                Poll::Pending => match self.poll_pause(cx) {
                    Poll::Ready(clean) => clean,
                    Poll::Pending if self.patience.poll_over(cx).is_ready() => {
                        return Poll::Ready(Some(Err(Fault::Silent)));
                    }
                    Poll::Pending => return Poll::Pending,
                },
                Poll::Ready(None) => {
                    self.ended = true;
                    Ok(self.scrubber.finish())
                }
                Poll::Ready(Some(Err(error))) => Err(Fault::Upstream(error)),
                Poll::Ready(Some(Ok(frame))) => {
                    let is_last = source.is_end_stream();
                    let clean = self.take(frame, is_last);
                    self.renew();
                    clean
                }
            };
            if self.scrubber.is_cut() {
                return Poll::Ready(Some(Err(Fault::Withheld)));
            }
            match clean {
                Ok(clean) if clean.is_empty() => {}
                clean => return Poll::Ready(Some(clean.map(Frame::data))),
            }
        }
    }

    /// Something came of the upstream.
    fn renew(&mut self) {
        self.patience.renew();
        Patience::renew_with(&mut self.flush, self.scrubber.flush_after());
    }

    /// Waits for the end of the pause behind which held bytes go on without those that follow.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Fault>> {
        let Some(flush) = self.flush.as_mut().filter(|_| self.scrubber.held() > 0) else {
            return Poll::Pending;
        };
        flush.poll_over(cx).map(|()| {
            flush.renew();
            Ok(self.scrubber.finish())
        })
    }

    /// What can go on of a frame. The last one goes with all that is held: one frame.
    fn take(&mut self, frame: Frame<Bytes>, is_last: bool) -> Result<Bytes, Fault> {
        if !self.scrubber.is_idle() {
            self.searched += frame.data_ref().map_or(0, Bytes::len);
        }
        let clean = match frame.into_data() {
            Ok(data) if is_last => self.scrubber.push_last(data),
            Ok(data) => self.scrubber.push(data),
            Err(frame) => {
                let Ok(mut trailers) = frame.into_trailers() else { return Ok(Bytes::new()) };
                if size_of(&trailers) > MAX_HEAD {
                    let error = format!("the response's trailers have more than {MAX_HEAD} bytes");
                    return Err(Fault::Upstream(error.into()));
                }
                clean_response(&mut trailers);
                let rest = self.scrubber.finish();
                self.scrubber.headers(&mut trailers);
                self.trailers = Some(trailers);
                self.ended = true;
                rest
            }
        };
        if self.scrubber.is_blind() {
            return Err(Fault::Unsearchable);
        }
        if self.scrubber.is_overrun() {
            let error = "more bytes look like the beginning of a value than can be held";
            return Err(Fault::Upstream(error.into()));
        }
        Ok(clean)
    }
}

/// A length in bytes, as the counters have it.
pub(super) fn data_len(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| len(data))
}

#[cfg(test)]
mod tests;
