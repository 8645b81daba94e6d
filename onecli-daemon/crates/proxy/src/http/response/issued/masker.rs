//! Masks a body while it streams. Lengths do not change. Which bytes wait depends only on the text and on the
//! templates.

use bytes::{Bytes, BytesMut};

use super::kinds::Kinds;
use super::members::{Format, Mask, Members};
use super::shapes::Shapes;

/// Replaces each byte of a credential.
const MASK: u8 = b'*';
/// Replaces each digit of a number, because a JSON number does not begin with two zeros.
const DIGIT: u8 = b'1';

/// The number of credentials found in a response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) masked: u64,
    pub(super) passed: u64,
}

/// Masks one body. It holds at most [`super::members::MAX_HELD`] bytes, or the length of a shape.
#[derive(Debug)]
pub(super) struct Masker {
    kinds: Kinds,
    /// `None` if members are not read.
    members: Option<Members>,
    shapes: Shapes,
    /// Undecided bytes, unchanged.
    held: BytesMut,
    /// The position of the first held byte.
    base: u64,
    /// The ranges to mask, in the held bytes and in later ones.
    ranges: Vec<Mask>,
}

impl Masker {
    /// Returns a masker for a body of this format. `reads_members` is false for content that users stored.
    pub(super) fn new(kinds: Kinds, format: Format, reads_members: bool) -> Masker {
        let members = (reads_members && format != Format::Content).then(|| Members::new(format));
        let shapes = Shapes::new(kinds.prefixes());
        Masker { kinds, members, shapes, held: BytesMut::new(), base: 0, ranges: Vec::new() }
    }

    /// The number of bytes that are held back.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn found(&self) -> Found {
        let Shapes { passed, masked, .. } = self.shapes;
        let of_members = self.members.as_ref().map_or((0, 0), |members| (members.masked, members.passed));
        Found { masked: masked + of_members.0, passed: passed + of_members.1 }
    }

    /// Processes the next chunk, and returns the bytes that are decided.
    pub(super) fn push(&mut self, chunk: &Bytes) -> Bytes {
        if self.held.is_empty() {
            self.scan(chunk, 0);
            let open = self.open_within(chunk.len());
            self.held.extend_from_slice(&chunk[open..]);
            return if self.ranges.is_empty() {
                self.base += open as u64;
                chunk.slice(..open)
            } else {
                self.emit(BytesMut::from(&chunk[..open]))
            };
        }
        let mut buffer = std::mem::take(&mut self.held);
        let from = buffer.len();
        buffer.extend_from_slice(chunk);
        self.scan(&buffer, from);
        self.held = buffer.split_off(self.open_within(buffer.len()));
        self.emit(buffer)
    }

    /// Returns the remaining bytes after the end of the body.
    pub(super) fn finish(&mut self) -> Bytes {
        let rest = std::mem::take(&mut self.held);
        let (base, end) = (self.base, self.base + rest.len() as u64);
        if let Some(members) = &mut self.members
            && let Some(mask) = members.finish(&self.kinds, end, |from| tail(&rest, base, from, rest.len()))
        {
            self.note(mask);
        }
        self.emit(rest)
    }

    /// Scans the bytes of `buffer` from `from` on; its first byte is at `base`.
    fn scan(&mut self, buffer: &[u8], from: usize) {
        let base = self.base;
        for (at, &byte) in buffer.iter().enumerate().skip(from) {
            let position = base + at as u64;
            if let Some(members) = &mut self.members {
                let text = |from| tail(buffer, base, from, at + 1);
                let mask = members.step(&self.kinds, position, byte, text);
                let is_in_value = members.is_in_value();
                if let Some(mask) = mask {
                    self.note(mask);
                }
                if is_in_value {
                    self.shapes.skip();
                    continue;
                }
            }
            if let Some(range) = self.shapes.step(position, byte) {
                self.note(Mask { start: range.start, end: range.end, is_number: false });
            }
        }
    }

    fn note(&mut self, mask: Mask) {
        match self.ranges.last_mut() {
            Some(last) if last.end == mask.start && last.is_number == mask.is_number => last.end = mask.end,
            _ => self.ranges.push(mask),
        }
    }

    /// Returns how many bytes of a buffer are decided.
    fn open_within(&self, length: usize) -> usize {
        let open = self.members.as_ref().and_then(Members::open_from).into_iter();
        let open = open.chain(self.shapes.open_from()).min();
        open.map_or(length, |open| {
            usize::try_from(open.saturating_sub(self.base)).unwrap_or(length).min(length)
        })
    }

    /// Masks decided bytes and returns them.
    fn emit(&mut self, mut decided: BytesMut) -> Bytes {
        let (base, end) = (self.base, self.base + decided.len() as u64);
        let index = |position: u64| usize::try_from(position.clamp(base, end) - base).unwrap_or(usize::MAX);
        for mask in &self.ranges {
            if let Some(bytes) = decided.get_mut(index(mask.start)..index(mask.end)) {
                hide(bytes, mask.is_number);
            }
        }
        self.ranges.retain(|mask| mask.end > end);
        self.base = end;
        decided.freeze()
    }
}

/// Masks bytes. NUL bytes remain, because they are halves of UTF-16 characters.
fn hide(bytes: &mut [u8], is_number: bool) {
    for byte in bytes.iter_mut().filter(|byte| **byte != 0) {
        if !is_number {
            *byte = MASK;
        } else if byte.is_ascii_digit() {
            *byte = DIGIT;
        }
    }
}

/// The part of the stream in `buffer` from a position on, up to `to`.
fn tail(buffer: &[u8], base: u64, from: u64, to: usize) -> &[u8] {
    let from = usize::try_from(from.saturating_sub(base)).unwrap_or(to).min(to);
    &buffer[from..to]
}
