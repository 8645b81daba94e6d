//! Actions that a request names in addition to its method and path: in its query, in a header field or in its body.
//!
//! Only names that occur in a template's denials are stored, so most requests store nothing here.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use http::header::HeaderMap;
use percent_encoding::percent_decode;

use self::unescape::{unescaped, without_json_escapes};
use crate::pattern::glob::Part;
use crate::template::Template;
pub use crate::template::condition::Condition;
use crate::template::denial::Denial;
pub use denials::Asked;
pub use reading::{Reading, UnreadableBody};
pub use text::{UnreadableText, check_text};

mod body;
mod denials;
mod reading;
mod text;
mod unescape;

/// The maximum number of stored values of known names. Beyond it, every condition holds.
const MAX_MENTIONS: usize = 32;
/// The maximum length of a compared value, in bytes. A longer one counts as any value. No service has names of that
/// length.
const MAX_VALUE: usize = 256;
/// The number of times that percent-escapes of a text are decoded.
const FORM_DECODINGS: usize = 2;

/// The header in which AWS names the operation in its JSON protocols.
pub const AWS_TARGET: &str = "x-amz-target";
/// The parameter in which AWS names the operation in its query protocols.
pub const AWS_ACTION: &str = "action";

/// The part of a request that contains a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestPart {
    Query,
    Header,
    Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mention {
    place: RequestPart,
    /// The name as in the denials.
    name: &'static str,
    /// In lower case; `None` for a value that is too long to be compared.
    value: Option<String>,
}

/// The known names that a request mentions, with their values: at most 32, each up to 256 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operations {
    mentions: Vec<Mention>,
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
            operations.read_parameters(RequestPart::Query, query.as_bytes());
        }
        for name in &KNOWN.headers {
            for value in headers.get_all(*name) {
                operations.note(RequestPart::Header, name, value.as_bytes());
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
        self.read_parameters(RequestPart::Body, body);
        self.read_members(body);
        self.read_words(RequestPart::Body, body);
        if let Some(text) = body::of_utf16(body) {
            self.read_parameters(RequestPart::Body, text.as_bytes());
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
            self.note(RequestPart::Body, name, b"");
        }
    }

    /// Adds the words of a query, for a request of this [`Reading`].
    ///
    /// # Errors
    /// [`UnreadableText`] for a stored GraphQL document.
    pub fn read_query(&mut self, reading: Reading, query: Option<&str>) -> Result<(), UnreadableText> {
        let Some(query) = query.filter(|_| reading >= Reading::Text) else { return Ok(()) };
        self.read_words(RequestPart::Query, query.as_bytes());
        if reading == Reading::GraphQl { text::refuse_stored(query) } else { Ok(()) }
    }

    /// Adds names and values of `a=1&b`, with their escapes decoded more than once.
    fn read_parameters(&mut self, place: RequestPart, text: &[u8]) {
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
    fn read_words(&mut self, place: RequestPart, text: &[u8]) {
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
                if memchr::memmem::find(&plain, word.as_bytes()).is_some()
                    && !self.has_mention(place, word, None)
                {
                    self.note(place, word, b"");
                }
            }
        }
    }

    fn note(&mut self, place: RequestPart, name: &'static str, value: &[u8]) {
        if self.mentions.len() == MAX_MENTIONS {
            self.is_full = true;
            return;
        }
        let value =
            (value.len() <= MAX_VALUE).then(|| String::from_utf8_lossy(value).trim().to_ascii_lowercase());
        self.mentions.push(Mention { place, name, value });
    }

    fn has_mention(&self, place: RequestPart, name: &str, value: Option<&str>) -> bool {
        self.is_full || self.values(place, name).any(|own| matches_value(own, value))
    }

    /// Returns whether the header, or the query in its place, names the operation. AWS reads the text after the last
    /// dot.
    fn names_target(&self, operation: &str) -> bool {
        let last = |own: &str| own.rsplit('.').next() == Some(operation);
        let in_place = |place| self.values(place, AWS_TARGET).any(|own| own.is_none_or(last));
        self.is_full || in_place(RequestPart::Header) || in_place(RequestPart::Query)
    }

    fn values(&self, place: RequestPart, name: &str) -> impl Iterator<Item = Option<&str>> {
        let is_it = move |mention: &&Mention| mention.place == place && mention.name == name;
        self.mentions.iter().filter(is_it).map(|mention| mention.value.as_deref())
    }
}

fn matches_value(own: Option<&str>, pattern: Option<&str>) -> bool {
    match (own, pattern) {
        (None, _) | (_, None) => true,
        (Some(own), Some(pattern)) => Part::new(pattern.to_owned()).matches(own),
    }
}

#[cfg(test)]
mod tests;
