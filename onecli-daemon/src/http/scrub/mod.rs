//! Removes credentials from what comes back: each byte of a match becomes `*`, so that lengths stay true.

mod unescape;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::{HeaderMap, HeaderName};
use memchr::memmem;
use zeroize::Zeroizing;

use crate::model::SecretValue;
pub(super) use unescape::Unescaped;

/// Replaces each byte of a match.
const MASK: u8 = b'*';

/// Looks for values in a stream of bytes, across the edges of its chunks.
#[derive(Default)]
pub(super) struct Scrubber {
    needles: Vec<Needle>,
    /// The end of the stream so far as it came, where it may be the beginning of a match.
    held: BytesMut,
    /// So many of the held bytes belong to a match already.
    held_matched: usize,
    hits: u64,
}

/// A spelling that cannot be varied but by escapes.
struct Needle {
    bytes: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Needle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Needle(..)")
    }
}

/// What is held back may be the beginning of a value.
impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scrubber({} needles, ..)", self.needles.len())
    }
}

/// What was found in some bytes.
#[derive(Debug, Default)]
struct Findings {
    /// Matches, as start and end.
    matches: Vec<(usize, usize)>,
    /// From here on the bytes may be the beginning of a match.
    open_from: usize,
}

impl Scrubber {
    /// Looks for this value too: as it is, in base64 (both alphabets, wherever in a longer text it stands, as in Basic
    /// credentials) and in hex; each of them also with characters escaped ([`unescape`]).
    pub(super) fn watch(&mut self, value: &SecretValue) {
        let raw = value.expose();
        self.add(raw.to_vec());
        if raw.contains(&b' ') {
            // application/x-www-form-urlencoded
            self.add(raw.iter().map(|b| if *b == b' ' { b'+' } else { *b }).collect());
        }
        for encoding in [&data_encoding::BASE64_NOPAD, &data_encoding::BASE64URL_NOPAD] {
            for offset in 0..3 {
                self.add(base64_core(encoding, raw, offset));
            }
        }
        self.add(data_encoding::HEXLOWER.encode(raw).into_bytes());
        self.add(data_encoding::HEXUPPER.encode(raw).into_bytes());
    }

    fn add(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() && !self.needles.iter().any(|needle| *needle.bytes == bytes) {
            self.needles.push(Needle { bytes: Zeroizing::new(bytes) });
        }
    }

