//! Properties of private modules that the fuzz targets check. Each function panics if its property is violated.

#![allow(clippy::missing_panics_doc, reason = "a violated property must end the fuzzer")]

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use onecli_model::{SecretValue, ValueClass, WireForm};
use tokio::io::{AsyncRead, ReadBuf};

use super::scrub::{EscapedText, Scrubber};
use crate::http::h1::{MAX_FIELDS, RejectedRequest, StrictReader};

/// The scrubber: pieces give the same result as the whole, lengths do not change, and the value is gone.
///
/// Input: a value, the sizes of its pieces, and a text in which four bytes are replaced with spellings of the value.
pub fn scrub(bytes: &[u8]) {
    let Some((&length, rest)) = bytes.split_first() else { return };
    let Some((value, text)) = rest.split_at_checked(8 + usize::from(length % 24)) else { return };
    // The mask character could form the value again, and line ends are not masked.
    if !value.iter().all(|byte| (0x20..0x7f).contains(byte) && *byte != b'*') {
        return;
    }
    let Ok(secret) = SecretValue::new(value.to_vec()) else { return };
    let percent: Vec<u8> = value.iter().flat_map(|byte| format!("%{byte:02x}").into_bytes()).collect();
    let json: Vec<u8> = value.iter().flat_map(|byte| format!("\\\\u{byte:04x}").into_bytes()).collect();
    let mut base64 = data_encoding::BASE64.encode(value).into_bytes();
    base64.insert(base64.len() / 2, b'\n');
    let text: Vec<u8> = text
        .iter()
        .flat_map(|byte| match byte {
            0xff => value.to_vec(),
            0xfe => base64.clone(),
            0xfd => percent.clone(),
            0xfc => json.clone(),
            other => vec![*other],
        })
        .collect();
    let run = |sizes: &[u8]| {
        let mut scrubber = Scrubber::default();
        scrubber.add_forms(&WireForm::plain(&secret));
        let (mut out, mut rest) = (Vec::new(), text.as_slice());
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, behind) = rest.split_at(rest.len().min(1 + usize::from(*size % 16)));
            out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(piece)));
            rest = behind;
        }
        out.extend_from_slice(&scrubber.finish());
        out
    };
    let mut scrubber = Scrubber::default();
    scrubber.add_forms(&WireForm::plain(&secret));
    let mut whole = scrubber.push(Bytes::copy_from_slice(&text)).to_vec();
    whole.extend_from_slice(&scrubber.finish());
    assert_eq!(whole.len(), text.len());
    let base64 = &base64[..value.len() / 3 * 4];
    for spelling in [value, &percent, &json, base64] {
        assert!(memchr::memmem::find(&whole, spelling).is_none(), "{}", whole.escape_ascii());
    }
    let pieces = run(value);
    assert_eq!(pieces.escape_ascii().to_string(), whole.escape_ascii().to_string(), "in pieces");
    assert_eq!(run(&[0]).escape_ascii().to_string(), whole.escape_ascii().to_string(), "byte by byte");
}

/// The scrubber: the pieces and their times are the same for any two values of one class that do not occur in the
/// text.
///
/// Input: a length, the length of the prefix that two values share, the values, and the size of the pieces. Then a
/// text in which two bytes are replaced with beginnings of the first value, plain and in hex; the next byte gives
/// their length.
pub fn noninterference(bytes: &[u8]) {
    let &[length, common, ref rest @ ..] = bytes else { return };
    let (length, common) = (8 + usize::from(length % 24), usize::from(common));
    let Some((value, rest)) = rest.split_at_checked(length) else { return };
    let Some((ends, rest)) = rest.split_at_checked(length) else { return };
    let Some((&size, text)) = rest.split_first() else { return };
    let other = [&value[..common.min(length)], &ends[common.min(length)..]].concat();
    let (Ok(value), Ok(other)) = (SecretValue::new(value.to_vec()), SecretValue::new(other)) else { return };
    if ValueClass::of(&value) != ValueClass::of(&other) {
        return;
    }
    let hex = data_encoding::HEXLOWER.encode(value.expose());
    let (mut whole, mut rest) = (Vec::new(), text.iter());
    while let Some(byte) = rest.next() {
        let form = match byte {
            0xff => value.expose(),
            0xfe => hex.as_bytes(),
            _ => {
                whole.push(*byte);
                continue;
            }
        };
        let length = usize::from(rest.next().copied().unwrap_or_default()) % form.len();
        whole.extend_from_slice(&form[..length]);
    }
    let run = |value: &SecretValue| {
        let mut scrubber = Scrubber::default();
        scrubber.add_forms(&WireForm::plain(value));
        let pieces = whole.chunks(1 + usize::from(size % 32));
        let mut out: Vec<Bytes> = pieces.map(|piece| scrubber.push(Bytes::copy_from_slice(piece))).collect();
        out.push(scrubber.finish());
        (scrubber.hits() == 0).then_some(out)
    };
    if let (Some(one), Some(another)) = (run(&value), run(&other)) {
        assert_eq!(one, another);
    }
}

