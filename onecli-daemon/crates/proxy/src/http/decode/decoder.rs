//! Decodes one content coding of a body (RFC 9110 section 8.4.1). It returns all of the content or an error. A
//! truncated body is an error, and so are bytes after the end of the encoded data. So no client mistakes a part for
//! the whole.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_compression::tokio::bufread::{
    BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder,
};
use async_compression::zstd::DParameter;
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

use super::coding::Coding;

/// Largest window of zstd, as a power of two: 8 MiB, the limit for the content coding (RFC 9659). The library would
/// allocate 128 MiB for each response.
const ZSTD_WINDOW: u32 = 23;

type Encoded = Pin<Box<dyn AsyncBufRead + Send>>;

/// Decodes a body in one coding.
pub(super) struct Decoder {
    coding: Coding,
    state: State,
}

enum State {
    /// No byte was read yet.
    New(Encoded),
    Begun(Running),
    Ended,
}

enum Running {
    Gzip(GzipDecoder<Encoded>),
    Zlib(ZlibDecoder<Encoded>),
    Deflate(DeflateDecoder<Encoded>),
    Brotli(BrotliDecoder<SmallWindow>),
    Zstd(ZstdDecoder<Encoded>),
}

impl Decoder {
    /// Decodes the bytes of `encoded`.
    pub(super) fn new(coding: Coding, encoded: Encoded) -> Decoder {
        Decoder { coding, state: State::New(encoded) }
    }

    /// Starts at the first byte; `None` if the body is empty. A server may send an empty body with a coding.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<&mut Running>>> {
        if let State::New(encoded) = &mut self.state {
            let first = ready!(encoded.as_mut().poll_fill_buf(cx))?.first().copied();
            let State::New(encoded) = std::mem::replace(&mut self.state, State::Ended) else {
                return Poll::Ready(Ok(None));
            };
            if let Some(first) = first {
                self.state = State::Begun(Running::new(self.coding, first, encoded));
            }
        }
        Poll::Ready(Ok(match &mut self.state {
            State::Begun(running) => Some(running),
            State::New(_) | State::Ended => None,
        }))
    }
}

impl AsyncRead for Decoder {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(running) = ready!(self.poll_begin(cx))? else { return Poll::Ready(Ok(())) };
        let before = buf.filled().len();
        ready!(running.poll_read(cx, buf))?;
        if buf.filled().len() == before && buf.remaining() > 0 {
            if !ready!(running.poll_rest(cx))?.is_empty() {
                return Poll::Ready(Err(invalid("bytes follow the end of the encoded data")));
            }
            self.state = State::Ended;
        }
        Poll::Ready(Ok(()))
    }
}

impl Running {
    fn new(coding: Coding, first: u8, encoded: Encoded) -> Running {
        match coding {
            Coding::Gzip => {
                let mut decoder = GzipDecoder::new(encoded);
                // RFC 1952 section 2.2: a file may contain several members.
                decoder.multiple_members(true);
                Running::Gzip(decoder)
            }
            Coding::Deflate if is_zlib(first) => Running::Zlib(ZlibDecoder::new(encoded)),
            Coding::Deflate => Running::Deflate(DeflateDecoder::new(encoded)),
            Coding::Brotli => {
                Running::Brotli(BrotliDecoder::new(SmallWindow { inner: encoded, is_known: false }))
            }
            Coding::Zstd => {
                let window = [DParameter::window_log_max(ZSTD_WINDOW)];
                let mut decoder = ZstdDecoder::with_params(encoded, &window);
                // RFC 8878 section 3.1: content may consist of several frames, and of skippable ones.
                decoder.multiple_members(true);
                Running::Zstd(decoder)
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Running::Gzip(decoder) => Pin::new(decoder).poll_read(cx, buf),
            Running::Zlib(decoder) => Pin::new(decoder).poll_read(cx, buf),
            Running::Deflate(decoder) => Pin::new(decoder).poll_read(cx, buf),
            Running::Brotli(decoder) => Pin::new(decoder).poll_read(cx, buf),
            Running::Zstd(decoder) => Pin::new(decoder).poll_read(cx, buf),
        }
    }

    /// The bytes after the end of the encoded data.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let encoded = match self {
            Running::Gzip(decoder) => decoder.get_mut(),
            Running::Zlib(decoder) => decoder.get_mut(),
            Running::Deflate(decoder) => decoder.get_mut(),
            Running::Brotli(decoder) => &mut decoder.get_mut().inner,
            Running::Zstd(decoder) => decoder.get_mut(),
        };
        encoded.as_mut().poll_fill_buf(cx)
    }
}

/// Returns whether `deflate` starts with a zlib header (RFC 1950 section 2.2), as RFC 9110 section 8.4.1.2 requires.
/// Some servers omit the header. Data without it never starts this way, because the fourth bit is then padding of a
/// stored block, which is 0.
fn is_zlib(first: u8) -> bool {
    first & 0x8f == 0x08
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A Brotli stream that is refused if it requests a large window. The content coding has none: RFC 7932 section 9.1
/// reserves the bits that request it. The library would allocate up to 1 GiB.
struct SmallWindow {
    inner: Pin<Box<dyn AsyncBufRead + Send>>,
    is_known: bool,
}

impl AsyncBufRead for SmallWindow {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        let bytes = ready!(this.inner.as_mut().poll_fill_buf(cx))?;
        if let (false, Some(first)) = (this.is_known, bytes.first()) {
            if first & 0x7f == 0x11 {
                return Poll::Ready(Err(invalid("the Brotli stream requests a large window")));
            }
            this.is_known = true;
        }
        Poll::Ready(Ok(bytes))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        self.inner.as_mut().consume(amount);
    }
}

