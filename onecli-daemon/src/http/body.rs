//! Message bodies on their way through: streamed, counted, never held whole.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use super::aws_chunked::AwsChunked;
use crate::model::Placeholder;

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

/// Trailer fields of a request that go on: digests of the body (RFC 9530), which are known only at its end. All others
/// end here; a credential or a route has no place behind the head that policy judged.
static TRAILERS: [HeaderName; 2] =
    [HeaderName::from_static("content-digest"), HeaderName::from_static("repr-digest")];

/// A request's body as it is sent on.
#[derive(Debug)]
pub(super) enum Payload {
    /// As the agent sends it.
    Streamed(Incoming),
    /// Without the agent's chunk signatures.
    Unsigned(AwsChunked<Incoming>),
    /// Held in memory. It can be sent again.
    Whole(Option<Bytes>),
}

impl Payload {
    /// A body in memory; an empty one is none.
    pub(super) fn whole(bytes: Bytes) -> Payload {
        Payload::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl HttpBody for Payload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Payload::Streamed(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Payload::Unsigned(body) => Pin::new(body).poll_frame(cx),
            Payload::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Payload::Streamed(body) => body.is_end_stream(),
            Payload::Unsigned(body) => body.is_end_stream(),
            Payload::Whole(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Payload::Streamed(body) => body.size_hint(),
            Payload::Unsigned(body) => body.size_hint(),
            Payload::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| len(bytes))),
        }
    }
}

/// An agent's request body, counted while it is sent on.
#[derive(Debug)]
pub(super) struct RequestBody<B = Payload> {
    inner: B,
    count: Arc<AtomicU64>,
}

impl<B> RequestBody<B> {
    /// Counts into `count`, in bytes.
    pub(super) fn new(inner: B, count: Arc<AtomicU64>) -> RequestBody<B> {
        RequestBody { inner, count }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(data) => {
                    self.count.fetch_add(len(&data), Ordering::Relaxed);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Err(frame) => {
                    let Some(kept) = frame.into_trailers().ok().as_ref().and_then(kept) else { continue };
                    return Poll::Ready(Some(Ok(Frame::trailers(kept))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What goes on of a request's trailers, if anything does. A placeholder is never a digest.
fn kept(trailers: &HeaderMap) -> Option<HeaderMap> {
    let mut kept = HeaderMap::new();
    for name in &TRAILERS {
        for value in trailers.get_all(name) {
            if Placeholder::find_all(value.as_bytes()).next().is_none() {
                kept.append(name, value.clone());
            }
        }
    }
    (!kept.is_empty()).then_some(kept)
}

/// A length in bytes, as the counters have it.
pub(super) fn len(data: &[u8]) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;

    async fn sent_on(fields: &[(&'static str, &str)]) -> (Bytes, Option<HeaderMap>) {
        let mut trailers = HeaderMap::new();
        for (name, value) in fields {
            trailers.append(*name, value.parse().unwrap());
        }
        let frames: [Result<_, BodyError>; 2] =
            [Ok(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers))];
        let body = RequestBody::new(StreamBody::new(stream::iter(frames)), Arc::default());
        let all = body.collect().await.unwrap();
        let trailers = all.trailers().cloned();
        (all.to_bytes(), trailers)
    }

    #[tokio::test]
    async fn trailers_of_a_request_end_here() {
        let placeholder = Placeholder::from_bits([7; 20]);
        let dropped = [
            ("authorization", "Bearer x"),
            ("proxy-authorization", "Bearer x"),
            ("host", "evil.test"),
            ("x-checksum", "42"),
            ("content-digest", placeholder.as_str()),
        ];
        assert_eq!(sent_on(&dropped).await, (Bytes::from_static(b"body"), None));
        let digest = ("content-digest", "sha-256=:AAAA:");
        let (_, trailers) = sent_on(&[&dropped[..], &[digest]].concat()).await;
        let trailers = trailers.unwrap();
        assert_eq!(trailers.len(), 1, "{trailers:?}");
        assert_eq!(trailers["content-digest"], digest.1);
    }
}
