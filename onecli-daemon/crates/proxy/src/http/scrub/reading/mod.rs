//! The possible readings of a text, character by character.
//!
//! A value is echoed in more spellings than can be listed. Each character may be plain or escaped, in percent (RFC
//! 3986), JSON (RFC 8259), string-literal or HTML form. The escape may be escaped again if a body is quoted within
//! another, and base64 may be wrapped (RFC 2045). The text does not show which form is used: `%41` is an `A` to one
//! reader and three characters to another. Bytes directly before a value may look like the beginning of an escape. So
//! the scrubber does not choose one decoding, but tries every reading of every character.

mod entity;
mod escape_cache;
mod literals;

use self::entity::{MAX_ENTITY, Reference};
use self::escape_cache::{CachedEscape, EscapeCache, WINDOW, is_of_name, simple};

/// The longest escape: `&#x00000000000041;` with each character escaped at the same length, and each character of
/// those escaped again.
pub(super) const MAX_ESCAPE: usize = (MAX_ENTITY + 2).pow(3);
/// Maximum nesting depth of escapes: a body quoted in a body quoted in a body.
const LEVELS: u8 = 3;
/// Deeper than any level.
const NEVER: u8 = u8::MAX;
/// Maximum number of ways to read the beginning of one escape whose characters are escaped themselves. Programs that
/// escape leave one way; a text constructed to have more must not take more time.
const MAX_WAYS: usize = 32;

/// One character as bytes: its UTF-8, or the single byte of a percent escape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Character {
    bytes: [u8; 4],
    length: u8,
}

impl Character {
    fn byte(byte: u8) -> Character {
        Character { bytes: [byte, 0, 0, 0], length: 1 }
    }

    fn of(code: u32) -> Option<Character> {
        let mut bytes = [0; 4];
        let length = char::from_u32(code)?.encode_utf8(&mut bytes).len();
        Some(Character { bytes, length: u8::try_from(length).ok()? })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    fn as_byte(self) -> Option<u8> {
        (self.length == 1).then_some(self.bytes[0])
    }
}

/// One way to read the bytes from some position on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoding {
    pub(crate) character: Character,
    /// The position after it.
    pub(crate) end: usize,
    /// The nesting depth of its escapes; 0 is a plain byte.
    level: u8,
}

/// A text with the readings of the bytes that may begin an escape.
#[derive(Debug, Default)]
pub(crate) struct EscapedText<'b> {
    raw: &'b [u8],
    /// For each byte, its index in `escapes` plus one; empty if nothing is escaped. Bytes with the same readings
    /// share one entry.
    places: Vec<u32>,
    escapes: Vec<Escape>,
    /// The readings of all escapes. Their ends are relative to the position of the escape.
    readings: Vec<Decoding>,
}

/// The readings of some bytes.
#[derive(Debug, Clone, Copy)]
struct Escape {
    /// Index of the first one in `readings`.
    from: usize,
    /// The level from which further bytes would add readings.
    cut: u8,
    /// The largest distance from its position that was examined to find them: of a byte, or of the readings that
    /// begin there.
    far: usize,
}

