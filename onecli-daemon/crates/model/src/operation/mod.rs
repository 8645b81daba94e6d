//! Actions that a request names in addition to its method and path: in its query, in a header field or in its body.
//!
//! Only names that occur in a template's denials are stored, so most requests store nothing here.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::LazyLock;

use http::header::{HeaderMap, HeaderName};
use percent_encoding::percent_decode;

use crate::pattern::glob::Part;
use crate::template::{Denial, Template};
pub use text::{UnreadableText, check_text};

mod body;
mod text;

/// The maximum number of stored values of known names. Beyond it, every condition holds.
const MAX_SAID: usize = 32;
/// The maximum length of a compared value, in bytes. A longer one counts as any value. No service has names of that
/// length.
const MAX_VALUE: usize = 256;
/// The number of times that percent-escapes of a text are decoded.
const FORM_DECODINGS: usize = 2;

/// The header in which AWS names the operation in its JSON protocols.
pub const AWS_TARGET: &str = "x-amz-target";
/// The parameter in which AWS names the operation in its query protocols.
pub const AWS_ACTION: &str = "action";

/// The requirement of a denial in addition to method, host and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The request has this parameter. Its value matches the pattern, or may be any if there is no pattern.
    Parameter {
        /// In lower case.
        name: String,
        /// In lower case, `*` for any characters.
        value: Option<String>,
        /// Whether the service also reads it from a form body, or from a JSON body if it has no value here.
        in_body: bool,
    },
    /// The request has this header field, and its value matches the pattern.
    Header {
        /// The field's name.
        name: HeaderName,
        /// In lower case, `*` for any characters.
        value: String,
    },
    /// The request names an operation of AWS: `Action=NAME`, `X-Amz-Target: PREFIX.NAME` or
    /// `/service/SERVICE/operation/NAME`.
    Operation {
        /// In lower case.
        name: String,
        /// Whether the service reads the action from a form body.
        in_form: bool,
    },
    /// The body contains a word, such as the name of a GraphQL field.
    Word(String),
}

/// A denial depends on the body, and this program cannot read it as the server would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body has a content coding, character set or media type that is not supported")]
pub struct UnreadableBody;

/// The parts besides the head that denials must read of a request. A greater one includes all lesser ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reading {
    /// Nothing.
    #[default]
    Nothing,
    /// The fields of a form, or the members of a JSON document, in the body.
    Form,
    /// Words of a text, in the body or in the query.
    Text,
    /// Words of a GraphQL document, in the body or in the query.
    GraphQl,
}

impl Condition {
    /// Returns whether the request meets the condition. For [`Condition::Operation`], `is_in_path` returns whether
    /// the path names the operation.
    pub fn holds(&self, operations: &Operations, is_in_path: impl FnOnce() -> bool) -> bool {
        match self {
            Condition::Parameter { name, value, in_body } => {
                operations.says(Place::Query, name, value.as_deref())
                    || *in_body && operations.says(Place::Body, name, value.as_deref())
            }
            Condition::Header { name, value } => operations.says(Place::Header, name.as_str(), Some(value)),
            Condition::Word(word) => {
                operations.says(Place::Body, word, None) || operations.says(Place::Query, word, None)
            }
            Condition::Operation { name, .. } => {
                operations.says(Place::Query, AWS_ACTION, Some(name))
                    || operations.says(Place::Body, AWS_ACTION, Some(name))
                    || operations.names_target(name)
                    || is_in_path()
            }
        }
    }
}

impl FromStr for Condition {
    type Err = String;