impl AsyncRead for SmallWindow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = ready!(self.as_mut().poll_fill_buf(cx))?;
        let length = bytes.len().min(buf.remaining());
        buf.put_slice(&bytes[..length]);
        self.consume(length);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use async_compression::Level;
    use async_compression::tokio::write::{
        BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder,
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn text_of(coding: Coding, bytes: &[u8]) -> io::Result<Vec<u8>> {
        // Reads one byte at a time, as it may arrive from the network.
        let encoded = tokio::io::BufReader::with_capacity(1, io::Cursor::new(bytes.to_vec()));
        let mut out = Vec::new();
        Decoder::new(coding, Box::pin(encoded)).read_to_end(&mut out).await.map(|_| out)
    }

    async fn decoded(coding: Coding, bytes: &[u8]) -> io::Result<usize> {
        text_of(coding, bytes).await.map(|text| text.len())
    }

    macro_rules! encoded {
        ($encoder:ident, $text:expr) => {{
            let mut encoder = $encoder::with_quality(Vec::new(), Level::Precise(4));
            encoder.write_all($text).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }};
    }

    /// `text` in every coding, with and without zlib's header.
    async fn encodings(text: &[u8]) -> [(Coding, Vec<u8>); 5] {
        [
            (Coding::Gzip, encoded!(GzipEncoder, text)),
            (Coding::Deflate, encoded!(ZlibEncoder, text)),
            (Coding::Deflate, encoded!(DeflateEncoder, text)),
            (Coding::Brotli, encoded!(BrotliEncoder, text)),
            (Coding::Zstd, encoded!(ZstdEncoder, text)),
        ]
    }

    #[tokio::test]
    async fn decoder_returns_the_whole_text_or_an_error() {
        let text: Vec<u8> = (0..500_u32).flat_map(u32::to_le_bytes).collect();
        for (coding, bytes) in encodings(&text).await {
            assert_eq!(text_of(coding, &bytes).await.unwrap(), text, "{coding:?}");
            for cut in (1..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
                let got = decoded(coding, &bytes[..cut]).await;
                assert!(got.is_err(), "{coding:?}, cut off at {cut} of {}: {got:?}", bytes.len());
            }
            for behind in [&b"\0"[..], b"\r\n", b"garbage", &[0; 600]] {
                let got = decoded(coding, &[&bytes, behind].concat()).await;
                assert!(got.is_err(), "{coding:?}, followed by {behind:?}: {got:?}");
            }
            assert_eq!(decoded(coding, b"").await.unwrap(), 0, "{coding:?}");
        }
    }

    /// RFC 1952 section 2.2 and RFC 8878 section 3.1. The other codings have one end.
    #[tokio::test]
    async fn consecutive_members_and_frames_are_decoded() {
        let (first, second) = (b"a".repeat(3000), b"b".repeat(3043));
        let both = [&first[..], &second].concat();
        for ((coding, one), (_, two)) in encodings(&first).await.into_iter().zip(encodings(&second).await) {
            let got = text_of(coding, &[&one[..], &two].concat()).await;
            match coding {
                Coding::Gzip | Coding::Zstd => assert_eq!(got.unwrap(), both, "{coding:?}"),
                Coding::Deflate | Coding::Brotli => assert!(got.is_err(), "{coding:?}"),
            }
        }
    }

    /// RFC 8878 section 3.1.2.
    #[tokio::test]
    async fn skippable_frames_are_ignored() {
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat();
        let frame = encoded!(ZstdEncoder, b"text");
        let check = async |parts: &[&[u8]], expected: &[u8]| {
            assert_eq!(text_of(Coding::Zstd, &parts.concat()).await.unwrap(), expected);
        };
        check(&[&skippable, &frame], b"text").await;
        check(&[&frame, &skippable], b"text").await;
        check(&[&frame, &skippable, &frame], b"texttext").await;
        check(&[&skippable], b"").await;
    }

    /// Memory for a response is bounded, whatever window the response declares.
    #[tokio::test]
    async fn decoder_windows_are_bounded() {
        use async_compression::zstd::CParameter;

        let text = b"some text of some length, ".repeat(100);
        for (log, fits) in [(20, true), (ZSTD_WINDOW, true), (ZSTD_WINDOW + 1, false), (27, false)] {
            let window = [CParameter::window_log(log)];
            let mut encoder = ZstdEncoder::with_quality_and_params(Vec::new(), Level::Default, &window);
            encoder.write_all(&text).await.unwrap();
            // The encoder flushes before the end, so that it cannot know that the text is short.
            encoder.flush().await.unwrap();
            encoder.shutdown().await.unwrap();
            let got = decoded(Coding::Zstd, &encoder.into_inner()).await;
            assert_eq!(got.is_ok(), fits, "{log} {got:?}");
        }
        let mut encoder = BrotliEncoder::with_quality(Vec::new(), Level::Precise(4));
        encoder.write_all(&text).await.unwrap();
        encoder.shutdown().await.unwrap();
        assert_eq!(decoded(Coding::Brotli, &encoder.into_inner()).await.unwrap(), text.len());
        // A large window of 30 bits, and an empty last block.
        let large = decoded(Coding::Brotli, &[0x11, 0x1e, 0x03]).await.unwrap_err();
        assert!(large.to_string().contains("large window"), "{large}");
    }
}