impl<'b> EscapedText<'b> {
    /// Finds all readings from the end backwards, so that the readings of an escape's characters are known when the
    /// escape is read.
    pub(crate) fn new(raw: &'b [u8]) -> EscapedText<'b> {
        let mut text = EscapedText { raw, ..EscapedText::default() };
        let mut out = PendingEscape { readings: Vec::new(), cut: NEVER, farthest: 0 };
        let mut cache = EscapeCache::new();
        for at in memchr::memchr3_iter(b'%', b'\\', b'&', raw).rev() {
            if text.places.is_empty() {
                text.places.resize(raw.len(), 0);
            }
            text.place(at, &mut cache, &mut out);
        }
        text
    }

    /// Reads the bytes at `at`, unless equal bytes were read before.
    fn place(&mut self, at: usize, cache: &mut EscapeCache, out: &mut PendingEscape) {
        if let Some((escaped, length)) = simple(&self.raw[at..]) {
            // Each introducer has its own lengths.
            let key = usize::from(escaped.unwrap_or(self.raw[at])) + 256 * (length - 1);
            if cache.simple[key] == 0 {
                out.begin(Decoding::literal(self.raw[at], at));
                let escape = Decoding { end: at + length, ..out.readings[0] };
                out.add(escaped.map(Character::byte), escape);
                cache.simple[key] = self.list(at, out);
            }
            self.places[at] = cache.simple[key];
            return;
        }
        let window: Option<[u8; WINDOW]> = self.raw[at..].first_chunk().copied();
        let cached = window.and_then(|window| cache.slot(window).filter(|cached| cached.window == window));
        let place = match cached {
            Some(cached) if self.is_same(at, &cached, cache) => cached.place,
            _ => {
                self.read(at, out);
                // The readings were found anew and are equal. From here on, the text may repeat.
                let same = cached.filter(|cached| self.is_listed(at, cached.place, out));
                same.map_or_else(|| self.list(at, out), |cached| cached.place)
            }
        };
        self.places[at] = place;
        if let Some(window) = window {
            *cache.slot(window) = Some(CachedEscape { window, at, place });
        }
    }

    /// Returns whether everything that the readings of `cached` depend on is equal at `at`. (The window covers the byte
    /// at `at` itself.)
    fn is_same(&self, at: usize, cached: &CachedEscape, cache: &mut EscapeCache) -> bool {
        let (far, shift) = (self.escape(cached.place).far, cached.at - at);
        if cached.at + far >= self.raw.len() {
            return false;
        }
        let end = at + far + 1;
        // A range that is known to be equal is not compared again.
        let known = shift == cache.shift && (at + 1..=end).contains(&cache.from) && end <= cache.to;
        let (stop, to) = if known { (cache.from, cache.to) } else { (end, end) };
        let same = (at + 1..stop).all(|place| {
            self.raw[place] == self.raw[place + shift] && self.places[place] == self.places[place + shift]
        });
        if same {
            (cache.shift, cache.from, cache.to) = (shift, at, to);
        }
        same
    }

    /// Returns whether the entry `place` has exactly the readings `out` of the bytes at `at`.
    fn is_listed(&self, at: usize, place: u32, out: &PendingEscape) -> bool {
        let Escape { cut, far, .. } = self.escape(place);
        let same = |(listed, out): (&Decoding, &Decoding)| {
            (listed.character, listed.end + at, listed.level) == (out.character, out.end, out.level)
        };
        let listed = self.listed(place);
        (cut, far + at) == (out.cut, out.farthest)
            && listed.len() == out.readings.len()
            && listed.iter().zip(&out.readings).all(same)
    }

    /// Adds the readings `out` of the bytes at `at`.
    fn list(&mut self, at: usize, out: &PendingEscape) -> u32 {
        self.escapes.push(Escape { from: self.readings.len(), cut: out.cut, far: out.farthest - at });
        self.readings
            .extend(out.readings.iter().map(|reading| Decoding { end: reading.end - at, ..*reading }));
        u32::try_from(self.escapes.len()).unwrap_or(0)
    }

    /// All readings of the bytes at `at`; none at the end of the text.
    pub(crate) fn readings(&self, at: usize) -> impl Iterator<Item = Decoding> {
        let place = self.places.get(at).copied().unwrap_or(0);
        let (plain, listed) = match (place, self.raw.get(at)) {
            (0, Some(byte)) => (Some(Decoding::literal(*byte, at)), &[][..]),
            (0, None) => (None, &[][..]),
            (place, _) => (None, self.listed(place)),
        };
        let listed = listed.iter().map(move |reading| Decoding { end: reading.end + at, ..*reading });
        plain.into_iter().chain(listed)
    }

    /// An index, below [`EscapedText::ways`], that distinguishes bytes with different readings. `None` for bytes with
    /// one reading.
    pub(super) fn way(&self, at: usize) -> Option<usize> {
        let place = self.places.get(at).copied().filter(|place| *place > 0)?;
        usize::try_from(place - 1).ok()
    }

    /// Number of different sets of readings of introducers.
    pub(super) fn ways(&self) -> usize {
        self.escapes.len()
    }

    /// The text itself.
    pub(super) fn raw(&self) -> &'b [u8] {
        self.raw
    }

