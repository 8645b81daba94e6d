//! A request body that is returned when its connection fails, so that the request can be sent again.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot;

use super::{BodyError, RequestBody, add, len};

/// Bytes of a body that are retained until the response begins. After more bytes, the body cannot be sent again.
pub(crate) const RETAINED: usize = 16 << 10;
/// How long a failed connection may take to drop the body.
const DROPPED_WITHIN: Duration = Duration::from_millis(100);

/// A request body on one attempt. When the attempt drops it, [`Recovery`] returns it with its first bytes put back.
pub(crate) struct AttemptBody<B = RequestBody> {
    /// `None` after it is returned.
    body: Option<B>,
    /// Bytes of an earlier attempt that are sent before the rest of `body`.
    ahead: VecDeque<Bytes>,
    /// Bytes sent on this attempt.
    sent: VecDeque<Bytes>,
    sent_bytes: usize,
    /// False after more bytes were sent than are retained, or after the end was passed on.
    is_whole: bool,
    back: Option<oneshot::Sender<Returned<B>>>,
}

struct Returned<B> {
    body: B,
    ahead: VecDeque<Bytes>,
}

/// Receives the body of a failed attempt.
pub(crate) struct Recovery<B = RequestBody>(oneshot::Receiver<Returned<B>>);

impl<B> Recovery<B> {
    /// The body, ready to be sent from its beginning. `None` if too much of it was sent.
    pub(crate) async fn body(self) -> Option<(AttemptBody<B>, Recovery<B>)> {
        let returned = tokio::time::timeout(DROPPED_WITHIN, self.0).await.ok()?.ok()?;
        Some(AttemptBody::resuming(returned.body, returned.ahead))
    }
}

impl<B> fmt::Debug for Recovery<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recovery(..)")
    }
}

/// The body may contain a secret value.
impl<B> fmt::Debug for AttemptBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AttemptBody(..)")
    }
}

impl<B> AttemptBody<B> {
    /// The first attempt to send `body`.
    pub(crate) fn new(body: B) -> (AttemptBody<B>, Recovery<B>) {
        AttemptBody::resuming(body, VecDeque::new())
    }

    fn resuming(body: B, ahead: VecDeque<Bytes>) -> (AttemptBody<B>, Recovery<B>) {
        let (back, recovery) = oneshot::channel();
        let attempt = AttemptBody {
            body: Some(body),
            ahead,
            sent: VecDeque::new(),
            sent_bytes: 0,
            is_whole: true,
            back: Some(back),
        };
        (attempt, Recovery(recovery))
    }

    /// Retains a piece that is about to be sent.
    fn retain(&mut self, piece: &Bytes) {
        self.sent_bytes = self.sent_bytes.saturating_add(piece.len());
        // Without a receiver, the response has begun.
        let is_over = self.back.as_ref().is_none_or(oneshot::Sender::is_closed);
        if self.sent_bytes > RETAINED || is_over {
            self.give_up();
        } else if self.is_whole {
            // A copy, because the piece may be a small part of a large buffer.
            self.sent.push_back(Bytes::copy_from_slice(piece));
        }
    }

    fn give_up(&mut self) {
        self.is_whole = false;
        self.sent.clear();
    }
}

impl<B> Drop for AttemptBody<B> {
    fn drop(&mut self) {
        if let (true, Some(body), Some(back)) = (self.is_whole, self.body.take(), self.back.take()) {
            self.sent.append(&mut self.ahead);
            // After the response has begun, there is no receiver.
            let _ = back.send(Returned { body, ahead: std::mem::take(&mut self.sent) });
        }
    }
}

impl<B: HttpBody<Data = Bytes, Error = BodyError> + Unpin> HttpBody for AttemptBody<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.ahead.pop_front() {
            self.retain(&piece);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(piece) => {
                    let piece = piece.clone();
                    self.retain(&piece);
                }
                // Trailers are not retained.
                None => self.give_up(),
            },
            Some(Err(_)) => self.give_up(),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default();
        add(&hint, self.ahead.iter().map(|piece| len(piece)).sum())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt;

    use super::*;
    use crate::http::body::{Payload, Progress};

    fn attempt(body: impl Into<Bytes>) -> (AttemptBody, Recovery) {
        let payload = Payload::whole(body.into());
        AttemptBody::new(RequestBody::new(payload, Arc::new(Progress::default())))
    }

    #[tokio::test]
    async fn dropped_body_is_sent_again_from_its_beginning() {
        let (mut first, mut recovery) = attempt("body");
        for _ in 0..3 {
            assert_eq!(first.size_hint().exact(), Some(4));
            assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "body");
            assert!(first.is_end_stream());
            drop(first);
            (first, recovery) = recovery.body().await.unwrap();
        }
        assert_eq!(first.collect().await.unwrap().to_bytes(), "body");
        assert!(recovery.body().await.is_some());
    }

    #[tokio::test]
    async fn unsent_body_is_returned() {
        let (first, recovery) = attempt(vec![7; RETAINED + 1]);
        drop(first);
        let (second, _) = recovery.body().await.unwrap();
        assert_eq!(second.collect().await.unwrap().to_bytes().len(), RETAINED + 1);
    }

    #[tokio::test]
    async fn partly_sent_long_body_is_not_returned() {
        let (mut first, recovery) = attempt(vec![7; RETAINED + 1]);
        assert!(first.frame().await.is_some());
        drop(first);
        assert!(recovery.body().await.is_none());
    }

    #[tokio::test]
    async fn body_still_in_use_is_not_returned() {
        let (_first, recovery) = attempt("body");
        assert!(recovery.body().await.is_none());
    }
}