    /// Parses `?NAME` or `?NAME=VALUE` for the query alone, `&NAME` or `&NAME=VALUE` for query or body,
    /// `FIELD:VALUE`, `~WORD`.
    fn from_str(text: &str) -> Result<Condition, String> {
        let lower = !text.bytes().any(|b| b.is_ascii_uppercase() || b == b'%');
        if !lower {
            return Err("write conditions in lower case, without escapes".to_owned());
        }
        for (mark, in_body) in [('?', false), ('&', true)] {
            if let Some(parameter) = text.strip_prefix(mark) {
                let (name, value) = match parameter.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (parameter, None),
                };
                return Ok(Condition::Parameter { name: name.to_owned(), value, in_body });
            }
        }
        if let Some(word) = text.strip_prefix('~') {
            return Ok(Condition::Word(word.to_owned()));
        }
        let (name, value) = text
            .split_once(':')
            .ok_or("write a condition as ?NAME=VALUE, &NAME=VALUE, FIELD:VALUE or ~WORD")?;
        let name = name.parse().map_err(|_| format!("'{name}' is not a header field"))?;
        Ok(Condition::Header { name, value: value.to_owned() })
    }
}

/// The part of a request that contains a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Query,
    Header,
    Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    place: Place,
    /// The name as in the denials.
    name: &'static str,
    /// In lower case; `None` for a value that is too long to be compared.
    value: Option<String>,
}

/// The known names that a request mentions, with their values: at most 32, each up to 256 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operations {
    said: Vec<Said>,
    /// Whether the limit was reached: every condition then holds.
    is_full: bool,
}

/// Names that occur in some denial.
#[derive(Default)]
struct Known {
    parameters: BTreeSet<&'static str>,
    /// Parameters that a JSON body may have as members.
    members: BTreeSet<&'static str>,
    headers: BTreeSet<&'static str>,
    words: BTreeSet<&'static str>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let mut known = Known::default();
    let conditions =
        Template::all().iter().flat_map(|template| &template.denials).filter_map(Denial::condition);
    for condition in conditions {
        match condition {
            Condition::Parameter { name, value, in_body } => {
                if *in_body && value.is_none() {
                    known.members.insert(name);
                }
                known.parameters.insert(name)
            }
            Condition::Header { name, .. } => known.headers.insert(name.as_str()),
            Condition::Word(word) => known.words.insert(word),
            Condition::Operation { .. } => {
                known.headers.insert(AWS_TARGET);
                known.parameters.insert(AWS_TARGET);
                known.parameters.insert(AWS_ACTION)
            }
        };
    }
    known
});

/// Returns whether a template's denial depends on this header field.
pub fn is_judged_header(name: &str) -> bool {
    KNOWN.headers.contains(name)
}

impl Operations {
    /// Reads the known names from query and header fields.
    pub fn of(query: Option<&str>, headers: &HeaderMap) -> Operations {
        let mut operations = Operations::default();
        if let Some(query) = query {
            operations.read_parameters(Place::Query, query.as_bytes());
        }
        for name in &KNOWN.headers {
            for value in headers.get_all(*name) {
                operations.note(Place::Header, name, value.as_bytes());
            }
        }
        operations
    }

    /// Adds the known names in the body: the fields of a form, the members of a JSON document, and words at any
    /// position.
    ///
    /// # Errors
    /// [`UnreadableBody`]: the server may read the body differently.
    pub fn read_body(&mut self, headers: &HeaderMap, body: &[u8]) -> Result<(), UnreadableBody> {
        if body.is_empty() {
            return Ok(());
        }
        if !body::is_plain(headers) {
            return Err(UnreadableBody);
        }
        self.read_parameters(Place::Body, body);
        self.read_members(body);
        self.read_words(Place::Body, body);
        if let Some(text) = body::of_utf16(body) {
            self.read_parameters(Place::Body, text.as_bytes());
            self.read_members(text.as_bytes());
        }
        Ok(())
    }

    /// Adds names of members at any position of a JSON document.
    fn read_members(&mut self, text: &[u8]) {
        if !body::is_json(text) {
            return;
        }
        let plain = without_json_escapes(text);
        for name in KNOWN.members.iter().filter(|name| body::has_name(&plain, name)) {
            self.note(Place::Body, name, b"");
        }
    }

    /// Adds the words of a query, for a request of this [`Reading`].
    ///
    /// # Errors
    /// [`UnreadableText`] for a stored GraphQL document.
    pub fn read_query(&mut self, reading: Reading, query: Option<&str>) -> Result<(), UnreadableText> {
        let Some(query) = query.filter(|_| reading >= Reading::Text) else { return Ok(()) };
        self.read_words(Place::Query, query.as_bytes());
        if reading == Reading::GraphQl { text::refuse_stored(query) } else { Ok(()) }
    }

