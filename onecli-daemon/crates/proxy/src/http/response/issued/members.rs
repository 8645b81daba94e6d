//! Scans JSON, markup, assignments and forms only as far as needed to find the values of named members. It builds no
//! tree, so memory is constant at any nesting depth.
//!
//! The scanner does not track strings from the start of a body: each quote may end a name. So text before a member
//! cannot hide the member. JSON is also found within other text and within JSON strings.

use super::containers::Containers;
use super::kinds::Kinds;
use super::recent::{Quote, Recent};
use super::tags::{Tag, Tags};

/// Longest member name that is compared, in bytes.
const MAX_NAME: usize = 64;
/// Number of characters that decide whether a value is masked. It exceeds the length of a placeholder with its
/// prefix, and of any shape.
const DECIDES: usize = 192;
/// Maximum number of bytes that wait for the end of a value: [`DECIDES`] characters in UTF-32.
pub(super) const MAX_HELD: usize = 4 * DECIDES;

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// RFC 8259, also within JavaScript, and several values in sequence.
    Json,
    /// Elements and attributes.
    Xml,
    /// `name=value&...`
    Form,
    /// Text that may contain any of these formats.
    Text,
    /// Text that users stored, in which no members are read.
    Content,
}

/// A range of bytes to mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mask {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Digits are replaced with digits, so that a number remains a number.
    pub(super) is_number: bool,
}

/// The end of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A quote like this one, or one of an outer level.
    Quote(Quote),
    /// A character that cannot be part of a number.
    Number,
    /// A character that cannot be part of a form field.
    Field,
    /// The next tag.
    Tag,
    /// `]]>`
    Cdata,
}

/// A value that is being read.
#[derive(Debug, Clone, Copy)]
struct Value {
    end: End,
    start: u64,
    /// The number of characters so far.
    count: usize,
    verdict: Option<bool>,
    /// The position up to which it is masked.
    masked_to: u64,
}

/// The meaning of the preceding text for the next value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Label {
    #[default]
    None,
    /// [`Members::name`] was in quotes.
    Quoted,
    /// The value of a listed member follows.
    Armed,
    /// The position is in the object or array of a listed member.
    Inside,
}

/// A scanner over one body.
#[derive(Debug)]
pub(super) struct Members {
    format: Format,
    recent: Recent,
    value: Option<Value>,
    label: Label,
    containers: Containers,
    /// The text since the last quote, and the last name in quotes, both in lower case. A text that is too long is cut
    /// one byte above the limit.
    since_quote: Vec<u8>,
    name: Vec<u8>,
    /// The last word, and whether it has ended.
    word: Vec<u8>,
    is_word_over: bool,
    /// Set while the line contains only form fields.
    is_form_line: bool,
    tags: Tags,
    /// The name of the listed element that is open.
    element: Option<Vec<u8>>,
    /// The kinds that are listed for the value's member.
    listed: Vec<usize>,
    /// Values that were masked.
    pub(super) masked: u64,
    /// Values that passed.
    pub(super) passed: u64,
}

impl Members {
    pub(super) fn new(format: Format) -> Members {
        Members {
            format,
            recent: Recent::default(),
            value: None,
            label: Label::None,
            containers: Containers::default(),
            since_quote: Vec::new(),
            name: Vec::new(),
            word: Vec::new(),
            is_word_over: false,
            is_form_line: matches!(format, Format::Text | Format::Form),
            tags: Tags::new(format == Format::Xml),
            element: None,
            listed: Vec::new(),
            masked: 0,
            passed: 0,
        }
    }

    /// The position of the first undecided byte.
    pub(super) fn open_from(&self) -> Option<u64> {
        let value = self.value.filter(|value| value.verdict != Some(false))?;
        Some(if value.verdict.is_none() { value.start } else { value.masked_to })
    }

    /// Returns whether the scanner is in the value of a listed member.
    pub(super) fn is_in_value(&self) -> bool {
        self.value.is_some()
    }