    /// Returns whether further bytes could add readings at `at`.
    pub(crate) fn is_cut(&self, at: usize) -> bool {
        self.cut_level(at) <= LEVELS
    }

    /// Adds the ends of a line break that begins at `at` to `found`.
    pub(crate) fn line_breaks(&self, at: usize, found: &mut Vec<usize>) {
        for reading in self.readings(at) {
            let byte = reading.character.as_byte();
            if matches!(byte, Some(b'\r' | b'\n')) {
                found.push(reading.end);
            }
            if byte == Some(b'\r') {
                let feeds = self.readings(reading.end).filter(|next| next.character.as_byte() == Some(b'\n'));
                found.extend(feeds.map(|next| next.end));
            }
        }
    }

    fn listed(&self, place: u32) -> &[Decoding] {
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        let from = self.escapes[place - 1].from;
        let to = self.escapes.get(place).map_or(self.readings.len(), |next| next.from);
        &self.readings[from..to]
    }

    fn escape(&self, place: u32) -> Escape {
        self.escapes[usize::try_from(place).unwrap_or(usize::MAX) - 1]
    }

    fn cut_level(&self, at: usize) -> u8 {
        match self.places.get(at).copied() {
            Some(place) if place > 0 => self.escape(place).cut,
            // At the end of the text, every level could continue with another byte.
            _ if at >= self.raw.len() => 0,
            _ => NEVER,
        }
    }

    /// Finds the readings of the introducer at `at`.
    fn read(&self, at: usize, out: &mut PendingEscape) {
        out.begin(Decoding::literal(self.raw[at], at));
        // Each escape adds readings of a deeper level only, so a level is complete when it is processed.
        for level in 0..LEVELS {
            let mut next = 0;
            while let Some(&introducer) = out.readings.get(next) {
                next += 1;
                match introducer.character.as_byte().filter(|_| introducer.level == level) {
                    Some(b'%') => self.percent(introducer, out),
                    Some(b'\\') => self.backslash(introducer, out),
                    Some(b'&') => self.entity(introducer, out),
                    _ => {}
                }
            }
        }
    }

    /// Records that an escape of this level examined the position `at`.
    fn look(&self, at: usize, level: u8, out: &mut PendingEscape) {
        out.farthest = out.farthest.max(at);
        out.cut_at(level.max(self.cut_level(at)));
    }