    /// Adds names and values of `a=1&b`, with their escapes decoded more than once.
    fn read_parameters(&mut self, place: Place, text: &[u8]) {
        for pair in text.split(|byte| matches!(byte, b'&' | b';')) {
            let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
            let (name, value) = (&pair[..at], pair.get(at + 1..).unwrap_or_default());
            // No known name is longer, even if it is escaped three times.
            if name.is_empty() || name.len() > 7 * 64 {
                continue;
            }
            let name = unescaped(name);
            if let Some(known) = KNOWN.parameters.get(name.as_str()).copied() {
                let value = &value[..value.len().min(7 * MAX_VALUE)];
                self.note(place, known, unescaped(value).as_bytes());
            }
        }
    }

    /// Adds words as written, and after decoding the escapes of forms and of JSON.
    fn read_words(&mut self, place: Place, text: &[u8]) {
        if KNOWN.words.is_empty() {
            return;
        }
        let mut text = Cow::Borrowed(text);
        for round in 0..=FORM_DECODINGS {
            if round > 0 {
                if !text.contains(&b'%') {
                    return;
                }
                text = Cow::Owned(percent_decode(&text).collect());
            }
            let plain = without_json_escapes(&text);
            for word in &KNOWN.words {
                if memchr::memmem::find(&plain, word.as_bytes()).is_some() && !self.says(place, word, None) {
                    self.note(place, word, b"");
                }
            }
        }
    }

    fn note(&mut self, place: Place, name: &'static str, value: &[u8]) {
        if self.said.len() == MAX_SAID {
            self.is_full = true;
            return;
        }
        let value =
            (value.len() <= MAX_VALUE).then(|| String::from_utf8_lossy(value).trim().to_ascii_lowercase());
        self.said.push(Said { place, name, value });
    }

    fn says(&self, place: Place, name: &str, value: Option<&str>) -> bool {
        self.is_full || self.values(place, name).any(|own| matches_value(own, value))
    }

    /// Returns whether the header, or the query in its place, names the operation. AWS reads the text after the last
    /// dot.
    fn names_target(&self, operation: &str) -> bool {
        let last = |own: &str| own.rsplit('.').next() == Some(operation);
        let in_place = |place| self.values(place, AWS_TARGET).any(|own| own.is_none_or(last));
        self.is_full || in_place(Place::Header) || in_place(Place::Query)
    }

    fn values(&self, place: Place, name: &str) -> impl Iterator<Item = Option<&str>> {
        let is_it = move |said: &&Said| said.place == place && said.name == name;
        self.said.iter().filter(is_it).map(|said| said.value.as_deref())
    }
}

fn matches_value(own: Option<&str>, pattern: Option<&str>) -> bool {
    match (own, pattern) {
        (None, _) | (_, None) => true,
        (Some(own), Some(pattern)) => Part::new(pattern.to_owned()).matches(own),
    }
}

/// Returns the text in lower case, without escapes. A chain of servers may decode them more than once.
fn unescaped(text: &[u8]) -> String {
    let mut bytes: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    for _ in 0..2 {
        if bytes.contains(&b'%') {
            bytes = percent_decode(&bytes).collect();
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    // Servers ignore a byte order mark at the beginning of a form.
    text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\0' | '\u{feff}')).to_ascii_lowercase()
}

/// Returns the body in lower case, with `\uXXXX` of ASCII characters decoded (RFC 8259 section 7).
fn without_json_escapes(body: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(body.len());
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        let escape = (byte == b'\\').then(|| ascii_escape(&body[at..])).flatten();
        at += if escape.is_some() { 6 } else { 1 };
        text.push(escape.unwrap_or(byte).to_ascii_lowercase());
    }
    text
}

/// Returns the character of `\u00XX`.
fn ascii_escape(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"\\u00")?.get(..2)?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests;
