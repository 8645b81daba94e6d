//! The body of a message that arrives on a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http::header;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot;

use super::types::{BodyError, len};

/// Receives a request's stream when its body is dropped unread.
pub(crate) type Unread = oneshot::Receiver<RecvStream>;

/// A body on a stream. The peer gets its credit back as the body is read (RFC 9113 section 5.2).
pub(crate) struct H2Body {
    /// `None` after it was returned.
    stream: Option<RecvStream>,
    /// Bytes that the peer announced and did not send yet.
    announced: Option<u64>,
    /// All data arrived; trailers may follow.
    is_data_done: bool,
    /// Notified when the body is first read.
    read: Option<oneshot::Sender<()>>,
    /// Gets the stream of a body that is dropped before its end.
    back: Option<oneshot::Sender<RecvStream>>,
}

impl fmt::Debug for H2Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("H2Body(..)")
    }
}

impl H2Body {
    /// The body of a message with these fields.
    pub(crate) fn new(stream: RecvStream, headers: &HeaderMap) -> H2Body {
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        H2Body { stream: Some(stream), announced, is_data_done: false, read: None, back: None }
    }

    /// Resolves when the body is first read.
    pub(crate) fn first_read(&mut self) -> oneshot::Receiver<()> {
        let (read, first) = oneshot::channel();
        self.read = Some(read);
        first
    }

    /// Returns the stream if the body is dropped before its end.
    pub(crate) fn unread(&mut self) -> Unread {
        let (back, unread) = oneshot::channel();
        self.back = Some(back);
        unread
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, h2::Error>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(None)) };
        if !self.is_data_done {
            if let Some(data) = ready!(stream.poll_data(cx)) {
                let data = data?;
                // This fails for a stream that was reset. The next poll reports that.
                let _ = stream.flow_control().release_capacity(data.len());
                self.announced = self.announced.map(|left| left.saturating_sub(len(&data)));
                return Poll::Ready(Ok(Some(Frame::data(data))));
            }
            self.is_data_done = true;
        }
        Poll::Ready(Ok(ready!(stream.poll_trailers(cx))?.map(Frame::trailers)))
    }
}

impl HttpBody for H2Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(read) = self.read.take() {
            // Without a receiver, the response has begun.
            let _ = read.send(());
        }
        Poll::Ready(match ready!(self.poll(cx)) {
            Ok(frame) => frame.map(Ok),
            // In this way h2 reports a stream that was reset after its end (RFC 9113 section 8.1).
            Err(error)
                if error.reason() == Some(Reason::NO_ERROR)
                    && self.announced.is_none_or(|left| left == 0) =>
            {
                None
            }
            Err(error) => Some(Err(error.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match self.announced {
            Some(left) => SizeHint::with_exact(left),
            None if self.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

impl Drop for H2Body {
    fn drop(&mut self) {
        if let (Some(stream), Some(back)) = (self.stream.take(), self.back.take())
            && !stream.is_end_stream()
        {
            // Without a receiver, the connection has ended.
            let _ = back.send(stream);
        }
    }
}
