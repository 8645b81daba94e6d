//! Removes credentials from what comes back: each byte of a match becomes `*`, so that lengths stay true.

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::HeaderMap;
use memchr::memmem;
use percent_encoding::percent_encode;
use zeroize::Zeroizing;

use super::inject::RESERVED;
use crate::model::SecretValue;

/// Replaces each byte of a match.
const MASK: u8 = b'*';

/// Looks for values in a stream of bytes, across the edges of its chunks.
#[derive(Debug, Default)]
pub(super) struct Scrubber {
    needles: Vec<Needle>,
    /// The end of the stream so far, where it may be the beginning of a match.
    held: BytesMut,
    hits: u64,
}

struct Needle {
    bytes: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Needle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Needle(..)")
    }
}

impl Scrubber {
    /// Looks for this value too, in the forms an upstream echoes: raw, base64 (both alphabets, wherever in a longer
    /// text it stands, as in Basic credentials), hex, percent-encoded, JSON-escaped.
    pub(super) fn watch(&mut self, value: &SecretValue) {
        let raw = value.expose();
        self.add(raw.to_vec());
        for encoding in [&data_encoding::BASE64_NOPAD, &data_encoding::BASE64URL_NOPAD] {
            for offset in 0..3 {
                self.add(base64_core(encoding, raw, offset));
            }
        }
        self.add(data_encoding::HEXLOWER.encode(raw).into_bytes());
        self.add(data_encoding::HEXUPPER.encode(raw).into_bytes());
        self.add(every_byte_escaped(&data_encoding::HEXUPPER.encode(raw)));
        self.add(every_byte_escaped(&data_encoding::HEXLOWER.encode(raw)));
        let percent = percent_encode(raw, RESERVED).to_string();
        self.add(lower_escapes(&percent).into_bytes());
        self.add(percent.into_bytes());
        if let Ok(text) = std::str::from_utf8(raw)
            && let Ok(json) = serde_json::to_string(text)
            && let Some(escaped) = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'))
        {
            self.add(escaped.replace('/', "\\/").into_bytes());
            self.add(escaped.as_bytes().to_vec());
        }
    }

    fn add(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() && !self.needles.iter().any(|needle| *needle.bytes == bytes) {
            self.needles.push(Needle { bytes: Zeroizing::new(bytes) });
        }
    }

    /// Is there anything to look for?
    pub(super) fn is_idle(&self) -> bool {
        self.needles.is_empty()
    }

    /// Matches so far.
    pub(super) fn hits(&self) -> u64 {
        self.hits
    }

    /// Takes the next chunk, and gives what can be said to be clean. Only bytes that may begin a match are kept
    /// back, so an event stream is not delayed.
    pub(super) fn push(&mut self, chunk: Bytes) -> Bytes {
        if self.needles.is_empty() {
            return chunk;
        }
        if self.held.is_empty() && self.find(&chunk).is_empty() {
            let clean = chunk.len() - self.open_suffix(&chunk);
            self.held.extend_from_slice(&chunk[clean..]);
            return chunk.slice(..clean);
        }
        let mut buffer = std::mem::take(&mut self.held);
        buffer.extend_from_slice(&chunk);
        let found = self.find(&buffer);
        let clean = buffer.len() - self.open_suffix(&buffer);
        self.mask(&mut buffer, &found);
        self.held = buffer.split_off(clean);
        buffer.freeze()
    }

    /// The rest, when the stream has ended.
    pub(super) fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }

    /// How many bytes are kept back.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Scrubs header or trailer fields.
    pub(super) fn headers(&mut self, headers: &mut HeaderMap) {
        if self.needles.is_empty() {
            return;
        }
        for value in headers.values_mut() {
            let found = self.find(value.as_bytes());
            if found.is_empty() {
                continue;
            }
            let mut bytes = BytesMut::from(value.as_bytes());
            self.mask(&mut bytes, &found);
            // Masking puts only '*' in, so the value stays valid.
            *value = HeaderValue::from_maybe_shared(bytes.freeze()).unwrap_or(HeaderValue::from_static("*"));
        }
    }

    /// Every match, overlapping ones too, as (start, length).
    fn find(&self, haystack: &[u8]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for needle in &self.needles {
            let finder = memmem::Finder::new(needle.bytes.as_slice());
            let mut from = 0;
            while let Some(at) = haystack.get(from..).and_then(|rest| finder.find(rest)) {
                found.push((from + at, needle.bytes.len()));
                from += at + 1;
            }
        }
        found
    }

    fn mask(&mut self, buffer: &mut [u8], found: &[(usize, usize)]) {
        for (start, length) in found {
            buffer[*start..start + length].fill(MASK);
        }
        self.hits += u64::try_from(found.len()).unwrap_or(u64::MAX);
    }

    /// Length of the longest end of `buffer` that begins a match.
    fn open_suffix(&self, buffer: &[u8]) -> usize {
        let longest = |needle: &Needle| {
            let bytes = needle.bytes.as_slice();
            let start = buffer.len().saturating_sub(bytes.len() - 1);
            memchr::memchr_iter(bytes[0], &buffer[start..])
                .map(|at| &buffer[start + at..])
                .find(|tail| bytes.starts_with(tail))
                .map_or(0, <[u8]>::len)
        };
        self.needles.iter().map(longest).max().unwrap_or(0)
    }
}

