//! A response's body, scrubbed while it streams.
//!
//! The number, size and time of outgoing frames depend on the upstream's bytes and on the public classes of the
//! watched values. They never depend on a value that is not in the response.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::http::body::{BodyError, len};
use crate::http::fields::head_size::size_of;
use crate::http::fields::trailers::clean_response;
use crate::http::h1::MAX_HEAD;
use crate::http::scrub::Scrubber;
use crate::limits::idle_timeout::IdleTimeout;

/// Bytes that are searched before other tasks run.
const TURN: usize = 16 << 10;

/// The reason that a body breaks off.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The upstream was silent for too long.
    Silent,
    /// The upstream's connection or data failed.
    Upstream(BodyError),
    /// The scrubber's guard cut it off.
    Withheld,
    /// The body cannot be searched for the values that its host has now.
    Unsearchable,
}

/// A body that is being streamed. It is not a [`HttpBody`] itself, because the caller accounts for its end and its
/// errors.
#[derive(Debug)]
pub(super) struct ScrubbedBody<S> {
    /// `None` after the body was cut off.
    source: Option<S>,
    scrubber: Scrubber,
    trailers: Option<HeaderMap>,
    /// Set after the upstream's last frame, or if there is no body. A body after HEAD, 204 or 304 is not forwarded.
    ended: bool,
    idle_timeout: IdleTimeout,
    /// How long held bytes wait for later bytes, if that is limited.
    flush: Option<IdleTimeout>,
    /// Bytes that were searched in this turn.
    searched: usize,
}

impl<S: HttpBody<Data = Bytes, Error = BodyError> + Unpin> ScrubbedBody<S> {
    /// Scrubs `source`, which may be silent for as long as `idle_timeout` allows. `ended` is set if there is no body.
    pub(crate) fn new(
        source: S,
        scrubber: Scrubber,
        idle_timeout: IdleTimeout,
        ended: bool,
    ) -> ScrubbedBody<S> {
        let flush = scrubber.flush_after().map(IdleTimeout::new);
        ScrubbedBody {
            source: Some(source),
            scrubber,
            trailers: None,
            ended,
            idle_timeout,
            flush,
            searched: 0,
        }
    }

    /// Drops the upstream's further data, and the held bytes.
    pub(crate) fn cut(&mut self) {
        (self.source, self.trailers) = (None, None);
    }

    /// The source; `None` after it was cut off.
    pub(crate) fn source(&self) -> Option<&S> {
        self.source.as_ref()
    }

    /// The scrubber.
    pub(crate) fn scrubber(&self) -> &Scrubber {
        &self.scrubber
    }

    /// Returns whether the body must end, because it cannot be searched for the values that its host has now.
    pub(crate) fn is_blind_now(&mut self) -> bool {
        self.scrubber.is_blind_now()
    }

    /// Returns whether the upstream's last frame was received.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Returns whether no further frame comes.
    pub(crate) fn is_end(&self) -> bool {
        (self.ended || self.source.as_ref().is_some_and(HttpBody::is_end_stream))
            && self.trailers.is_none()
            && self.scrubber.held() == 0
    }

    /// Scrubbing does not change lengths, so the remaining length is that of the upstream plus the held bytes.
    pub(crate) fn size_hint(&self) -> SizeHint {
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

    /// The next frame; `None` after the last.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        loop {
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            if self.searched >= TURN {
                // A text with many escapes takes long. Two such streams must not block all others.
                self.searched = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some(source) = self.source.as_mut().filter(|_| !self.ended) else { return Poll::Ready(None) };
            let clean = match Pin::new(&mut *source).poll_frame(cx) {
                Poll::Pending => match self.poll_pause(cx) {
                    Poll::Ready(clean) => clean,
                    Poll::Pending if self.idle_timeout.poll_over(cx).is_ready() => {
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

    /// Restarts the timeouts, because the upstream sent data.
    fn renew(&mut self) {
        self.idle_timeout.renew();
        IdleTimeout::renew_with(&mut self.flush, self.scrubber.flush_after());
    }

    /// Waits for the end of the pause after which held bytes are sent without later ones.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Fault>> {
        let Some(flush) = self.flush.as_mut().filter(|_| self.scrubber.held() > 0) else {
            return Poll::Pending;
        };
        flush.poll_over(cx).map(|()| {
            flush.renew();
            Ok(self.scrubber.finish())
        })
    }

    /// Returns the part of a frame that can be sent. The last frame includes all held bytes.
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
            let error = "more bytes may begin a secret value than the daemon can hold";
            return Err(Fault::Upstream(error.into()));
        }
        Ok(clean)
    }
}

/// Returns a length in bytes as the counters' type.
pub(super) fn data_len(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| len(data))
}

#[cfg(test)]
mod tests;
