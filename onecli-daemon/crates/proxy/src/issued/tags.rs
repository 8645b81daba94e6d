//! Follows the tags of XML and HTML just far enough to find the text of named elements.

use super::recent::Recent;

/// Longest name of an element that is compared, in bytes.
const MAX_NAME: usize = 64;

/// What a tag turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// An element begins, whose name is [`Tags::name`].
    Open,
    /// An element ends.
    Close,
    /// Text begins that is no markup, up to `]]>`.
    Cdata,
    /// A comment, a declaration, an element without content.
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

/// The tag that is read, and what kind of document this is.
#[derive(Debug, Default)]
pub(super) struct Tags {
    at: At,
    name: Vec<u8>,
    /// Is the whole body XML? Not known at its beginning.
    is_xml: Option<bool>,
}

impl Tags {
    /// For a body whose media type is XML or another one.
    pub(super) fn new(is_xml: bool) -> Tags {
        Tags { is_xml: is_xml.then_some(true), ..Tags::default() }
    }

    /// Is the body XML as a whole? In other text, and in HTML, `<name>` may stand for something else.
    pub(super) fn is_xml(&self) -> bool {
        self.is_xml == Some(true)
    }

    /// The local name of the tag, in lower case.
    pub(super) fn name(&self) -> &[u8] {
        let name = self.name.strip_prefix(b"/").unwrap_or(&self.name);
        name.iter().rposition(|byte| *byte == b':').map_or(name, |at| &name[at + 1..])
    }

    /// Is a tag under way?
    pub(super) fn is_within(&self) -> bool {
        self.at != At::Outside
    }

    /// Takes the newest of the `recent` bytes; gives the tag that it ends.
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
