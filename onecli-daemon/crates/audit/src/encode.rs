//! Encoding of records as lines. Only this module turns a record into a line and links it to the line before.

use std::io;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::fields::Record;
use super::link::Link;
use super::record::Entry;
use super::tree::{Hash, leaf_hash};

/// [`Entry`] with its record borrowed.
#[derive(Serialize)]
struct EntryRef<'a> {
    #[serde(serialize_with = "microseconds")]
    time: Timestamp,
    seq: u64,
    #[serde(serialize_with = "display")]
    prev: Link,
    #[serde(flatten)]
    record: &'a Record,
}

/// Appends a record's line to `out`: one JSON object and a line feed. The object itself contains no line feed.
/// Returns the line's leaf hash.
pub(super) fn encode(time: Timestamp, seq: u64, prev: Link, record: &Record, out: &mut Vec<u8>) -> Hash {
    let start = out.len();
    #[expect(clippy::expect_used, reason = "only texts and numbers, and a Vec never fails")]
    serde_json::to_writer(&mut *out, &EntryRef { time, seq, prev, record })
        .expect("a record is always valid JSON");
    let hash = leaf_hash(&out[start..]);
    out.push(b'\n');
    hash
}

/// The bytes of a line besides its record: time, number and link. The longest number has 20 digits.
const ENVELOPE_BYTES: usize =
    r#""time":"2026-01-02T03:04:05.678901Z","seq":,"prev":"0123456789abcdef0123456789abcdef","#.len()
        + 20
        + 1;

/// The upper bound for the length of a record's line with its line feed, in bytes. The actual line is shorter by
/// one byte for each digit that its number has less than 20.
fn line_bytes(record: &Record) -> u64 {
    let mut counted = Counter(ENVELOPE_BYTES);
    #[expect(clippy::expect_used, reason = "only texts and numbers, and a counter never fails")]
    serde_json::to_writer(&mut counted, record).expect("a record is always valid JSON");
    counted.0 as u64
}

impl Record {
    /// The upper bound for the length of this record's line, in bytes.
    pub fn line_bytes(&self) -> u64 {
        line_bytes(self)
    }
}

/// Counts the bytes written to it.
struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn microseconds<S: Serializer>(time: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(&format_args!("{time:.6}"))
}

fn display<S: Serializer>(link: &Link, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(link)
}

/// Decodes a line, which must be without its line feed.
///
/// # Errors
/// The message of serde if the line is not an entry.
pub(super) fn decode(line: &[u8]) -> Result<Entry, String> {
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

/// The beginning that all lines share. Verification reads millions of lines, so this parses nothing behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinePrefix<'l> {
    pub(super) time: &'l str,
    pub(super) seq: u64,
    pub(super) prev: Link,
}

impl<'l> LinePrefix<'l> {
    /// Returns `None` if the line does not begin as [`encode`] writes it.
    pub(super) fn read(line: &'l [u8]) -> Option<LinePrefix<'l>> {
        let rest = line.strip_prefix(br#"{"time":""#)?;
        let (time, rest) = rest.split_at(memchr::memchr(b'"', rest)?);
        let rest = rest.strip_prefix(br#"","seq":"#)?;
        let (seq, rest) = rest.split_at(memchr::memchr(b',', rest)?);
        let (prev, rest) = rest.strip_prefix(br#","prev":""#)?.split_at_checked(32)?;
        if !rest.starts_with(b"\"") || !rest.ends_with(b"}") {
            return None;
        }
        Some(LinePrefix {
            time: std::str::from_utf8(time).ok()?,
            seq: std::str::from_utf8(seq).ok()?.parse().ok()?,
            prev: std::str::from_utf8(prev).ok()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_bytes_counts_the_whole_line() {
        for record in [Record::with_every_field(), Record::about_log("audit_torn", 7)] {
            let mut line = Vec::new();
            encode(Timestamp::UNIX_EPOCH, u64::MAX, Link::default(), &record, &mut line);
            assert_eq!(line_bytes(&record), line.len() as u64);
        }
    }
}