/// The base64 characters that depend on `value` alone where it begins `offset` bytes after a multiple of three
/// (RFC 4648 section 4): the first and the last may also carry bits of what stands beside it.
fn base64_core(encoding: &data_encoding::Encoding, value: &[u8], offset: usize) -> Vec<u8> {
    let mut padded = Zeroizing::new(vec![0; offset]);
    padded.extend_from_slice(value);
    let mut encoded = encoding.encode(&padded).into_bytes();
    if !padded.len().is_multiple_of(3) {
        encoded.pop();
    }
    encoded.split_off((offset * 8).div_ceil(6))
}

/// `%61%62` from `6162`.
fn every_byte_escaped(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).flat_map(|pair| [b"%", pair].concat()).collect()
}

/// `%2F` as `%2f`.
fn lower_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut escape = 0;
    for c in text.chars() {
        if c == '%' {
            escape = 3;
        }
        out.push(if escape > 0 { c.to_ascii_lowercase() } else { c });
        escape = i32::max(escape - 1, 0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &[u8] = b"s3cr3t/\"value+1";

    fn scrubber() -> Scrubber {
        let mut scrubber = Scrubber::default();
        scrubber.watch(&SecretValue::new(VALUE.to_vec()).unwrap());
        scrubber
    }

    /// Feeds `text` in chunks of `size`.
    fn scrub(text: &[u8], size: usize) -> (Vec<u8>, u64) {
        let mut scrubber = scrubber();
        let mut out = Vec::new();
        for chunk in text.chunks(size) {
            out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(chunk)));
        }
        out.extend_from_slice(&scrubber.finish());
        (out, scrubber.hits())
    }

    #[test]
    fn a_value_is_found_in_every_form_and_across_every_edge() {
        let raw = String::from_utf8(VALUE.to_vec()).unwrap();
        // In the middle of base64, the first and last characters of a match belong to the neighbours too.
        let within = |before: &str| {
            let text = [before.as_bytes(), VALUE, b"!?"].concat();
            let encoded = data_encoding::BASE64.encode(&text);
            let core = base64_core(&data_encoding::BASE64_NOPAD, VALUE, before.len() % 3);
            assert!(encoded.contains(std::str::from_utf8(&core).unwrap()), "{before}");
            String::from_utf8(core).unwrap()
        };
        let forms = [
            raw.clone(),
            data_encoding::BASE64.encode(VALUE),
            data_encoding::BASE64URL_NOPAD.encode(VALUE),
            within("git:"),
            within("gi"),
            within("gitgit"),
            data_encoding::HEXLOWER.encode(VALUE),
            data_encoding::HEXUPPER.encode(VALUE),
            "s3cr3t%2F%22value%2B1".to_owned(),
            "s3cr3t%2f%22value%2b1".to_owned(),
            r#"s3cr3t/\"value+1"#.to_owned(),
            r#"s3cr3t\/\"value+1"#.to_owned(),
        ];
        for form in forms {
            let text = format!("before s3cr3 {form} after");
            for size in 1..text.len() {
                let (out, hits) = scrub(text.as_bytes(), size);
                let out = String::from_utf8(out).unwrap();
                assert_eq!(out.len(), text.len(), "{form} {size}");
                assert!(!out.contains(form.as_str()), "{form} {size}: {out}");
                assert!(out.starts_with("before s3cr3 ") && out.ends_with(" after"), "{form} {size}: {out}");
                assert!(hits >= 1, "{form} {size}");
            }
        }
    }

    #[test]
    fn nothing_else_is_touched_or_delayed() {
        let text = b"data: hello\n\n";
        let mut scrubber = scrubber();
        assert_eq!(&scrubber.push(Bytes::from_static(text))[..], text);
        assert_eq!(scrubber.held(), 0);
        assert_eq!(scrub(b"s3cr3t/ and s3cr3t", 3), (b"s3cr3t/ and s3cr3t".to_vec(), 0));
    }

    #[test]
    fn overlapping_values_leave_no_end_behind() {
        let mut scrubber = Scrubber::default();
        scrubber.watch(&SecretValue::new(b"abcabcabc".to_vec()).unwrap());
        assert_eq!(&scrubber.push(Bytes::from_static(b"xabcabcabcabcy"))[..], b"x************y");
    }

    #[test]
    fn header_fields() {
        let mut headers = HeaderMap::new();
        let value = [b"Bearer ".as_slice(), VALUE].concat();
        headers.insert("x-echo", HeaderValue::from_bytes(&value).unwrap());
        headers.insert("x-other", HeaderValue::from_static("untouched"));
        let mut scrubber = scrubber();
        scrubber.headers(&mut headers);
        assert_eq!(headers["x-echo"], "Bearer ***************");
        assert_eq!(headers["x-other"], "untouched");
    }
}
