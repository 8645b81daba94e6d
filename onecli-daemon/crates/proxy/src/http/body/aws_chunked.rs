//! Removes an AWS SDK's chunk signatures from a body (Signature Version 4, "multiple chunks"). The SDK made them with
//! placeholder keys, so they are invalid.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::types::BodyError;

/// Maximum length of a chunk's head line or of a trailer line, in bytes.
const LONGEST_LINE: usize = 4096;
/// Maximum number of trailers.
const MOST_TRAILERS: usize = 32;

/// The form in which the body is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The data alone, for `UNSIGNED-PAYLOAD`.
    Plain,
    /// Chunks without signatures and the trailers, for `STREAMING-UNSIGNED-PAYLOAD-TRAILER`.
    Chunks,
}

/// A body in `aws-chunked` coding that is being forwarded.
#[derive(Debug)]
pub(crate) struct AwsChunked<B> {
    inner: B,
    decoder: Decoder,
    /// Length of the data, as the sender declared it.
    length: Option<u64>,
}

impl<B> AwsChunked<B> {
    pub(crate) fn new(inner: B, form: Form, length: Option<u64>) -> AwsChunked<B> {
        AwsChunked { inner, decoder: Decoder::new(form), length }
    }
}

impl<B> HttpBody for AwsChunked<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    match self.decoder.push(data) {
                        Ok(out) if out.is_empty() => {}
                        Ok(out) => return Poll::Ready(Some(Ok(Frame::data(out)))),
                        Err(error) => return Poll::Ready(Some(Err(error.into()))),
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None if self.decoder.state == State::Done => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(Malformed.into()))),
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (self.decoder.form, self.length) {
            (Form::Plain, Some(length)) => SizeHint::with_exact(length.saturating_sub(self.decoder.data)),
            _ => SizeHint::new(),
        }
    }
}

/// The error for a body that is not in the coding that its head names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not a valid aws-chunked stream")]
struct Malformed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Within the line that begins a chunk.
    Head,
    /// The number of data bytes that are still to come.
    Data(u64),
    /// The line end after the data.
    DataEnd,
    /// After the last chunk: trailers, and an empty line.
    Trailers(usize),
    Done,
}

#[derive(Debug)]
struct Decoder {
    form: Form,
    state: State,
    line: Vec<u8>,
    data: u64,
}

impl Decoder {
    fn new(form: Form) -> Decoder {
        Decoder { form, state: State::Head, line: Vec::new(), data: 0 }
    }

    fn push(&mut self, mut input: Bytes) -> Result<Bytes, Malformed> {
        let mut out = BytesMut::with_capacity(input.len());
        while !input.is_empty() {
            if let State::Data(left) = self.state {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                out.extend_from_slice(&input[..here]);
                input.advance(here);
                let here = u64::try_from(here).map_err(|_| Malformed)?;
                self.data += here;
                self.state = if left == here { State::DataEnd } else { State::Data(left - here) };
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', &input) else {
                self.line.extend_from_slice(&input);
                if self.line.len() > LONGEST_LINE {
                    return Err(Malformed);
                }
                break;
            };
            self.line.extend_from_slice(&input[..end]);
            input.advance(end + 1);
            if self.line.len() > LONGEST_LINE || self.line.pop() != Some(b'\r') {
                return Err(Malformed);
            }
            let line = std::mem::take(&mut self.line);
            self.line_ended(&line, &mut out)?;
        }
        Ok(out.freeze())
    }

    fn line_ended(&mut self, line: &[u8], out: &mut BytesMut) -> Result<(), Malformed> {
        let chunks = self.form == Form::Chunks;
        self.state = match self.state {
            State::Head => {
                let size = line.split(|b| *b == b';').next().unwrap_or_default();
                let text = std::str::from_utf8(size).map_err(|_| Malformed)?;
                if text.is_empty() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(Malformed);
                }
                let size = u64::from_str_radix(text, 16).map_err(|_| Malformed)?;
                if chunks {
                    out.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                }
                if size == 0 { State::Trailers(0) } else { State::Data(size) }
            }
            State::DataEnd if line.is_empty() => {
                if chunks {
                    out.extend_from_slice(b"\r\n");
                }
                State::Head
            }
            State::Trailers(_) if line.is_empty() => {
                if chunks {
                    out.extend_from_slice(b"\r\n");
                }
                State::Done
            }
            State::Trailers(count) if count < MOST_TRAILERS && chunks => {
                // Drops the signature, which was made with placeholder keys. The checksums beside it remain.
                let name = line.split(|b| *b == b':').next().unwrap_or_default();
                if !name.eq_ignore_ascii_case(b"x-amz-trailer-signature") {
                    out.extend_from_slice(line);
                    out.extend_from_slice(b"\r\n");
                }
                State::Trailers(count + 1)
            }
            _ => return Err(Malformed),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED: &str = "5;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\nhello\r\n\
        6;chunk-signature=00\r\n world\r\n0;chunk-signature=b6c6\r\n";

    fn decode(form: Form, body: &str, piece: usize) -> Result<String, Malformed> {
        let mut decoder = Decoder::new(form);
        let mut out = Vec::new();
        for part in body.as_bytes().chunks(piece) {
            out.extend_from_slice(&decoder.push(Bytes::copy_from_slice(part))?);
        }
        if decoder.state == State::Done { Ok(String::from_utf8(out).unwrap()) } else { Err(Malformed) }
    }

    #[test]
    fn signatures_are_removed_and_data_is_unchanged() {
        let whole = format!("{SIGNED}\r\n");
        let trailers =
            format!("{SIGNED}x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:63bddb\r\n\r\n");
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(decode(Form::Plain, &whole, piece).as_deref(), Ok("hello world"));
            assert_eq!(
                decode(Form::Chunks, &trailers, piece).as_deref(),
                Ok("5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32c:sOO8/Q==\r\n\r\n")
            );
        }
        assert_eq!(decode(Form::Plain, "0;chunk-signature=x\r\n\r\n", 100).as_deref(), Ok(""));
    }

    #[test]
    fn malformed_body_breaks_off() {
        for bad in [
            "",
            "5\r\nhello\r\n",
            "5\r\nhelloX\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "zz\r\n",
            "\r\n",
            "0\r\n\r\nmore\r\n",
            "0\r\ntrailer: x\r\n\r\n",
            "fffffffffffffffff\r\n",
            &"1".repeat(5000),
        ] {
            assert_eq!(decode(Form::Plain, bad, 1000), Err(Malformed), "{bad:?}");
        }
    }
}
