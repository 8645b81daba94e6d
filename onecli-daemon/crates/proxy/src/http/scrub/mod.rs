//! Removes credentials from responses: each byte of a match is replaced with `*`, so that lengths do not change.

mod anchors;
mod charset;
mod edges;
mod hold;
mod matching;
mod reading;
mod records;
mod spelling;

pub(super) use self::matching::Needles;
pub(super) use self::reading::{Decoding, EscapedText};
pub(super) use self::spelling::{Needle, spellings};
pub(super) use records::Records;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::{HeaderMap, HeaderName};
use onecli_model::{ValueClass, WireForm};

use self::hold::{Costs, LookaheadLengths, Tail};
use self::matching::Match;

/// Replaces each byte of a match.
const MASK: u8 = b'*';
/// Bytes that are searched at once. The data about escapes takes several times their size.
const MAX_PIECE: usize = 16 * 1024;
/// Maximum number of bytes that wait for later bytes. Values in the escapes that programs write need less than a
/// quarter: 1 KiB decides a match, and a character has up to ten bytes.
const MAX_HELD: usize = 48 * 1024;

/// Number of bytes before the end of a value that are searched for its owner, in any spelling.
const NEAR: usize = 256;

/// The values to search for, which may change while a response streams.
pub(super) trait SecretUpdates: Send + Sync {
    /// Returns the new values to search for if they changed since the last call. The scrubber calls this for every
    /// chunk, so a call without a change must be cheap.
    fn take_changed(&mut self) -> Option<Wanted>;
}

/// A host's values to search for.
#[derive(Clone, Default)]
pub(super) struct Wanted {
    /// The spellings, which many responses share.
    pub(super) needles: Arc<Needles>,
    /// How long held bytes wait for later bytes; `None` means no limit.
    pub(super) flush_after: Option<Duration>,
    /// Whether tokens are issued for the host: a response is searchable before the first one exists.
    pub(super) has_issued: bool,
}

impl Wanted {
    /// Returns whether there is no value to search for.
    fn is_empty(&self) -> bool {
        self.needles.is_empty() && !self.has_issued
    }
}

/// Decides whether a response with matches is delivered.
pub(super) trait MatchGuard: Send + Sync {
    /// Reports a match; `matched` is the text before masking. Returns true if nothing more of the response may be
    /// delivered.
    fn matched(&mut self, matched: &[u8]) -> bool;

    /// Reports that `text` ends with the end of a value whose beginning is missing, because the time of the search
    /// may reveal that. Returns the same as [`MatchGuard::matched`].
    fn nearly_matched(&mut self, text: &[u8]) -> bool;
}

/// Searches a stream of bytes for values, across the borders of its chunks.
#[derive(Default)]
pub(crate) struct Scrubber {
    /// The host's needles and those of this response.
    needles: Arc<Needles>,
    /// Spellings of values that only this response is searched for: signatures, session cookies.
    own: Vec<Needle>,
    /// The classes of values that may be added later.
    lookahead: LookaheadLengths,
    updates: Option<Box<dyn SecretUpdates>>,
    /// Whether the host has values to search for.
    has_host_values: bool,
    /// Whether the response passes in a form that cannot be searched.
    is_unsearchable: bool,
    records: Records,
    /// The end of the stream so far, unmasked, if it may begin a match.
    held: BytesMut,
    /// The number of held bytes that belong to an earlier match.
    held_matched: usize,
    /// The part of a long value that is still masked after those bytes.
    tail: Tail,
    hits: u64,
    guard: Option<Box<dyn MatchGuard>>,
    is_cut: bool,
    is_overrun: bool,
    flush_after: Option<Duration>,
    costs: Costs,
}

/// Prints no bytes, because held bytes may begin a value.
impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scrubber(..)")
    }
}

impl Scrubber {
    /// Searches for the `wanted` values, and for those that `updates` adds while the response streams. Bytes that
    /// passed are not searched again: the daemon sends a value to the upstream only after `updates` knows it.
    pub(super) fn following(wanted: Wanted, updates: Box<dyn SecretUpdates>) -> Scrubber {
        let mut scrubber = Scrubber { updates: Some(updates), ..Scrubber::default() };
        scrubber.search_for(wanted);
        scrubber
    }

    /// Searches for these values from now on, and for those of this response.
    fn search_for(&mut self, wanted: Wanted) {
        self.has_host_values |= !wanted.is_empty();
        if wanted.has_issued {
            self.lookahead.add(ValueClass::ISSUED);
        }
        self.flush_after = wanted.flush_after;
        self.needles = wanted.needles;
        if !self.own.is_empty() {
            Arc::make_mut(&mut self.needles).extend(self.own.iter().cloned());
        }
    }

