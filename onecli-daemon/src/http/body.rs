//! Message bodies on their way through: streamed, counted, never held whole.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

/// Why a body broke off; told to hyper, which resets the stream.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer to an agent.
pub(super) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body of our own words.
pub(super) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub(super) fn empty() -> Body {
    full(Bytes::new())
}

/// An agent's request body, counted while it is sent on.
#[derive(Debug)]
pub(super) struct RequestBody {
    inner: Incoming,
    count: Arc<AtomicU64>,
}

impl RequestBody {
    /// Counts into `count`, in bytes.
    pub(super) fn new(inner: Incoming, count: Arc<AtomicU64>) -> RequestBody {
        RequestBody { inner, count }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.count.fetch_add(len(data), Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A length in bytes, as the counters have it.
pub(super) fn len(data: &[u8]) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}