/// Readings of a text: no byte is lost to an escape, and no reading depends on where the bytes are cut.
///
/// Checks that each byte can be read as itself, and that no reading ends beyond the bytes. A complete reading must
/// not depend on later bytes.
pub fn readings(bytes: &[u8]) {
    let whole = EscapedText::new(bytes);
    let half = EscapedText::new(&bytes[..bytes.len() / 2]);
    for at in 0..bytes.len() {
        let of = |text: &EscapedText<'_>| text.readings(at).map(|r| (r.character, r.end)).collect::<Vec<_>>();
        let readings = of(&whole);
        let itself = readings.first().map(|(character, end)| (character.as_bytes(), *end));
        assert_eq!(itself, Some((&bytes[at..=at], at + 1)));
        assert!(readings.iter().all(|(_, end)| *end <= bytes.len()), "{at}: {readings:?}");
        let before = of(&half);
        assert!(before.iter().all(|reading| readings.contains(reading)), "{at}: {before:?} {readings:?}");
        assert!(half.is_cut(at) || before.len() == readings.len(), "{at}: {before:?} {readings:?}");
    }
}

/// A client that sends pieces of a size and then ends.
struct Pieces<'b>(&'b [u8], usize);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let length = self.0.len().min(self.1).min(buf.remaining());
        let (now, rest) = self.0.split_at(length);
        buf.put_slice(now);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

/// Returns the bytes that pass, and the refusal of the rest.
fn read(bytes: &[u8], size: usize) -> (Vec<u8>, Option<String>) {
    let (mut reader, handle) = StrictReader::new(Pieces(bytes, size), Duration::from_mins(1));
    let mut cx = Context::from_waker(Waker::noop());
    let (mut passed, mut room) = (Vec::new(), vec![0; 4096]);
    let mut refused = None;
    loop {
        let mut buf = ReadBuf::new(&mut room);
        match Pin::new(&mut reader).poll_read(&mut cx, &mut buf) {
            Poll::Ready(Ok(())) if buf.filled().is_empty() => break,
            Poll::Ready(Ok(())) => passed.extend_from_slice(buf.filled()),
            Poll::Ready(Err(error)) => {
                refused = Some(error.to_string());
                break;
            }
            Poll::Pending => break,
        }
    }
    for _ in 0..=bytes.len() {
        let mut request = Request::new(());
        let _ = handle.arrive(&mut request);
        refused = refused.or(RejectedRequest::of(&request).map(|rejected| rejected.refusal().to_string()));
    }
    (passed, refused)
}

/// The front: the bytes that pass do not depend on how they arrive, and hyper's parser agrees with the result.
pub fn front(bytes: &[u8]) {
    // The reader's timer needs a clock; its time limit is never reached.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let Ok(runtime) = runtime else { return };
    let _entered = runtime.enter();
    let whole = read(bytes, usize::MAX);
    assert_eq!(read(bytes, 1), whole, "byte by byte");
    assert_eq!(read(bytes, 7), whole, "in pieces");
    if whole.0.is_empty() {
        return;
    }
    let mut headers = vec![httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(&whole.0);
    assert!(parsed.is_ok_and(|parsed| parsed.is_complete()), "{}", whole.0.escape_ascii());
}
