//! Scans the tags of XML and HTML only as far as needed to find the text of named elements.

use super::recent::Recent;

/// Longest name of an element that is compared, in bytes.
const MAX_NAME: usize = 64;

/// The kind of a complete tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// The start of an element, whose name is [`Tags::name`].
    Open,
    /// The end of an element.
    Close,
    /// The start of text without markup, up to `]]>`.
    Cdata,
    /// A comment, a declaration, or an element without content.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    Outside,
    Name,
    Rest,
    Comment,
}

/// The current tag, and the kind of the document.
#[derive(Debug, Default)]
pub(super) struct Tags {
    at: At,
    name: Vec<u8>,
    /// Whether the whole body is XML; unknown at its beginning.
    is_xml: Option<bool>,
}

impl Tags {
    /// Returns the scanner for a body, by whether its media type is XML.
    pub(super) fn new(is_xml: bool) -> Tags {
        Tags { is_xml: is_xml.then_some(true), ..Tags::default() }
    }

    /// Returns whether the whole body is XML. In other text, and in HTML, `<name>` may have another meaning.
    pub(super) fn is_xml(&self) -> bool {
        self.is_xml == Some(true)
    }

    /// The local name of the tag, in lower case.
    pub(super) fn name(&self) -> &[u8] {
        let name = self.name.strip_prefix(b"/").unwrap_or(&self.name);
        name.iter().rposition(|byte| *byte == b':').map_or(name, |at| &name[at + 1..])
    }

    /// Returns whether a tag has begun and not ended.
    pub(super) fn is_within(&self) -> bool {
        self.at != At::Outside
    }

    /// Processes the newest of the `recent` bytes, and returns the tag that it ends.
    pub(super) fn step(&mut self, byte: u8, recent: &Recent) -> Option<Tag> {
        match self.at {
            At::Outside => {
                self.outside(byte);
                None
            }
            At::Name => self.in_name(byte, recent),
            At::Rest if byte == b'>' => Some(self.end(recent)),
            At::Comment if recent.ends_with(b"-->") => {
                self.at = At::Outside;
                Some(Tag::Other)
            }
            At::Rest | At::Comment => None,
        }
    }

    fn outside(&mut self, byte: u8) {
        if byte == b'<' {
            self.at = At::Name;
            self.name.clear();
        } else if self.is_xml.is_none() && !byte.is_ascii_whitespace() && byte.is_ascii() {
            // A byte order mark is not ASCII.
            self.is_xml = Some(false);
        }
    }

    fn in_name(&mut self, byte: u8, recent: &Recent) -> Option<Tag> {
        match byte {
            b'>' => return Some(self.end(recent)),
            b'<' => self.name.clear(),
            b'/' if !self.name.is_empty() => self.at = At::Rest,
            _ if byte.is_ascii_whitespace() => {
                self.at = if self.name.is_empty() { At::Outside } else { At::Rest };
            }
            _ if self.name.len() <= MAX_NAME => self.name.push(byte.to_ascii_lowercase()),
            _ => {}
        }
        match self.name.as_slice() {
            b"!--" => self.at = At::Comment,
            b"![cdata[" => {
                self.at = At::Outside;
                return Some(Tag::Cdata);
            }
            _ => {}
        }
        None
    }

    fn end(&mut self, recent: &Recent) -> Tag {
        self.at = At::Outside;
        if self.is_xml.is_none() {
            self.is_xml = Some(!matches!(self.name.as_slice(), b"html" | b"!doctype"));
        }
        match self.name.first() {
            Some(b'/') => Tag::Close,
            Some(b'!' | b'?') | None => Tag::Other,
            _ if recent.byte(2) == b'/' => Tag::Other,
            _ => Tag::Open,
        }
    }
}
