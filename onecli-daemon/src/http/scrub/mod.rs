//! Removes credentials from what comes back: each byte of a match becomes `*`, so that lengths stay true.

mod anchors;
mod edges;
mod hold;
mod matching;
mod reading;
mod records;
mod spelling;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::{HeaderMap, HeaderName};

use self::hold::{Costs, Tail, Watched};
use self::matching::Match;
pub(super) use self::matching::Needles;
pub(super) use self::reading::{Reading, Text};
pub(super) use self::spelling::{Needle, spellings};
use crate::model::{ValueClass, WireForm};
pub(super) use records::Records;

/// Replaces each byte of a match.
const MASK: u8 = b'*';
/// So many bytes are searched at once: what is noted of escapes takes some times their room.
const MAX_PIECE: usize = 16 * 1024;
/// Most bytes that wait for those behind them. Values in the escapes that programs write need less than a quarter of it: 1 KiB
/// decides a match, and a character has up to ten bytes.
const MAX_HELD: usize = 48 * 1024;

/// Bytes before the end of a value by which its owner is found, in whatever spelling.
const NEAR: usize = 256;

/// Values that have to be looked for from now on: bought while an answer is under way.
pub(super) trait Newer: Send + Sync {
    /// Those since it was asked last. Asked with every chunk: nothing new has to cost nothing.
    fn newer(&mut self) -> Vec<WireForm>;
}

/// Decides what becomes of a response with matches.
pub(super) trait MatchGuard: Send + Sync {
    /// `matched` is the text as it came. True: nothing more of the response is to be delivered.
    fn matched(&mut self, matched: &[u8]) -> bool;

    /// `text` ends in the end of a value, whose beginning is not there: how long the search took may tell so. As
    /// [`MatchGuard::matched`].
    fn nearly_matched(&mut self, text: &[u8]) -> bool;
}

/// Looks for values in a stream of bytes, across the edges of its chunks.
#[derive(Default)]
pub(super) struct Scrubber {
    needles: Arc<Needles>,
    /// The classes of values that may be newer.
    watched: Watched,
    newer: Option<Box<dyn Newer>>,
    records: Records,
    /// The end of the stream so far as it came, where it may be the beginning of a match.
    held: BytesMut,
    /// So many of the held bytes belong to a match that began before them.
    held_matched: usize,
    /// What of a long value is still masked behind those.
    tail: Tail,
    hits: u64,
    guard: Option<Box<dyn MatchGuard>>,
    is_cut: bool,
    is_overrun: bool,
    flush_after: Option<Duration>,
    costs: Costs,
}

/// What is held back may be the beginning of a value.
impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scrubber(..)")
    }
}

impl Scrubber {
    /// Searches for these needles, which many responses share.
    pub(super) fn new(needles: Arc<Needles>) -> Scrubber {
        Scrubber { needles, ..Scrubber::default() }
    }

    /// Has held bytes wait no longer than this for the bytes behind them.
    pub(super) fn wait_at_most(&mut self, pause: Option<Duration>) {
        self.flush_after = pause;
    }

    /// Searches for every spelling of these texts, too.
    pub(super) fn watch(&mut self, forms: &[WireForm]) {
        Arc::make_mut(&mut self.needles).extend(spellings(forms));
    }

    /// Looks for what is `newer`, too, which is of the class [`ValueClass::ISSUED`]. An upstream cannot send a value before
    /// there is one, so what came before needs no second look.
    pub(super) fn follow(&mut self, newer: Box<dyn Newer>) {
        self.watched.add(ValueClass::ISSUED);
        self.newer = Some(newer);
    }

    /// How long held bytes wait for the bytes behind them; for ever where a value's secret does not say.
    pub(super) fn flush_after(&self) -> Option<Duration> {
        self.flush_after
    }

    /// The records that this response is made of: no match goes on beyond the end of one.
    pub(super) fn split_into(&mut self, records: Records) {
        self.records = records;
    }

    fn renew(&mut self) {
        let newer = self.newer.as_mut().map(|newer| newer.newer()).unwrap_or_default();
        if !newer.is_empty() {
            self.watch(&newer);
        }
    }

    /// Has each match from now on reported to `guard`.
    pub(super) fn report_to(&mut self, guard: Box<dyn MatchGuard>) {
        self.guard = Some(guard);
    }

    /// Did the guard say that nothing more is to be delivered? To be asked before what was scrubbed is delivered.
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

    /// Counts ends of values without their beginnings. Those in the first `known` bytes are counted already.
    fn note_ends(&mut self, text: &[u8], known: usize, ends: &[usize]) {
        if let Some(guard) = &mut self.guard {
            for end in ends.iter().copied().filter(|end| *end > known) {
                self.is_cut |= guard.nearly_matched(&text[end.saturating_sub(NEAR)..end]);
            }
        }
    }

    /// Is there nothing to look for?
    pub(super) fn is_idle(&self) -> bool {
        self.needles.is_empty() && self.newer.is_none()
    }

    /// Matches so far.
    pub(super) fn hits(&self) -> u64 {
        self.hits
    }

    /// Whether more bytes had to wait than [`MAX_HELD`]: nothing comes out any more, and the stream has to be cut off.
    pub(super) fn is_overrun(&self) -> bool {
        self.is_overrun
    }

    /// Takes the next chunk, and gives what can be said to be clean. Only bytes that may begin a match of some value are
    /// kept back ([`hold`]).
    pub(super) fn push(&mut self, mut chunk: Bytes) -> Bytes {
        if self.is_idle() || chunk.is_empty() {
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

    /// Takes the stream's last chunk, and gives it with all that is held.
    pub(super) fn push_last(&mut self, chunk: Bytes) -> Bytes {
        if self.is_idle() { chunk } else { self.push_all(chunk, true) }
    }

    /// The rest, when the stream or a message has ended.
    pub(super) fn finish(&mut self) -> Bytes {
        if self.held.is_empty() { Bytes::new() } else { self.push_piece(Bytes::new(), true) }
    }

    /// How many bytes are kept back; at most [`MAX_HELD`].
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Scrubs bytes that stand for themselves; tells whether there was a match.
    pub(super) fn whole(&mut self, bytes: &mut [u8]) -> bool {
        self.renew();
        let (matches, ends) = self.needles.search(&Text::new(bytes));
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

    /// What is `last` is released whatever it ends in.
    fn push_all(&mut self, mut chunk: Bytes, last: bool) -> Bytes {
        self.renew();
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
        let text = Text::new(&buffer);
        let (matched, tail) = self.tail.follow(&text, self.held_matched);
        let (found_matches, ends) = self.needles.search(&text);
        let open_from = if last {
            buffer.len()
        } else {
            self.needles.watched().and(self.watched).open_from(&text, &mut self.costs)
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

    /// Masks, and gives what is decided. What is held stays as it came: another match may overlap this one.
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

    /// Scrubs header or trailer fields. A field whose name holds a value goes as a whole.
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
            // Masking puts only '*' in, so the value stays valid.
            *value = HeaderValue::from_maybe_shared(bytes.freeze()).unwrap_or(HeaderValue::from_static("*"));
        }
    }

    /// Field names are lower case by the time they are here.
    fn is_in_name(&self, name: &HeaderName) -> bool {
        self.needles.is_in_lower_case(name.as_str().as_bytes())
    }
}

/// Line breaks within a match stay: a wrapped text keeps its lines.
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
mod tests_of_holding;