    /// Continues an escape with each next character that is `wanted`. Returns the characters with the extended
    /// readings.
    fn next<'s, W: Fn(u8) -> bool>(
        &'s self,
        so_far: Decoding,
        out: &mut PendingEscape,
        wanted: W,
    ) -> impl Iterator<Item = (u8, Decoding)> + use<'s, 'b, W> {
        self.look(so_far.end, so_far.level, out);
        self.readings(so_far.end).filter_map(move |next| {
            let byte = next.character.as_byte().filter(|byte| wanted(*byte))?;
            Some((byte, Decoding { end: next.end, level: so_far.level.max(next.level), ..so_far }))
        })
    }

    /// Extends each number by one digit. A digit may itself be escaped in several ways.
    fn digits(&self, numbers: &mut Vec<(u32, Decoding)>, radix: u32, out: &mut PendingEscape) {
        let mut longer = Vec::new();
        for &(number, so_far) in numbers.iter() {
            for (digit, after) in self.next(so_far, out, |byte| char::from(byte).is_digit(radix)) {
                let number = number * radix + char::from(digit).to_digit(radix).unwrap_or(0);
                note(&mut longer, number, after);
            }
        }
        *numbers = longer;
    }

    /// Reads numbers of exactly `digits` hexadecimal digits.
    fn hexadecimal(&self, so_far: Decoding, digits: usize, out: &mut PendingEscape) -> Vec<(u32, Decoding)> {
        if let Some(number) = self.plain_number(so_far.end, digits) {
            let end = so_far.end + digits;
            self.look(end - 1, so_far.level, out);
            return vec![(number, Decoding { end, ..so_far })];
        }
        let mut numbers = vec![(0, so_far)];
        for _ in 0..digits {
            self.digits(&mut numbers, 16, out);
        }
        numbers
    }

    /// Reads such a number from plain digits, the usual case.
    fn plain_number(&self, at: usize, digits: usize) -> Option<u32> {
        let mut bytes = self.raw.get(at..at + digits)?.iter();
        bytes.try_fold(0, |number, byte| Some(number * 16 + char::from(*byte).to_digit(16)?))
    }

    /// `%XX` (RFC 3986 section 2.1), and `%uXXXX` of JavaScript's `escape` (ECMA-262 B.2.1.1).
    fn percent(&self, introducer: Decoding, out: &mut PendingEscape) {
        for (code, escape) in self.hexadecimal(introducer, 2, out) {
            out.add(u8::try_from(code).ok().map(Character::byte), escape);
        }
        for (_, letter) in self.next(introducer, out, |byte| byte == b'u') {
            self.utf16(b'%', letter, out);
        }
    }

    /// JSON's escapes (RFC 8259 section 7), those of string literals, and those of CSS.
    fn backslash(&self, introducer: Decoding, out: &mut PendingEscape) {
        self.look(introducer.end, introducer.level, out);
        for letter in self.readings(introducer.end).filter(|letter| letter.level < LEVELS) {
            let escape =
                Decoding { end: letter.end, level: introducer.level.max(letter.level), ..introducer };
            let character = match letter.character.as_byte() {
                Some(b'u') => {
                    self.utf16(b'\\', escape, out);
                    self.braced(escape, out);
                    continue;
                }
                Some(b'x') => {
                    self.code_point(escape, 2, out);
                    self.braced(escape, out);
                    continue;
                }
                Some(b'U') => {
                    out.add(Some(letter.character), escape);
                    self.code_point(escape, 8, out);
                    continue;
                }
                Some(digit @ b'0'..=b'7') => {
                    let digit = u32::from(digit - b'0');
                    out.add(Some(letter.character), escape);
                    self.octal(digit, escape, out);
                    self.css(digit, escape, out);
                    continue;
                }
                Some(b'n') => Character::byte(b'\n'),
                Some(b'r') => Character::byte(b'\r'),
                Some(b't') => Character::byte(b'\t'),
                Some(b'b') => Character::byte(8),
                Some(b'f') => Character::byte(12),
                _ => letter.character,
            };
            out.add(Some(character), escape);
        }
    }

    /// Reads one byte with up to two further digits; each number of digits is a reading.
    fn octal(&self, digit: u32, so_far: Decoding, out: &mut PendingEscape) {
        let mut numbers = vec![(digit, so_far)];
        for more in 0..=2 {
            if more > 0 {
                self.digits(&mut numbers, 8, out);
            }
            for (number, so_far) in &numbers {
                out.add(u8::try_from(*number).ok().map(Character::byte), *so_far);
            }
        }
    }

    /// Reads the digits after `\u` or `%u`. A character beyond the first plane consists of two such escapes.
    fn utf16(&self, introducer: u8, escape: Decoding, out: &mut PendingEscape) {
        for (code, escape) in self.hexadecimal(escape, 4, out) {
            if (0xd800..0xdc00).contains(&code) {
                self.low_surrogate(introducer, code, escape, out);
            } else {
                out.add(Character::of(code), escape);
            }
        }
    }

    /// Reads the second of two such escapes.
    fn low_surrogate(&self, introducer: u8, high: u32, escape: Decoding, out: &mut PendingEscape) {
        for (_, second) in self.next(escape, out, move |byte| byte == introducer) {
            for (_, letter) in self.next(second, out, |byte| byte == b'u') {
                for (low, escape) in self.hexadecimal(letter, 4, out) {
                    if (0xdc00..0xe000).contains(&low) {
                        let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                        out.add(Character::of(code), escape);
                    }
                }
            }
        }
    }

    /// HTML's character references: names, decimal and hexadecimal numbers.
    fn entity(&self, introducer: Decoding, out: &mut PendingEscape) {
        let (mut references, mut longer) = (vec![(Reference::new(), introducer)], Vec::new());
        while !references.is_empty() {
            for (reference, so_far) in references.drain(..) {
                let mut ends = so_far.end >= self.raw.len();
                for (byte, after) in self.next(so_far, out, |_| true) {
                    if byte == b';' {
                        out.add(reference.character(), after);
                    } else if let Some(reference) = reference.with(byte) {
                        note(&mut longer, reference, after);
                    } else {
                        ends |= reference.ends_before(byte);
                    }
                }
                if ends && reference.is_number() {
                    out.add(reference.character(), so_far);
                }
            }
            std::mem::swap(&mut references, &mut longer);
        }
    }
}