    /// Processes one byte at `position`. `text` returns the stream from a position up to this byte. Returns the range
    /// to mask.
    pub(super) fn step<'t>(
        &mut self,
        kinds: &Kinds,
        position: u64,
        byte: u8,
        text: impl Fn(u64) -> &'t [u8],
    ) -> Option<Mask> {
        if byte == 0 {
            return None;
        }
        self.recent.push(byte, position);
        if let Some(value) = self.value {
            return self.in_value(kinds, value, (position, byte), text);
        }
        self.outside(kinds, position, byte);
        None
    }

    /// Ends the stream, which may end within a value.
    pub(super) fn finish<'t>(
        &mut self,
        kinds: &Kinds,
        end: u64,
        text: impl Fn(u64) -> &'t [u8],
    ) -> Option<Mask> {
        let value = self.value.take()?;
        let is_masked = value.verdict.unwrap_or_else(|| self.decide(kinds, value, text(value.start)));
        is_masked.then_some(value.mask(end))
    }

    fn outside(&mut self, kinds: &Kinds, position: u64, byte: u8) {
        if self.format == Format::Form {
            return self.assignment(kinds, position, byte);
        }
        if self.element.is_some() {
            return self.in_element(kinds, position, byte);
        }
        if self.tags.step(byte, &self.recent) == Some(Tag::Open) {
            let listed = kinds.listed(self.tags.name());
            if !listed.is_empty() {
                (self.listed, self.label) = (listed, Label::None);
                self.element = Some(self.tags.name().to_vec());
                return;
            }
        }
        match self.recent.quote() {
            Some(quote) => self.at_quote(position, quote),
            None => self.at_character(kinds, position, byte),
        }
    }

    /// Processes a byte in a listed element, outside its text.
    fn in_element(&mut self, kinds: &Kinds, position: u64, byte: u8) {
        if !self.tags.is_within() && byte != b'<' {
            return if self.is_text_of_element(byte) {
                self.begin(End::Tag, position, 1);
            } else {
                self.element = None;
                self.outside(kinds, position, byte);
            };
        }
        match self.tags.step(byte, &self.recent) {
            Some(Tag::Cdata) => self.begin(End::Cdata, position + 1, 0),
            Some(Tag::Close) if self.element.as_deref() == Some(self.tags.name()) => self.element = None,
            _ => {}
        }
    }

    /// Returns whether this byte may occur in the text of a listed element. If the body is not XML, `<name>` may have
    /// another meaning. The text after it then counts as an element's text only if it looks like one word.
    fn is_text_of_element(&self, byte: u8) -> bool {
        self.tags.is_xml()
            || !(byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'{' | b'}' | b','))
    }

    fn at_quote(&mut self, position: u64, quote: Quote) {
        let is_value = match self.label {
            Label::Armed => true,
            Label::Inside => !self.containers.is_name_next(),
            Label::None | Label::Quoted => false,
        };
        if is_value {
            return self.begin(End::Quote(quote), position + 1, 0);
        }
        if self.label != Label::Inside {
            // All bytes of an escape except the last were taken as part of the name.
            let width = if quote.kind == b'\\' { quote.width - 1 } else { quote.width };
            let escape = if matches!(quote.kind, b'"' | b'\'') { 0 } else { width - 1 };
            self.since_quote.truncate(self.since_quote.len().saturating_sub(escape));
            std::mem::swap(&mut self.name, &mut self.since_quote);
            self.label = Label::Quoted;
        }
        self.since_quote.clear();
        self.word.clear();
        self.is_form_line = false;
    }

    fn at_character(&mut self, kinds: &Kinds, position: u64, byte: u8) {
        match (self.label, byte) {
            (Label::None | Label::Quoted, b':' | b'=') => return self.assignment(kinds, position, byte),
            (Label::Inside, b'{' | b'[' | b'}' | b']' | b',' | b':') => self.go_inside(byte),
            (Label::Armed, b'{' | b'[') => {
                self.containers = Containers::default();
                self.go_inside(byte);
            }
            (Label::None, _) => {}
            _ if byte.is_ascii_whitespace() || self.recent.begins_quote() => {}
            // `=>`
            (Label::Armed, b'>') if self.recent.byte(2) == b'=' => {}
            (Label::Armed, b'0'..=b'9' | b'-') => return self.begin(End::Number, position, 1),
            (Label::Inside, b'0'..=b'9' | b'-') if !self.containers.is_name_next() => {
                return self.begin(End::Number, position, 1);
            }
            (Label::Inside, _) => {}
            _ => self.label = Label::None,
        }
        self.note(byte);
    }

    fn go_inside(&mut self, byte: u8) {
        self.label = if self.containers.step(byte) { Label::Inside } else { Label::None };
    }

    /// Appends a character to the names that it may belong to.
    fn note(&mut self, byte: u8) {
        let lower = byte.to_ascii_lowercase();
        if byte != b'\\' && self.since_quote.len() <= MAX_NAME {
            self.since_quote.push(lower);
        }
        let is_of_word = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'$');
        if byte.is_ascii_whitespace() {
            self.is_word_over = true;
        } else if !is_of_word {
            self.word.clear();
        } else {
            if std::mem::take(&mut self.is_word_over) {
                self.word.clear();
            }
            if self.word.len() <= MAX_NAME {
                self.word.push(lower);
            }
        }
        let is_of_form = is_of_word || matches!(byte, b'.' | b'%' | b'+' | b'&' | b'=' | b'*' | b'~');
        self.is_form_line = match self.format {
            Format::Form => true,
            Format::Text if byte == b'\n' => true,
            _ => self.is_form_line && is_of_form,
        };
    }

    /// Processes a character that may separate a name from its value, or any character of a form.
    fn assignment(&mut self, kinds: &Kinds, position: u64, byte: u8) {
        let is_separator = byte == b'=' || (byte == b':' && self.format != Format::Form);
        if !is_separator && self.format == Format::Form && byte == b'&' {
            return self.word.clear();
        }
        if !is_separator {
            return self.note(byte);
        }
        let name = if self.label == Label::Quoted { &self.name } else { &self.word };
        self.listed = kinds.listed(name);
        self.label = if self.listed.is_empty() { Label::None } else { Label::Armed };
        self.note(byte);
        if self.label == Label::Armed && byte == b'=' && self.is_form_line {
            self.begin(End::Field, position + 1, 0);
        }
    }

    fn begin(&mut self, end: End, start: u64, count: usize) {
        if self.label == Label::Armed {
            self.label = Label::None;
        }
        self.value = Some(Value { end, start, count, verdict: None, masked_to: start });
    }

    fn in_value<'t>(
        &mut self,
        kinds: &Kinds,
        mut value: Value,
        (position, byte): (u64, u8),
        text: impl Fn(u64) -> &'t [u8],
    ) -> Option<Mask> {
        if let Some(end) = self.end_of(value, position, byte) {
            self.value = None;
            let own = text(value.start);
            let behind = usize::try_from(position + 1 - end).unwrap_or(own.len());
            let own = &own[..own.len().saturating_sub(behind)];
            let is_masked = value.verdict.unwrap_or_else(|| self.decide(kinds, value, own));
            self.go_on_behind(kinds, value, (position, byte));
            return is_masked.then_some(value.mask(end));
        }
        if value.end == End::Tag && !self.is_text_of_element(byte) {
            (self.value, self.element) = (None, None);
            self.outside(kinds, position, byte);
            return None;
        }
        value.count += 1;
        let is_long = value.count >= DECIDES || position + 1 - value.start >= MAX_HELD as u64;
        if value.verdict.is_none() && is_long {
            value.verdict = Some(self.decide(kinds, value, text(value.start)));
        }
        // The last bytes may belong to the end of the value.
        let masked = (value.verdict == Some(true)).then(|| value.mask(self.recent.first_place()));
        value.masked_to = masked.map_or(value.masked_to, |mask| mask.end);
        self.value = Some(value);
        masked.filter(|mask| mask.start < mask.end)
    }

    /// Returns where the value ends, if this byte ends it.
    fn end_of(&self, value: Value, position: u64, byte: u8) -> Option<u64> {
        let is_space = byte.is_ascii_whitespace();
        match value.end {
            End::Quote(own) => {
                let ends = |quote: &Quote| quote.kind == own.kind && quote.level <= own.level;
                let quote = self.recent.quote().filter(ends).map(|quote| self.recent.place(quote.width));
                let is_broken = self.format == Format::Text && matches!(byte, b'\r' | b'\n');
                quote.or(is_broken.then_some(position))
            }
            End::Number => {
                (!matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')).then_some(position)
            }
            End::Field if self.format == Format::Form => (byte == b'&').then_some(position),
            End::Field => (is_space || matches!(byte, b'&' | b';' | b'"' | b'\'' | b'<')).then_some(position),
            End::Tag => (byte == b'<').then_some(position),
            End::Cdata => self.recent.ends_with(b"]]>").then(|| self.recent.place(3)),
        }
    }

    /// Continues after a value, because the byte that ended it may begin something else.
    fn go_on_behind(&mut self, kinds: &Kinds, value: Value, (position, byte): (u64, u8)) {
        self.since_quote.clear();
        self.word.clear();
        match value.end {
            End::Quote(_) | End::Cdata => {}
            End::Field => {
                // `name="value"`
                let is_empty = value.count == 0;
                self.label = if is_empty { Label::Armed } else { Label::None };
                self.outside(kinds, position, byte);
            }
            End::Number | End::Tag => self.outside(kinds, position, byte),
        }
    }

    /// Decides whether the value is masked.
    fn decide(&mut self, kinds: &Kinds, value: Value, text: &[u8]) -> bool {
        let characters: Vec<u8> = text.iter().copied().filter(|byte| *byte != 0).collect();
        let word = characters.trim_ascii();
        let verdict = kinds.judge(&self.listed, if value.end == End::Tag { word } else { &characters });
        self.masked += u64::from(verdict == Some(true));
        self.passed += u64::from(verdict == Some(false));
        verdict == Some(true)
    }
}

impl Value {
    /// The part of the value that is not masked yet, up to `end`.
    fn mask(self, end: u64) -> Mask {
        Mask { start: self.masked_to, end: end.max(self.masked_to), is_number: self.end == End::Number }
    }
}
