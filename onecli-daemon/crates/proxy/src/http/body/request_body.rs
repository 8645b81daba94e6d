//! The body of a request on its way to the upstream: counted, scanned and paced, never buffered as a whole.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use onecli_model::{Code, Refusal};

use super::aws_chunked::AwsChunked;
use super::body_memory::Pace;
use super::expect::Gate;
use super::peer_body::PeerBody;
use super::types::{BodyError, add, len};
use crate::http::fields::head_size::size_of;
use crate::http::fields::trailers::Announced;
use crate::http::h1::{MAX_TRAILERS, Violation, violation_in};
use crate::http::placeholders::content_scan::ContentScan;
use crate::limits::idle_timeout::IdleTimeout;

/// Minimum rate at which a client must send a body with a declared length: this many bytes in this much time spent
/// waiting for the client. A body of unknown length may be a long-lived stream. Until the response begins, some of it
/// must arrive within each `[upstream] head_timeout`.
const FLOOR_BYTES: u64 = 4096;
const FLOOR_TIME: Duration = Duration::from_secs(30);

/// The body of a request as it is forwarded.
pub(crate) enum Payload {
    /// The bytes that the agent sends.
    Streamed(PeerBody),
    /// The agent's bytes without its chunk signatures.
    Unsigned(AwsChunked<PeerBody>),
    /// A body in memory. It can be sent again.
    Whole(Option<Bytes>),
}

/// Prints no content, because a body in memory may contain the value.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Payload::Streamed(_) => "Streamed(..)",
            Payload::Unsigned(_) => "Unsigned(..)",
            Payload::Whole(_) => "Whole(..)",
        })
    }
}

impl Payload {
    /// Returns a body in memory; empty bytes make no body.
    pub(crate) fn whole(bytes: Bytes) -> Payload {
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
            Payload::Streamed(body) => Pin::new(body).poll_frame(cx),
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

/// The progress of sending a request's body.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    bytes: AtomicU64,
    fault: OnceLock<Refusal>,
}

impl Progress {
    /// Number of body bytes that the client has sent so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The reason that the body broke off, if the client caused it.
    pub(crate) fn fault(&self) -> Option<Refusal> {
        self.fault.get().cloned()
    }
}

/// An agent's request body. Its bytes are counted as they are forwarded.
#[derive(Debug)]
pub(crate) struct RequestBody<B = Payload> {
    inner: B,
    progress: Arc<Progress>,
    floor: Option<Floor>,
    scan: Option<ContentScan>,
    pace: Option<Pace>,
    trailers: Announced,
    /// The gate at which the body waits until the upstream wants it.
    gate: Option<Gate>,
}

/// The minimum rate. A client that sends more slowly is dropped.
#[derive(Debug)]
struct Floor {
    idle_timeout: IdleTimeout,
    /// Bytes since the current time span began.
    bytes: u64,
}

impl<B: HttpBody> RequestBody<B> {
    /// Returns a body that reports to `progress`.
    pub(crate) fn new(inner: B, progress: Arc<Progress>) -> RequestBody<B> {
        RequestBody::with_floor(inner, progress, FLOOR_TIME)
    }

    fn with_floor(inner: B, progress: Arc<Progress>, time: Duration) -> RequestBody<B> {
        let announced = inner.size_hint().exact().is_some_and(|length| length > 0);
        let floor = announced.then(|| Floor { idle_timeout: IdleTimeout::new(time), bytes: 0 });
        RequestBody {
            inner,
            progress,
            floor,
            scan: None,
            pace: None,
            trailers: Announced::default(),
            gate: None,
        }
    }

    /// Forwards these trailer fields, besides digests.
    pub(crate) fn with_trailers(mut self, trailers: Announced) -> RequestBody<B> {
        self.trailers = trailers;
        self
    }

    /// Searches the body with `scan` and forwards it at the rate of `pace`. A body that is sent again retains the
    /// scan and pace it already has.
    pub(crate) fn watched(mut self, scan: ContentScan, pace: Pace) -> RequestBody<B> {
        self.scan.get_or_insert(scan);
        self.pace.get_or_insert(pace);
        self
    }

    /// Delays reading the body until `gate` opens.
    pub(crate) fn behind(mut self, gate: Option<Gate>) -> RequestBody<B> {
        self.gate = gate;
        self
    }

    /// Bytes that were read and are not forwarded yet.
    fn held(&self) -> u64 {
        self.pace.as_ref().map_or(0, |pace| u64::try_from(pace.held()).unwrap_or(u64::MAX))
    }

