//! A response body that waits until the agent reads it: see [`super::body_memory`].

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::body_memory::Pace;
use super::types::{Body, BodyError, add};

/// A body whose bytes are passed on as room becomes available.
pub(crate) struct Paced {
    inner: Body,
    pace: Pace,
}

impl Paced {
    /// Passes `inner` on at this pace.
    pub(crate) fn new(inner: Body, pace: Pace) -> Paced {
        Paced { inner, pace }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            if let Some(piece) = ready!(this.pace.poll_piece(cx)) {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            match frame.into_data() {
                Ok(data) => this.pace.hold(data),
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pace.held() == 0 && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        add(&self.inner.size_hint(), u64::try_from(self.pace.held()).unwrap_or(u64::MAX))
    }
}
