//! Decodes content codings, so that the content can be scanned (RFC 9110 section 8.4.1).
//!
//! The daemon requests `identity`, but an upstream may send a stored representation. Decoding streams: the next bytes
//! are decoded only after the agent has read the earlier ones. So memory does not grow with the response, whatever
//! its compression ratio.

mod coding;
mod decoder;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::header::{self, HeaderMap};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncBufRead, AsyncRead};
use tokio_util::io::StreamReader;
use tokio_util::io::poll_read_buf;

use self::coding::Coding;
use self::decoder::Decoder;

use crate::http::body::BodyError;
use crate::http::body::peer_body::PeerBody;
use crate::http::fields::names::DIGESTS;
use crate::limits::agent_quota::QuotaShare;

/// Maximum number of nested codings that are decoded.
const MAX_CODINGS: usize = 2;
/// Bytes that are decoded at once.
const CHUNK: usize = 16 * 1024;

/// Brotli and zstd use up to 16 MiB for each response. These limits apply to concurrent decoders: for one agent, and
/// for all.
pub(crate) const DECODERS_PER_AGENT: usize = 8;
pub(crate) const DECODERS: usize = 32;

/// An upstream's body, without content codings.
pub(super) enum Source {
    /// A body that had no coding.
    Plain(PeerBody),
    /// A body that had codings, which are decoded.
    Decoded {
        reader: Pin<Box<dyn AsyncRead + Send>>,
        trailers: LateTrailers,
        #[expect(dead_code, reason = "released when dropped")]
        shares: Vec<QuotaShare>,
    },
}

/// The trailers of a decoded body, available after its end.
type LateTrailers = Arc<Mutex<Option<HeaderMap>>>;

/// The data of a body; the trailers are stored separately.
struct Data<B> {
    body: B,
    trailers: LateTrailers,
}

impl<B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin> Stream for Data<B> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(None);
            };
            match frame.map_err(io::Error::other)?.into_data() {
                Ok(data) => return Poll::Ready(Some(Ok(data))),
                Err(frame) => {
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    // Digests describe the coded content (RFC 9530 section 2).
                    for name in &DIGESTS {
                        trailers.remove(name);
                    }
                    *lock(&self.trailers) = Some(trailers).filter(|trailers| !trailers.is_empty());
                }
            }
        }
    }
}

fn lock(trailers: &LateTrailers) -> MutexGuard<'_, Option<HeaderMap>> {
    trailers.lock()
}

/// The error for a coding that cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownCoding;

/// The reason that a response is not decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotDecoded {
    /// Its codings are unknown, or too many.
    Unknown,
    /// The limit on concurrent decoders with large windows is reached.
    Busy,
}

impl From<UnknownCoding> for NotDecoded {
    fn from(UnknownCoding: UnknownCoding) -> NotDecoded {
        NotDecoded::Unknown
    }
}

impl Source {
    /// Decodes the codings that `headers` name for `incoming`, and corrects the headers. A coding with a large window
    /// uses one of the agent's decoders.
    ///
    /// # Errors
    /// [`NotDecoded`].
    pub(super) fn decode(
        headers: &mut HeaderMap,
        incoming: PeerBody,
        large: impl Fn() -> Option<QuotaShare>,
    ) -> Result<Source, NotDecoded> {
        let codings = codings(headers)?;
        if codings.is_empty() {
            return Ok(Source::Plain(incoming));
        }
        let larges = codings.iter().filter(|coding| coding.is_large());
        let shares: Option<Vec<QuotaShare>> = larges.map(|_| large()).collect();
        let shares = shares.ok_or(NotDecoded::Busy)?;
        headers.remove(header::CONTENT_ENCODING);
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::ACCEPT_RANGES);
        let trailers = LateTrailers::default();
        let data = Data { body: incoming, trailers: Arc::clone(&trailers) };
        Ok(Source::decoded(codings, data, trailers, shares))
    }

    fn decoded(
        codings: Vec<Coding>,
        data: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        trailers: LateTrailers,
        shares: Vec<QuotaShare>,
    ) -> Source {
        let mut reader: Pin<Box<dyn AsyncBufRead + Send>> = Box::pin(StreamReader::new(data.boxed()));
        for coding in codings.into_iter().rev() {
            reader = Box::pin(tokio::io::BufReader::new(Decoder::new(coding, reader)));
        }
        Source::Decoded { reader, trailers, shares }
    }

    /// Returns a body in this coding, for tests.
    #[cfg(test)]
    pub(super) fn for_test(
        coding: &'static str,
        data: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Source {
        let headers = [(header::CONTENT_ENCODING, http::HeaderValue::from_static(coding))];
        let codings = codings(&headers.into_iter().collect()).unwrap_or_default();
        Source::decoded(codings, data, LateTrailers::default(), Vec::new())
    }
}

