//! Follows JSON, XML and forms just far enough to find the values of named members. Nothing is parsed into a tree, so
//! memory is constant whatever the nesting.

use std::ops::Range;

use super::kinds::Kinds;

/// Longest member name that is compared, in bytes.
const MAX_NAME: usize = 64;
/// So many bytes of a value decide whether it is masked: more than a placeholder with its prefix, and than any shape.
pub(super) const DECIDES: usize = 192;

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// RFC 8259, also within JavaScript, and one value behind another.
    Json,
    /// Elements; attributes are not read.
    Xml,
    /// `name=value&...`
    Form,
    /// Text without members.
    Text,
}

/// Where in the text the scanner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Between tokens; `named` behind the name of a member, `armed` where its value comes.
    Between { named: bool, armed: bool, in_array: bool },
    /// In a string, a tag or a form's name.
    Name { escaped: bool },
    /// In a value of a member that is listed.
    Value { escaped: bool, in_array: bool, verdict: Option<bool> },
}

const BETWEEN: At = At::Between { named: false, armed: false, in_array: false };

/// A scanner over one body.
#[derive(Debug)]
pub(super) struct Members {
    format: Format,
    at: At,
    /// The name that is read, in lower case; longer ones stay one byte too long.
    name: Vec<u8>,
    /// The kinds that the member of the value is listed for.
    listed: Vec<usize>,
    /// Where the value began, as a position in the stream.
    value: u64,
    /// Values that were masked.
    pub(super) masked: u64,
    /// Values that passed.
    pub(super) passed: u64,
}

impl Members {
    pub(super) fn new(format: Format) -> Members {
        let at = if format == Format::Form { At::Name { escaped: false } } else { BETWEEN };
        Members { format, at, name: Vec::new(), listed: Vec::new(), value: 0, masked: 0, passed: 0 }
    }

    /// Where bytes begin that are not decided.
    pub(super) fn open_from(&self) -> Option<u64> {
        matches!(self.at, At::Value { verdict: None, .. }).then_some(self.value)
    }

    /// Is the scanner in the value of a listed member?
    pub(super) fn is_in_value(&self) -> bool {
        matches!(self.at, At::Value { .. })
    }

    /// Takes one byte at `position`. `text` gives the stream from a position on, up to this byte. Gives what is to be
    /// masked.
    pub(super) fn step<'t>(
        &mut self,
        kinds: &Kinds,
        position: u64,
        byte: u8,
        text: impl Fn(u64) -> &'t [u8],
    ) -> Option<Range<u64>> {
        match self.at {
            At::Between { named, armed, in_array } => self.between((named, armed, in_array), position, byte),
            At::Name { escaped } => self.name(kinds, escaped, position, byte),
            At::Value { escaped, in_array, verdict } => {
                return self.value(kinds, (escaped, in_array, verdict), position, byte, text);
            }
        }
        None
    }

    /// The stream has ended within a value.
    pub(super) fn finish<'t>(
        &mut self,
        kinds: &Kinds,
        end: u64,
        text: impl Fn(u64) -> &'t [u8],
    ) -> Option<Range<u64>> {
        let from = self.open_from()?;
        self.at = BETWEEN;
        self.decide(kinds, text(from)).then_some(from..end)
    }

    fn between(&mut self, (named, armed, in_array): (bool, bool, bool), position: u64, byte: u8) {
        match (self.format, byte) {
            (Format::Json, b'"') if armed => {
                self.at = At::Value { escaped: false, in_array, verdict: None };
                self.value = position + 1;
            }
            (Format::Json, b'"') | (Format::Xml, b'<') => {
                self.name.clear();
                self.at = At::Name { escaped: false };
            }
            (Format::Json, b' ' | b'\t' | b'\r' | b'\n') => {}
            (Format::Json, b':') => self.at = At::Between { named: false, armed: named, in_array: false },
            (Format::Json, b'[') if armed => self.at = At::Between { named: false, armed, in_array: true },
            (Format::Json, b',') if in_array => {}
            (Format::Json, b']' | b'{' | b'}' | b',') => self.at = BETWEEN,
            // A number or a literal takes the member's place.
            (Format::Json, _) if named || (armed && !in_array) => self.at = BETWEEN,
            _ => {}
        }
    }

    fn name(&mut self, kinds: &Kinds, escaped: bool, position: u64, byte: u8) {
        let ends = match self.format {
            Format::Json => byte == b'"' && !escaped,
            Format::Xml => byte == b'>',
            Format::Form => matches!(byte, b'=' | b'&'),
            Format::Text => true,
        };
        if !ends {
            if self.name.len() <= MAX_NAME {
                self.name.push(byte.to_ascii_lowercase());
            }
            self.at = At::Name { escaped: byte == b'\\' && !escaped };
            return;
        }
        self.listed = kinds.listed(self.member_name());
        let found = !self.listed.is_empty();
        self.at = match self.format {
            Format::Json => At::Between { named: found, armed: false, in_array: false },
            _ if found && byte != b'&' => {
                self.value = position + 1;
                At::Value { escaped: false, in_array: false, verdict: None }
            }
            Format::Form => {
                self.name.clear();
                // A value that is not listed is read as a name would be, up to its end.
                At::Name { escaped: false }
            }
            _ => BETWEEN,
        };
    }

    /// What the name names: for XML the local name of a beginning tag.
    fn member_name(&self) -> &[u8] {
        let name = self.name.as_slice();
        if self.format != Format::Xml {
            return name;
        }
        if name.ends_with(b"/") {
            return b"";
        }
        let end = name.iter().position(u8::is_ascii_whitespace).unwrap_or(name.len());
        let name = &name[..end];
        name.iter().rposition(|byte| *byte == b':').map_or(name, |at| &name[at + 1..])
    }

    fn value<'t>(
        &mut self,
        kinds: &Kinds,
        (escaped, in_array, verdict): (bool, bool, Option<bool>),
        position: u64,
        byte: u8,
        text: impl Fn(u64) -> &'t [u8],
    ) -> Option<Range<u64>> {
        let ends = match self.format {
            Format::Json => byte == b'"' && !escaped,
            Format::Xml => byte == b'<',
            Format::Form => byte == b'&',
            Format::Text => true,
        };
        let length = position - self.value;
        if ends {
            self.at = match self.format {
                Format::Json => At::Between { named: false, armed: in_array, in_array },
                Format::Xml | Format::Form => At::Name { escaped: false },
                Format::Text => BETWEEN,
            };
            self.name.clear();
            let undecided = verdict.is_none();
            let value = text(self.value);
            let value = &value[..value.len() - 1];
            return (undecided && self.decide(kinds, value)).then_some(self.value..position);
        }
        let escaped = self.format == Format::Json && byte == b'\\' && !escaped;
        let decides = verdict.is_none() && length + 1 >= DECIDES as u64;
        let verdict = if decides { Some(self.decide(kinds, text(self.value))) } else { verdict };
        self.at = At::Value { escaped, in_array, verdict };
        match verdict {
            Some(true) if decides => Some(self.value..position + 1),
            Some(true) => Some(position..position + 1),
            _ => None,
        }
    }

    /// Is the value masked?
    fn decide(&mut self, kinds: &Kinds, value: &[u8]) -> bool {
        let verdict = kinds.judge(&self.listed, value);
        self.masked += u64::from(verdict == Some(true));
        self.passed += u64::from(verdict == Some(false));
        verdict == Some(true)
    }
}