    /// Searches also for every spelling of these texts.
    pub(super) fn add_forms(&mut self, forms: &[WireForm]) {
        // The needles are shared, so they are copied only if something is added.
        if forms.is_empty() {
            return;
        }
        let spellings = spellings(forms);
        Arc::make_mut(&mut self.needles).extend(spellings.iter().cloned());
        self.own.extend(spellings);
    }

    /// Searches only for these needles.
    #[cfg(test)]
    pub(super) fn new(needles: Arc<Needles>) -> Scrubber {
        Scrubber { needles, ..Scrubber::default() }
    }

    /// Limits how long held bytes wait for later bytes.
    #[cfg(test)]
    pub(super) fn wait_at_most(&mut self, pause: Option<Duration>) {
        self.flush_after = pause;
    }

    /// How long held bytes wait for later bytes. `None`, that is no limit, if the secret of some value sets none.
    pub(super) fn flush_after(&self) -> Option<Duration> {
        self.flush_after
    }

    /// Sets the records that this response consists of. No match continues beyond the end of a record.
    pub(super) fn split_into(&mut self, records: Records) {
        self.records = records;
    }

    /// Adopts newer values.
    pub(super) fn renew(&mut self) {
        if let Some(wanted) = self.updates.as_mut().and_then(|updates| updates.take_changed()) {
            self.search_for(wanted);
        }
    }

    /// Returns whether the host has values to search for. A host without values may get some when a secret is stored.
    pub(super) fn has_host_values(&self) -> bool {
        self.has_host_values
    }

    /// Marks the response as one that passes in a form that cannot be searched.
    pub(super) fn pass_unsearched(&mut self) {
        self.is_unsearchable = true;
    }

    /// Returns whether the response must end, because it cannot be searched for the values that the host has now.
    pub(super) fn is_blind(&self) -> bool {
        self.is_unsearchable && self.has_host_values
    }

    /// Returns the same, after adopting newer values.
    pub(super) fn is_blind_now(&mut self) -> bool {
        if self.is_unsearchable {
            self.renew();
        }
        self.is_blind()
    }

    /// Reports each later match to `guard`.
    pub(super) fn report_to(&mut self, guard: Box<dyn MatchGuard>) {
        self.guard = Some(guard);
    }

    /// Returns whether the guard has forbidden further delivery. Check this before scrubbed bytes are delivered.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Counts a match.
    fn note(&mut self, matched: &[u8]) {
        self.hits += 1;
        if let Some(guard) = &mut self.guard {
            self.is_cut |= guard.matched(matched);
        }
    }

    /// Counts ends of values without their beginnings. Ends in the first `known` bytes were counted already.
    fn note_ends(&mut self, text: &[u8], known: usize, ends: &[usize]) {
        if let Some(guard) = &mut self.guard {
            for end in ends.iter().copied().filter(|end| *end > known) {
                self.is_cut |= guard.nearly_matched(&text[end.saturating_sub(NEAR)..end]);
            }
        }
    }

    /// Returns whether there is nothing to search for.
    pub(super) fn is_idle(&self) -> bool {
        self.needles.is_empty() && self.lookahead.is_empty()
    }

    /// Number of matches so far.
    pub(super) fn hits(&self) -> u64 {
        self.hits
    }

    /// Returns whether more bytes had to wait than [`MAX_HELD`]. The scrubber then returns no more bytes, and the
    /// stream must be cut off.
    pub(super) fn is_overrun(&self) -> bool {
        self.is_overrun
    }

    /// Processes the next chunk, and returns the bytes that are certainly clean. It holds back only bytes that may
    /// begin a match of some value ([`hold`]).
    pub(super) fn push(&mut self, mut chunk: Bytes) -> Bytes {
        if chunk.is_empty() {
            return chunk;
        }
        self.renew();
        if self.is_idle() {
            self.records.pass(&chunk);
            return chunk;
        }
        match self.records.last_end(&chunk) {
            None => self.push_all(chunk, false),
            Some(end) if end == chunk.len() => self.push_all(chunk, true),
            Some(end) => {
                let complete = self.push_all(chunk.split_to(end), true);
                let rest = self.push_all(chunk, false);
                if rest.is_empty() { complete } else { [complete, rest].concat().into() }
            }
        }
    }

    /// Processes the stream's last chunk, and returns it with all held bytes.
    pub(super) fn push_last(&mut self, chunk: Bytes) -> Bytes {
        self.renew();
        if self.is_idle() { chunk } else { self.push_all(chunk, true) }
    }

    /// Returns the held bytes at the end of the stream or of a message.
    pub(super) fn finish(&mut self) -> Bytes {
        if self.held.is_empty() { Bytes::new() } else { self.push_piece(Bytes::new(), true) }
    }

