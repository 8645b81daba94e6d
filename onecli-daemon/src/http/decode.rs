//! Content codings taken off, so that what they hide can be scanned (RFC 9110 section 8.4.1).
//!
//! Answers are asked for in `identity`, but an upstream may send what it has stored. Decoding streams: memory does not
//! grow with the answer, whatever its ratio, for nothing is decoded before the agent has taken what came before.

mod decoder;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::header::{self, HeaderMap};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use tokio::io::{AsyncBufRead, AsyncRead};
use tokio_util::io::StreamReader;
use tokio_util::io::poll_read_buf;

use decoder::Decoder;

use super::body::BodyError;
use super::shares::Share;

/// Codings one over another that are taken off.
const MAX_CODINGS: usize = 2;
/// Decoded at once.
const CHUNK: usize = 16 * 1024;

/// Brotli and zstd take up to 16 MiB for each answer. So many are taken off at a time: for one agent, and for all.
pub(super) const DECODERS_PER_AGENT: usize = 8;
pub(super) const DECODERS: usize = 32;

/// An upstream's body, without content codings.
pub(super) enum Source {
    /// It had none.
    Plain(Incoming),
    /// It had some, which are taken off. Trailers of such a body are not passed on.
    Decoded(
        Pin<Box<dyn AsyncRead + Send>>,
        #[expect(dead_code, reason = "given back when dropped")] Vec<Share>,
    ),
}

/// A coding that cannot be taken off.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownCoding;

/// Why an answer is not decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotDecoded {
    /// Its codings are not known, or too many.
    Unknown,
    /// As many answers in large windows are decoded as may be.
    Busy,
}

impl From<UnknownCoding> for NotDecoded {
    fn from(UnknownCoding: UnknownCoding) -> NotDecoded {
        NotDecoded::Unknown
    }
}

/// A coding that can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// Is its window megabytes, and not the 32 KiB of deflate (RFC 1951 section 2)?
    fn is_large(self) -> bool {
        matches!(self, Coding::Brotli | Coding::Zstd)
    }
}

impl Source {
    /// Takes the codings that `headers` name off `incoming`, and corrects the headers. A coding with a large window
    /// takes one of the agent's shares.
    ///
    /// # Errors
    /// [`NotDecoded`].
    pub(super) fn decode(
        headers: &mut HeaderMap,
        incoming: Incoming,
        large: impl Fn() -> Option<Share>,
    ) -> Result<Source, NotDecoded> {
        let codings = codings(headers)?;
        if codings.is_empty() {
            return Ok(Source::Plain(incoming));
        }
        let larges = codings.iter().filter(|coding| coding.is_large());
        let shares: Option<Vec<Share>> = larges.map(|_| large()).collect();
        let shares = shares.ok_or(NotDecoded::Busy)?;
        headers.remove(header::CONTENT_ENCODING);
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::ACCEPT_RANGES);
        Ok(Source::decoded(codings, BodyDataStream::new(incoming).map_err(io::Error::other), shares))
    }

    fn decoded(
        codings: Vec<Coding>,
        data: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        shares: Vec<Share>,
    ) -> Source {
        let mut reader: Pin<Box<dyn AsyncBufRead + Send>> = Box::pin(StreamReader::new(data.boxed()));
        for coding in codings.into_iter().rev() {
            reader = Box::pin(tokio::io::BufReader::new(Decoder::new(coding, reader)));
        }
        Source::Decoded(reader, shares)
    }

    /// A body in this coding, for tests of what is done with it.
    #[cfg(test)]
    pub(super) fn for_test(
        coding: &'static str,
        data: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Source {
        let headers = [(header::CONTENT_ENCODING, http::HeaderValue::from_static(coding))];
        let codings = codings(&headers.into_iter().collect()).unwrap_or_default();
        Source::decoded(codings, data, Vec::new())
    }
}

/// Does a body with these headers have a content coding?
pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    !codings(headers).is_ok_and(|codings| codings.is_empty())
}

/// The codings in the order in which they were applied.
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
            Source::Plain(incoming) => {
                Poll::Ready(ready!(Pin::new(incoming).poll_frame(cx)).map(|frame| frame.map_err(Into::into)))
            }
            Source::Decoded(reader, _) => {
                let mut buffer = BytesMut::with_capacity(CHUNK);
                Poll::Ready(match ready!(poll_read_buf(reader.as_mut(), cx, &mut buffer)) {
                    Ok(0) => None,
                    Ok(_) => Some(Ok(Frame::data(buffer.freeze()))),
                    Err(error) => Some(Err(error.into())),
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Source::Plain(incoming) => incoming.is_end_stream(),
            Source::Decoded(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Source::Plain(incoming) => incoming.size_hint(),
            Source::Decoded(..) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn codings_are_read_in_order_and_unknown_ones_refused() {
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
