//! Removes credentials from what comes back: each byte of a match becomes `*`, so that lengths stay true.

mod matching;
mod reading;
mod spelling;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::{HeaderMap, HeaderName};

use self::matching::Findings;
pub(super) use self::matching::Needles;
pub(super) use self::spelling::{Needle, spellings};
use crate::model::WireForm;
#[cfg(feature = "fuzz")]
pub(super) use reading::Text;

/// Replaces each byte of a match.
const MASK: u8 = b'*';
/// So many bytes are searched at once: what is noted of escapes takes some times their room.
const MAX_PIECE: usize = 16 * 1024;

/// Values that have to be looked for from now on: bought while an answer is under way.
pub(super) trait Newer: Send + Sync {
    /// Those since it was asked last. Asked with every chunk: nothing new has to cost nothing.
    fn newer(&mut self) -> Vec<WireForm>;
}

/// Decides what becomes of a response with matches.
pub(super) trait MatchGuard: Send + Sync {
    /// `matched` is the text as it came. True: nothing more of the response is to be delivered.
    fn matched(&mut self, matched: &[u8]) -> bool;
}

/// Looks for values in a stream of bytes, across the edges of its chunks.
#[derive(Default)]
pub(super) struct Scrubber {
    needles: Arc<Needles>,
    newer: Option<Box<dyn Newer>>,
    /// The end of the stream so far as it came, where it may be the beginning of a match.
    held: BytesMut,
    /// So many of the held bytes belong to a match that began before them.
    held_matched: usize,
    /// Matches that begin among the held bytes: they are found again with the next chunk, if one comes.
    held_matches: Vec<(usize, usize)>,
    hits: u64,
    guard: Option<Box<dyn MatchGuard>>,
    is_cut: bool,
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

    /// Searches for every spelling of these texts, too.
    pub(super) fn watch(&mut self, forms: &[WireForm]) {
        Arc::make_mut(&mut self.needles).extend(spellings(forms));
    }

    /// Looks for what is `newer`, too. An upstream cannot send a value before there is one, so what came before needs no
    /// second look.
    pub(super) fn follow(&mut self, newer: Box<dyn Newer>) {
        self.newer = Some(newer);
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

    /// Is there nothing to look for?
    pub(super) fn is_idle(&self) -> bool {
        self.needles.is_empty() && self.newer.is_none()
    }

    /// Matches so far.
    pub(super) fn hits(&self) -> u64 {
        self.hits
    }

    /// Takes the next chunk, and gives what can be said to be clean. Only bytes that may begin a match are kept
    /// back, so an event stream is not delayed.
    pub(super) fn push(&mut self, mut chunk: Bytes) -> Bytes {
        self.renew();
        if self.needles.is_empty() || chunk.is_empty() {
            return chunk;
        }
        if chunk.len() <= MAX_PIECE {
            return self.push_piece(chunk);
        }
        let mut clean = BytesMut::with_capacity(self.held.len() + chunk.len());
        while !chunk.is_empty() {
            let piece = chunk.split_to(chunk.len().min(MAX_PIECE));
            clean.extend_from_slice(&self.push_piece(piece));
        }
        clean.freeze()
    }

    fn push_piece(&mut self, chunk: Bytes) -> Bytes {
        if self.held.is_empty() {
            let findings = self.needles.find(&chunk);
            if findings.matches.is_empty() {
                self.held.extend_from_slice(&chunk[findings.open_from..]);
                return chunk.slice(..findings.open_from);
            }
            return self.emit(BytesMut::from(chunk), &findings);
        }
        let mut buffer = std::mem::take(&mut self.held);
        buffer.extend_from_slice(&chunk);
        let findings = self.needles.find(&buffer);
        self.emit(buffer, &findings)
    }

    /// The rest, when the stream has ended.
    pub(super) fn finish(&mut self) -> Bytes {
        let mut rest = std::mem::take(&mut self.held);
        let matches = std::mem::take(&mut self.held_matches);
        matches.iter().for_each(|(start, end)| self.note(&rest[*start..*end]));
        mask(&mut rest, 0, std::mem::take(&mut self.held_matched));
        for (start, end) in matches {
            mask(&mut rest, start, end);
        }
        rest.freeze()
    }

    /// How many bytes are kept back.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Scrubs bytes that stand for themselves; tells whether there was a match.
    pub(super) fn whole(&mut self, bytes: &mut [u8]) -> bool {
        self.renew();
        let findings = self.needles.find(bytes);
        findings.matches.iter().for_each(|(start, end)| self.note(&bytes[*start..*end]));
        for (start, end) in &findings.matches {
            mask(bytes, *start, *end);
        }
        !findings.matches.is_empty()
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

    /// Masks, and gives what is decided.
    fn emit(&mut self, mut buffer: BytesMut, findings: &Findings) -> Bytes {
        let (before, open_from) = (self.held_matched, findings.open_from);
        let decided = findings.matches.iter().filter(|(start, _)| *start < open_from);
        decided.for_each(|(start, end)| self.note(&buffer[*start..*end]));
        mask(&mut buffer, 0, before.min(open_from));
        self.held_matched = before.saturating_sub(open_from);
        // What is held stays as it came: another match may overlap this one.
        self.held_matches.clear();
        for &(start, end) in &findings.matches {
            if start < open_from {
                mask(&mut buffer, start, end.min(open_from));
                self.held_matched = self.held_matched.max(end.saturating_sub(open_from));
            } else {
                self.held_matches.push((start - open_from, end - open_from));
            }
        }
        self.held = buffer.split_off(open_from);
        buffer.freeze()
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
