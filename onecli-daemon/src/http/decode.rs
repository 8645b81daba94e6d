//! Content codings taken off, so that what they hide can be scanned (RFC 9110 section 8.4.1).
//!
//! Answers are asked for in `identity`, but an upstream may send what it has stored. Decoding streams: memory does not
//! grow with the answer, whatever its ratio, for nothing is decoded before the agent has taken what came before.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt};
use http::header::{self, HeaderMap};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use tokio::io::{AsyncBufRead, AsyncRead};
use tokio_util::io::StreamReader;
use tokio_util::io::poll_read_buf;

use super::body::BodyError;

/// Codings one over another that are taken off.
const MAX_CODINGS: usize = 2;
/// Decoded at once.
const CHUNK: usize = 16 * 1024;

/// An upstream's body, without content codings.
pub(super) enum Source {
    /// It had none.
    Plain(Incoming),
    /// It had some, which are taken off. Trailers of such a body are not passed on.
    Decoded(Pin<Box<dyn AsyncRead + Send>>),
}

/// A coding that cannot be taken off.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownCoding;

/// A coding that can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Source {
    /// Takes the codings that `headers` name off `incoming`, and corrects the headers.
    ///
    /// # Errors
    /// [`UnknownCoding`], or too many of them.
    pub(super) fn decode(headers: &mut HeaderMap, incoming: Incoming) -> Result<Source, UnknownCoding> {
        let codings = codings(headers)?;
        if codings.is_empty() {
            return Ok(Source::Plain(incoming));
        }
        headers.remove(header::CONTENT_ENCODING);
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::ACCEPT_RANGES);
        let data = BodyDataStream::new(incoming).map_err(io::Error::other).boxed();
        let mut reader: Pin<Box<dyn AsyncBufRead + Send>> = Box::pin(StreamReader::new(data));
        for coding in codings.into_iter().rev() {
            reader = Box::pin(tokio::io::BufReader::new(decoder(coding, reader)));
        }
        Ok(Source::Decoded(reader))
    }
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

fn decoder(coding: Coding, from: Pin<Box<dyn AsyncBufRead + Send>>) -> Pin<Box<dyn AsyncRead + Send>> {
    match coding {
        Coding::Gzip => {
            let mut decoder = GzipDecoder::new(from);
            // RFC 1952 section 2.2: a file may hold several members.
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
        Coding::Deflate => Box::pin(ZlibDecoder::new(from)),
        Coding::Brotli => Box::pin(BrotliDecoder::new(from)),
        Coding::Zstd => Box::pin(ZstdDecoder::new(from)),
    }
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
            Source::Decoded(reader) => {
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
            Source::Decoded(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Source::Plain(incoming) => incoming.size_hint(),
            Source::Decoded(_) => SizeHint::default(),
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