/// Adds a way to read the beginning of an escape, unless the same one exists with no more levels.
fn note<T: PartialEq>(ways: &mut Vec<(T, Decoding)>, what: T, reading: Decoding) {
    let is_full = ways.len() >= MAX_WAYS;
    match ways.iter_mut().find(|(known, way)| *known == what && way.end == reading.end) {
        Some((_, way)) => way.level = way.level.min(reading.level),
        None if is_full => {}
        None => ways.push((what, reading)),
    }
}

impl Decoding {
    /// A plain byte, read as itself.
    pub(super) fn literal(byte: u8, at: usize) -> Decoding {
        Decoding { character: Character::byte(byte), end: at + 1, level: 0 }
    }
}

/// The readings of one introducer during the search.
struct PendingEscape {
    readings: Vec<Decoding>,
    cut: u8,
    /// The last position that was examined.
    farthest: usize,
}

impl PendingEscape {
    /// Starts with the introducer read as itself.
    fn begin(&mut self, literal: Decoding) {
        self.readings.clear();
        self.readings.push(literal);
        (self.cut, self.farthest) = (NEVER, literal.end - 1);
    }

    /// Adds the character that an escape encodes. `escape` has the depth of the escape's characters.
    fn add(&mut self, character: Option<Character>, escape: Decoding) {
        let Some(character) = character else { return };
        let reading = Decoding { character, end: escape.end, level: escape.level.saturating_add(1) };
        if reading.level > LEVELS {
            return;
        }
        match self.readings.iter_mut().find(|known| (known.character, known.end) == (character, reading.end))
        {
            Some(known) => known.level = known.level.min(reading.level),
            None => self.readings.push(reading),
        }
    }

    /// Records an escape that may continue after the end and whose characters have this depth. An escape that is too
    /// deep is ignored.
    fn cut_at(&mut self, level: u8) {
        if level < LEVELS {
            self.cut = self.cut.min(level + 1);
        }
    }
}

/// Returns whether an escape may begin with this byte.
pub(super) fn is_introducer(byte: u8) -> bool {
    matches!(byte, b'%' | b'\\' | b'&')
}

/// Returns whether this byte may occur in an escape other than as its last character. Braces and blanks end an escape
/// that encodes a character of another escape.
pub(super) fn is_within_escape(byte: u8) -> bool {
    is_introducer(byte) || is_of_name(byte) || matches!(byte, b'{' | b'}' | b' ' | b'\t')
}

/// Returns whether this byte has only one reading, and is no line break.
pub(super) fn is_plain(byte: u8) -> bool {
    !is_introducer(byte) && !matches!(byte, b'\r' | b'\n')
}

#[cfg(test)]
mod tests;