    /// Is there nothing to look for?
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
        if self.held.is_empty() {
            let findings = self.find(&chunk);
            if findings.matches.is_empty() {
                self.held.extend_from_slice(&chunk[findings.open_from..]);
                return chunk.slice(..findings.open_from);
            }
            return self.emit(BytesMut::from(chunk), &findings);
        }
        let mut buffer = std::mem::take(&mut self.held);
        buffer.extend_from_slice(&chunk);
        let findings = self.find(&buffer);
        self.emit(buffer, &findings)
    }

    /// The rest, when the stream has ended.
    pub(super) fn finish(&mut self) -> Bytes {
        let mut rest = std::mem::take(&mut self.held);
        mask(&mut rest, 0, std::mem::take(&mut self.held_matched));
        rest.freeze()
    }

    /// How many bytes are kept back.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Scrubs bytes that stand for themselves; tells whether there was a match.
    pub(super) fn whole(&mut self, bytes: &mut [u8]) -> bool {
        let findings = self.find(bytes);
        for (start, end) in &findings.matches {
            mask(bytes, *start, *end);
        }
        self.hits += count(findings.matches.len());
        !findings.matches.is_empty()
    }

    /// Scrubs header or trailer fields. A field whose name holds a value goes as a whole.
    pub(super) fn headers(&mut self, headers: &mut HeaderMap) {
        if self.needles.is_empty() {
            return;
        }
        let named: Vec<HeaderName> = headers.keys().filter(|name| self.is_in_name(name)).cloned().collect();
        for name in named {
            self.hits += 1;
            headers.remove(name);
        }
        for value in headers.values_mut() {
            let mut bytes = BytesMut::from(value.as_bytes());
            if !self.whole(&mut bytes) {
                continue;
            }
            // Masking puts only '*' in, so the value stays valid.
            *value = HeaderValue::from_maybe_shared(bytes.freeze()).unwrap_or(HeaderValue::from_static("*"));
        }
    }

    /// Field names are lower case by the time they are here.
    fn is_in_name(&self, name: &HeaderName) -> bool {
        let name = name.as_str().as_bytes();
        self.needles.iter().any(|needle| {
            name.len() >= needle.bytes.len()
                && memmem::find(name, &Zeroizing::new(needle.bytes.to_ascii_lowercase())).is_some()
        })
    }

    /// Masks, and gives what is decided.
    fn emit(&mut self, mut buffer: BytesMut, findings: &Findings) -> Bytes {
        let (before, open_from) = (self.held_matched, findings.open_from);
        mask(&mut buffer, 0, before.min(open_from));
        self.held_matched = before.saturating_sub(open_from);
        for &(start, end) in &findings.matches {
            mask(&mut buffer, start, end.min(open_from));
            // What is held stays as it came: another match may overlap this one.
            self.held_matched = self.held_matched.max(end.saturating_sub(open_from));
        }
        self.hits += count(findings.matches.len());
        self.held = buffer.split_off(open_from);
        buffer.freeze()
    }

    /// Searches the bytes as they are, and with escapes decoded.
    fn find(&self, haystack: &[u8]) -> Findings {
        let mut findings = Findings { matches: Vec::new(), open_from: haystack.len() };
        for needle in &self.needles {
            all_matches(haystack, &needle.bytes, |start, end| findings.matches.push((start, end)));
            findings.open_from =
                findings.open_from.min(haystack.len() - open_suffix(haystack, &needle.bytes));
        }
        if let Some(view) = Unescaped::of(haystack) {
            let text = view.text();
            for needle in &self.needles {
                all_matches(text, &needle.bytes, |start, end| {
                    findings.matches.push(view.raw_range(start, end));
                });
                let open = open_suffix(text, &needle.bytes);
                if open > 0 {
                    let (from, _) = view.raw_range(text.len() - open, text.len());
                    findings.open_from = findings.open_from.min(from);
                }
            }
            findings.open_from = findings.open_from.min(view.incomplete().unwrap_or(haystack.len()));
        }
        findings.matches.sort_unstable();
        findings.matches.dedup();
        findings
    }
}

/// Every match, overlapping ones too.
fn all_matches(haystack: &[u8], needle: &[u8], mut found: impl FnMut(usize, usize)) {
    let finder = memmem::Finder::new(needle);
    let mut from = 0;
    while let Some(at) = haystack.get(from..).and_then(|rest| finder.find(rest)) {
        found(from + at, from + at + needle.len());
        from += at + 1;
    }
}

/// Length of the longest end of `haystack` that begins `needle`, but is not all of it.
fn open_suffix(haystack: &[u8], needle: &[u8]) -> usize {
    let start = haystack.len().saturating_sub(needle.len() - 1);
    memchr::memchr_iter(needle[0], &haystack[start..])
        .map(|at| &haystack[start + at..])
        .find(|tail| needle.starts_with(tail))
        .map_or(0, <[u8]>::len)
}

/// Line breaks within a match stay: a wrapped text keeps its lines.
fn mask(buffer: &mut [u8], start: usize, end: usize) {
    if let Some(bytes) = buffer.get_mut(start..end) {
        for byte in bytes.iter_mut().filter(|byte| !matches!(**byte, b'\r' | b'\n')) {
            *byte = MASK;
        }
    }
}

fn count(matches: usize) -> u64 {
    u64::try_from(matches).unwrap_or(u64::MAX)
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

#[cfg(test)]
mod tests;