    /// Number of held bytes; at most [`MAX_HELD`].
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Scrubs bytes that are complete in themselves. Returns whether there was a match.
    pub(super) fn whole(&mut self, bytes: &mut [u8]) -> bool {
        self.renew();
        let (matches, ends) = self.needles.search(&EscapedText::new(bytes));
        self.note_ends(bytes, 0, &ends);
        for found in &matches {
            self.note(&bytes[found.start..found.end]);
        }
        for found in &matches {
            let end = if found.tail == Tail::NONE { found.end } else { bytes.len() };
            mask(bytes, found.start, end);
        }
        !matches.is_empty()
    }

    /// If `last` is set, no bytes are held back.
    fn push_all(&mut self, mut chunk: Bytes, last: bool) -> Bytes {
        if chunk.len() <= MAX_PIECE {
            return self.push_piece(chunk, last);
        }
        let mut clean = BytesMut::with_capacity(self.held.len() + chunk.len());
        while !chunk.is_empty() {
            let piece = chunk.split_to(chunk.len().min(MAX_PIECE));
            let last = last && chunk.is_empty();
            clean.extend_from_slice(&self.push_piece(piece, last));
        }
        clean.freeze()
    }

    fn push_piece(&mut self, chunk: Bytes, last: bool) -> Bytes {
        let known = self.held.len();
        let buffer = if self.held.is_empty() {
            chunk
        } else {
            let mut buffer = std::mem::take(&mut self.held);
            buffer.extend_from_slice(&chunk);
            buffer.freeze()
        };
        let text = EscapedText::new(&buffer);
        let (matched, tail) = self.tail.follow(&text, self.held_matched);
        let (found_matches, ends) = self.needles.search(&text);
        let open_from = if last {
            buffer.len()
        } else {
            self.needles.lookahead().and(self.lookahead).open_from(&text, &mut self.costs)
        };
        self.note_ends(&buffer, known, &ends);
        let is_clean = matched == 0 && found_matches.is_empty();
        if self.is_overrun || buffer.len() - open_from > MAX_HELD {
            self.is_overrun = true;
            return Bytes::new();
        }
        if !is_clean {
            return self.emit(buffer.into(), (matched, tail), &found_matches, open_from);
        }
        self.held.extend_from_slice(&buffer[open_from..]);
        buffer.slice(..open_from)
    }

    /// Masks and returns the decided bytes. Held bytes are stored unmasked, because another match may overlap this
    /// one.
    fn emit(
        &mut self,
        mut buffer: BytesMut,
        (mut matched, mut tail): (usize, Tail),
        found_matches: &[Match],
        open_from: usize,
    ) -> Bytes {
        let mut beyond = matched;
        for found in found_matches.iter().filter(|found| found.start < open_from) {
            if found.end > beyond {
                self.note(&buffer[found.start..found.end]);
                beyond = found.end;
            }
        }
        mask(&mut buffer, 0, matched.min(open_from));
        for found in found_matches.iter().filter(|found| found.start < open_from) {
            mask(&mut buffer, found.start, found.end.min(open_from));
            matched = matched.max(found.end);
            tail = tail.max(found.tail);
        }
        let is_last = open_from == buffer.len();
        if is_last && tail != Tail::NONE {
            mask(&mut buffer, matched, open_from);
        }
        self.held_matched = matched.saturating_sub(open_from);
        self.tail = tail;
        self.held = buffer.split_off(open_from);
        buffer.freeze()
    }

    /// Scrubs header or trailer fields. A field whose name contains a value is removed.
    pub(super) fn headers(&mut self, headers: &mut HeaderMap) {
        self.renew();
        if self.needles.is_empty() {
            return;
        }
        let named: Vec<HeaderName> = headers.keys().filter(|name| self.is_in_name(name)).cloned().collect();
        for name in named {
            self.note(name.as_str().as_bytes());
            headers.remove(name);
        }
        for value in headers.values_mut() {
            let mut bytes = BytesMut::from(value.as_bytes());
            if !self.whole(&mut bytes) {
                continue;
            }
            // Masking only inserts '*', so the value remains valid.
            *value = HeaderValue::from_maybe_shared(bytes.freeze()).unwrap_or(HeaderValue::from_static("*"));
        }
    }

    /// Returns whether a field name, which is in lower case here, contains a value.
    fn is_in_name(&self, name: &HeaderName) -> bool {
        self.needles.is_in_lower_case(name.as_str().as_bytes())
    }
}

/// Line breaks within a match are not masked, so a wrapped text has the same lines.
fn mask(buffer: &mut [u8], start: usize, end: usize) {
    if let Some(bytes) = buffer.get_mut(start..end) {
        for byte in bytes.iter_mut().filter(|byte| !matches!(**byte, b'\r' | b'\n')) {
            *byte = MASK;
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_escapes;
#[cfg(test)]
mod tests_of_forms;
#[cfg(test)]
mod tests_of_holding;
