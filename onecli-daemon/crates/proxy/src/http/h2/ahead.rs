//! The response to a client that waits for 100 (Continue) and does not get it.
//!
//! When the final status arrives, curl ends its stream without the body that it announced. h2 treats the message as
//! malformed (RFC 9113 section 8.1.1), resets the stream and drops unwritten data. So the head of such a response is
//! written together with its content.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::http::body::{Body, BodyError, add, len};

/// Bytes that are read before the head is written. A longer response may be truncated.
const MOST: usize = 16 << 10;
/// How long the head waits for them.
const READ_AHEAD_TIMEOUT: Duration = Duration::from_millis(200);

/// A body whose beginning was read.
pub(super) struct Ahead {
    read: VecDeque<Frame<Bytes>>,
    /// `None` after it was read to its end.
    rest: Option<Body>,
}

impl Ahead {
    /// Reads the beginning of `body`.
    pub(super) async fn read(body: Body) -> Body {
        let mut this = Ahead { read: VecDeque::new(), rest: Some(body) };
        // Frames that were read before a timeout remain stored.
        let _ = tokio::time::timeout(READ_AHEAD_TIMEOUT, this.fill()).await;
        this.boxed_unsync()
    }

    async fn fill(&mut self) {
        let mut size = 0;
        while let Some(body) = self.rest.as_mut().filter(|_| size < MOST) {
            if body.is_end_stream() {
                self.rest = None;
                return;
            }
            match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
                Some(Ok(frame)) => {
                    size += frame.data_ref().map_or(0, Bytes::len);
                    self.read.push_back(frame);
                }
                Some(Err(error)) => return self.rest = Some(Broken(Some(error)).boxed_unsync()),
                None => self.rest = None,
            }
        }
    }
}

impl HttpBody for Ahead {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(frame) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match &mut self.rest {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.iter().filter_map(Frame::data_ref).map(|data| len(data)).sum();
        let rest = self.rest.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint);
        add(&rest, read)
    }
}

/// A body that broke off.
struct Broken(Option<BodyError>);

impl HttpBody for Broken {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.0.take().map(Err))
    }
}