/// Returns whether a body with these headers has a content coding.
pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    !codings(headers).is_ok_and(|codings| codings.is_empty())
}

/// The codings, in the order in which they were applied.
fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, UnknownCoding> {
    let mut codings = Vec::new();
    for value in headers.get_all(header::CONTENT_ENCODING) {
        for name in value.to_str().map_err(|_| UnknownCoding)?.split(',') {
            match name.trim().to_ascii_lowercase().as_str() {
                "" | "identity" => {}
                "gzip" | "x-gzip" => codings.push(Coding::Gzip),
                "deflate" => codings.push(Coding::Deflate),
                "br" => codings.push(Coding::Brotli),
                "zstd" => codings.push(Coding::Zstd),
                _ => return Err(UnknownCoding),
            }
        }
        if codings.len() > MAX_CODINGS {
            return Err(UnknownCoding);
        }
    }
    Ok(codings)
}

impl HttpBody for Source {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Source::Plain(incoming) => Pin::new(incoming).poll_frame(cx),
            Source::Decoded { reader, trailers, .. } => {
                let mut buffer = BytesMut::with_capacity(CHUNK);
                Poll::Ready(match ready!(poll_read_buf(reader.as_mut(), cx, &mut buffer)) {
                    Ok(0) => lock(trailers).take().map(|trailers| Ok(Frame::trailers(trailers))),
                    Ok(_) => Some(Ok(Frame::data(buffer.freeze()))),
                    Err(error) => Some(Err(error.into())),
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Source::Plain(incoming) => incoming.is_end_stream(),
            Source::Decoded { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Source::Plain(incoming) => incoming.size_hint(),
            Source::Decoded { .. } => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[tokio::test]
    async fn trailers_follow_decoded_content_without_its_digests() {
        let mut encoder = async_compression::tokio::write::GzipEncoder::new(Vec::new());
        tokio::io::AsyncWriteExt::write_all(&mut encoder, b"hello").await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut encoder).await.unwrap();
        let fields = [("x-count", "1"), ("repr-digest", "sha-256=:AAAA:")];
        let fields = fields
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)));
        let frames: [Result<_, BodyError>; 2] = [
            Ok(Frame::data(Bytes::from(encoder.into_inner()))),
            Ok(Frame::trailers(fields.into_iter().collect())),
        ];
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        let trailers = LateTrailers::default();
        let data = Data { body, trailers: Arc::clone(&trailers) };
        let source = Source::decoded(vec![Coding::Gzip], data, trailers, Vec::new());
        let whole = http_body_util::BodyExt::collect(source).await.unwrap();
        let trailers = whole.trailers().cloned().unwrap();
        assert_eq!((trailers.len(), &trailers["x-count"]), (1, &HeaderValue::from_static("1")));
        assert_eq!(whole.to_bytes(), "hello");
    }

    #[test]
    fn codings_are_read_in_order_and_unknown_codings_are_refused() {
        let check = |values: &[&'static str], expected: Option<&[Coding]>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            assert_eq!(codings(&headers).ok().as_deref(), expected, "{values:?}");
        };
        check(&[], Some(&[]));
        check(&["identity"], Some(&[]));
        check(&["GZIP"], Some(&[Coding::Gzip]));
        check(&["deflate, br"], Some(&[Coding::Deflate, Coding::Brotli]));
        check(&["zstd", "x-gzip"], Some(&[Coding::Zstd, Coding::Gzip]));
        check(&["aes128gcm"], None);
        check(&["gzip, compress"], None);
        check(&["gzip, gzip, gzip"], None);
    }
}
