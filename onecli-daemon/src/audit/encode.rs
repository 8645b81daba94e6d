//! The one place where a record becomes a line. Whatever binds a line to the ones before it belongs here.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::record::{Entry, Record};

/// [`Entry`] with its record borrowed.
#[derive(Serialize)]
struct Numbered<'a> {
    #[serde(serialize_with = "microseconds")]
    time: Timestamp,
    seq: u64,
    #[serde(flatten)]
    record: &'a Record,
}

/// Appends a record's line to `out`: one JSON object and a line feed, which the object itself never holds.
pub(super) fn encode(time: Timestamp, seq: u64, record: &Record, out: &mut Vec<u8>) {
    #[expect(clippy::expect_used, reason = "a struct of texts and numbers, and a Vec takes every byte")]
    serde_json::to_writer(&mut *out, &Numbered { time, seq, record }).expect("a record is always valid JSON");
    out.push(b'\n');
}

fn microseconds<S: Serializer>(time: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(&format_args!("{time:.6}"))
}

/// Reads a line back, without its line feed.
///
/// # Errors
/// What serde has to say where the line is no entry.
pub(super) fn decode(line: &[u8]) -> Result<Entry, String> {
    serde_json::from_slice(line).map_err(|error| error.to_string())
}