    fn failed(&self, refusal: Refusal) -> BodyError {
        let error = refusal.to_string();
        // Only the first fault is recorded.
        let _ = self.progress.fault.set(refusal);
        error.into()
    }
}

impl<B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin> HttpBody for RequestBody<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &self.gate {
            ready!(gate.poll_open(cx));
            self.gate = None;
        }
        loop {
            // The upstream causes the time spent here, so it does not count against the client.
            if let Some(pace) = &mut self.pace
                && let Some(piece) = ready!(pace.poll_piece(cx))
            {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
                if self.floor.as_mut().is_some_and(|floor| floor.idle_timeout.poll_over(cx).is_ready()) {
                    return Poll::Ready(Some(Err(self.failed(too_slow()))));
                }
                return Poll::Pending;
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    let error = error.into();
                    let refusal = violation_in(&*error).unwrap_or_else(client_gone);
                    return Poll::Ready(Some(Err(self.failed(refusal))));
                }
                None => return Poll::Ready(None),
            };
            match frame.into_data() {
                Ok(data) => {
                    self.progress.bytes.fetch_add(len(&data), Ordering::Relaxed);
                    if let Some(floor) = &mut self.floor {
                        floor.got(len(&data));
                    }
                    if let Some(scan) = &mut self.scan {
                        scan.push(&data);
                    }
                    let Some(pace) = &mut self.pace else { return Poll::Ready(Some(Ok(Frame::data(data)))) };
                    pace.hold(data);
                }
                Err(frame) => {
                    let Ok(trailers) = frame.into_trailers() else { continue };
                    if let Some(scan) = &mut self.scan {
                        scan.fields(&trailers);
                    }
                    // Over HTTP/1.1 the limit on trailers is applied while they are read.
                    if size_of(&trailers) > MAX_TRAILERS {
                        let refusal = Violation::TrailersTooLarge.refusal();
                        return Poll::Ready(Some(Err(self.failed(refusal))));
                    }
                    let Some(selected) = self.trailers.select(&trailers) else { continue };
                    return Poll::Ready(Some(Ok(Frame::trailers(selected))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held() == 0 && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        add(&self.inner.size_hint(), self.held())
    }
}

impl Floor {
    fn got(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes >= FLOOR_BYTES {
            self.bytes = 0;
            self.idle_timeout.renew();
        } else {
            self.idle_timeout.pause();
        }
    }
}

fn too_slow() -> Refusal {
    Refusal::new(
        Code::RequestTimeout,
        "the request's body arrived too slowly",
        "send it without long pauses; if it is a stream, omit Content-Length",
    )
}

fn client_gone() -> Refusal {
    Refusal::new(Code::ClientGone, "the request's body ended early", "send the whole body")
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use http::header::HeaderMap;
    use http_body_util::{BodyExt as _, StreamBody};
    use onecli_model::Placeholder;

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
    async fn only_digests_of_request_trailers_are_forwarded() {
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

    /// A body with a length that sends each piece after a pause.
    struct Pieces {
        stream: stream::BoxStream<'static, Bytes>,
        length: u64,
    }

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            self.stream.poll_next_unpin(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.length)
        }
    }

    async fn paced(size: usize, pause: Duration, count: usize) -> (Option<Code>, u64) {
        let length = len(&vec![0; size * count]);
        let pieces = stream::iter(0..count).then(move |_| async move {
            tokio::time::sleep(pause).await;
            Bytes::from(vec![0; size])
        });
        let progress = Arc::new(Progress::default());
        let body = Pieces { stream: pieces.boxed(), length };
        let body = RequestBody::with_floor(body, Arc::clone(&progress), Duration::from_millis(200));
        let _ = body.collect().await;
        (progress.fault().map(|refusal| refusal.code), progress.bytes())
    }

    #[tokio::test]
    async fn body_below_the_minimum_rate_is_refused() {
        let (enough, pause) = (usize::try_from(FLOOR_BYTES).unwrap(), Duration::from_millis(50));
        assert_eq!(paced(enough, pause, 10).await, (None, FLOOR_BYTES * 10));
        assert_eq!(paced(1, Duration::ZERO, 10).await, (None, 10));
        let (code, bytes) = paced(1, pause, 100).await;
        assert_eq!(code, Some(Code::RequestTimeout));
        assert!(bytes < 5, "{bytes}");
    }

    /// Time during which the body is not polled does not count against the client.
    #[tokio::test]
    async fn slow_upstream_is_not_counted_as_slow_client() {
        let pieces = stream::iter(0..10).map(|_| Bytes::from_static(b"x"));
        let progress = Arc::new(Progress::default());
        let body = Pieces { stream: pieces.boxed(), length: 10 };
        let mut body = RequestBody::with_floor(body, Arc::clone(&progress), Duration::from_millis(50));
        while let Some(frame) = body.frame().await {
            frame.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((progress.fault(), progress.bytes()), (None, 10));
    }
}
