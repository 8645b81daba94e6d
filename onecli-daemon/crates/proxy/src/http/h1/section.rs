//! A header or trailer section, checked byte by byte as it arrives (RFC 9112 sections 2 to 6).
//!
//! The reader refuses any input that parsers are known to read differently, even if the RFC allows a recipient to
//! repair it. The next parser on the path might repair it in another way.

use std::ops::Range;

use http::Uri;

use super::violation::Violation;

/// Largest head, in bytes.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
/// Maximum number of fields in a head or trailer section. hyper allocates room for all of them with each head.
pub(crate) const MAX_FIELDS: usize = 4096;
/// Largest trailer section, in bytes. It is below hyper's own limit of 16 KiB, at which hyper closes without a
/// response.
pub(crate) const MAX_TRAILERS: usize = 8 * 1024;
/// Maximum number of digits in a Content-Length. Such a length fits the 63 bits of every recipient.
const MAX_LENGTH_DIGITS: usize = 18;

/// Fields that a trailer section must not contain: they frame, route, authenticate, or describe how to read the
/// content (RFC 9110 section 6.5.1).
const NOT_IN_TRAILERS: [&str; 17] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Characters of a token (RFC 9110 section 5.6.2).
const TOKEN: [bool; 256] = class(b"!#$%&'*+-.^_`|~", false);
/// Characters of a target: those of RFC 3986, and those that clients are known to leave unescaped. The rules for
/// paths decide what they mean in a path.
const TARGET: [bool; 256] = class(b"!$%&'()*+,-./:;=?@[\\]^_`{|}~", false);
/// Characters of a field value, with the white space in it (RFC 9110 section 5.5).
const FIELD_TEXT: [bool; 256] = class(b"\t !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", true);

const fn class(others: &[u8], obs_text: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let alphanumeric = (byte as u8).is_ascii_alphanumeric();
        table[byte] = alphanumeric || (obs_text && byte >= 0x80);
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

/// Returns whether this byte may occur in a field value.
pub(super) fn is_field_text(byte: u8) -> bool {
    FIELD_TEXT[usize::from(byte)]
}

/// Returns the first byte of a path or query that HTTP/1.1's target may not contain.
pub(crate) fn no_target(text: &str) -> Option<u8> {
    text.bytes().find(|byte| !TARGET[usize::from(*byte)])
}

/// Returns how many bytes at the start of `bytes` belong to `class`.
fn run(bytes: &[u8], class: &[bool; 256]) -> usize {
    bytes.iter().position(|byte| !class[usize::from(*byte)]).unwrap_or(bytes.len())
}

/// The position of the next byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before a request line: one empty line is skipped (RFC 9112 section 2.2).
    Start,
    StartLf,
    Method,
    Target,
    Version,
    LineLf,
    FieldStart,
    Name,
    Value,
    FieldLf,
    EndLf,
}

/// The framing of a request's body (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// This many bytes.
    Length(u64),
    /// Chunks and trailers.
    Chunked,
}

/// A section that is complete and valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complete {
    /// Its range in the input: without an empty line before it, with the empty line at its end.
    pub(super) bytes: Range<usize>,
    /// The framing of the body that follows.
    pub(super) framing: Framing,
    /// Set if the request asks to leave HTTP/1: CONNECT, or `Upgrade` in HTTP/1.1.
    pub(super) switches: bool,
}

/// Reads one section.
#[derive(Debug)]
pub(super) struct Section {
    at: At,
    /// All bytes before this position were examined.
    pos: usize,
    /// A trailer section has no request line.
    trailers: bool,
    start: usize,
    method_end: Option<usize>,
    target_end: Option<usize>,
    http11: bool,
    name_start: usize,
    name_end: usize,
    fields: usize,
    host: Option<Range<usize>>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    credentials: Option<Range<usize>>,
    credentials_twice: bool,
}

impl Section {
    /// A request's head.
    pub(super) fn head() -> Section {
        Section {
            at: At::Start,
            pos: 0,
            trailers: false,
            start: 0,
            method_end: None,
            target_end: None,
            http11: false,
            name_start: 0,
            name_end: 0,
            fields: 0,
            host: None,
            length: None,
            chunked: false,
            upgrade: false,
            credentials: None,
            credentials_twice: false,
        }
    }

    /// The trailer section of a chunked body.
    pub(super) fn trailers() -> Section {
        Section { at: At::FieldStart, trailers: true, ..Section::head() }
    }

    /// Returns whether nothing of a request has been read, except perhaps an empty line.
    pub(super) fn is_blank(&self) -> bool {
        self.pos == self.start && !self.trailers
    }

    /// The method, if it was read to its end.
    pub(super) fn method<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        bytes.get(self.start..self.method_end?)
    }

    /// The target, as far as it was read.
    pub(super) fn target<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        bytes.get(self.method_end? + 1..self.target_end.unwrap_or(self.pos))
    }

    /// The first `Host` that was read.
    pub(super) fn host<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        bytes.get(self.host.clone()?)
    }

    /// The `Proxy-Authorization` that was read, if there was only one.
    pub(super) fn credentials<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        if self.credentials_twice {
            return None;
        }
        bytes.get(self.credentials.clone()?)
    }

    /// Continues reading in `bytes`, which start with the section and contain at least the bytes of the last call.
    /// `None`: more bytes are needed. Each byte is examined once, so the way they arrive makes no difference.
    ///
    /// # Errors
    /// The first [`Violation`]; the section must not be used after it.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Option<Complete>, Violation> {
        let limit = if self.trailers { MAX_TRAILERS } else { MAX_HEAD };
        let bytes = &bytes[..bytes.len().min(limit)];
        while let Some(&byte) = bytes.get(self.pos) {
            match self.at {
                At::Start if byte == b'\r' => self.at = At::StartLf,
                At::Start => {
                    self.at = At::Method;
                    continue;
                }
                At::StartLf => {
                    self.at = after_cr(byte, At::Method)?;
                    self.start = self.pos + 1;
                }
                At::Method => match self.token(bytes, &TOKEN, self.start) {
                    Some(b' ') => {
                        self.method_end = Some(self.pos);
                        self.at = At::Target;
                    }
                    Some(b'\n') => return Err(Violation::BareLf),
                    Some(_) => return Err(Violation::RequestLine),
                    None => break,
                },
                At::Target => match self.token(bytes, &TARGET, self.method_end.map_or(0, |end| end + 1)) {
                    Some(b' ') => {
                        self.target_end = Some(self.pos);
                        self.at = At::Version;
                    }
                    Some(b'\n') => return Err(Violation::BareLf),
                    Some(b'\r' | b'\0') => return Err(Violation::RequestLine),
                    Some(b'#') => return Err(Violation::Fragment),
                    Some(byte) => return Err(Violation::TargetCharacter(byte)),
                    None => break,
                },
                At::Version => self.version(bytes, byte)?,
                At::LineLf => self.at = after_cr(byte, At::FieldStart)?,
                At::FieldStart => match byte {
                    b'\r' => self.at = At::EndLf,
                    b'\n' => return Err(Violation::BareLf),
                    b' ' | b'\t' => return Err(Violation::Folded),
                    _ if self.fields == MAX_FIELDS => return Err(Violation::TooManyFields),
                    _ => {
                        self.fields += 1;
                        self.name_start = self.pos;
                        self.at = At::Name;
                        continue;
                    }
                },
                At::Name => match self.token(bytes, &TOKEN, self.name_start) {
                    Some(b':') => {
                        self.name_end = self.pos;
                        self.at = At::Value;
                    }
                    Some(b'\n') => return Err(Violation::BareLf),
                    Some(_) => return Err(Violation::FieldName),
                    None => break,
                },
                At::Value => {
                    self.pos += run(&bytes[self.pos..], &FIELD_TEXT);
                    match bytes.get(self.pos) {
                        Some(b'\r') => self.at = At::FieldLf,
                        Some(b'\n') => return Err(Violation::BareLf),
                        Some(_) => return Err(Violation::FieldValue),
                        None => break,
                    }
                }
                At::FieldLf => {
                    self.at = after_cr(byte, At::FieldStart)?;
                    self.field(bytes)?;
                }
                At::EndLf => {
                    after_cr(byte, At::EndLf)?;
                    self.pos += 1;
                    return self.complete(bytes).map(Some);
                }
            }
            self.pos += 1;
        }
        let too_large = if self.trailers { Violation::TrailersTooLarge } else { Violation::TooLarge };
        if self.pos >= limit { Err(too_large) } else { Ok(None) }
    }

    /// Skips a run of `class`, and returns the byte that ends it, or `None` if that byte has not arrived. If the run
    /// is empty, that is, it ends at `start`, a separator is replaced with a byte that ends no run.
    fn token(&mut self, bytes: &[u8], class: &[bool; 256], start: usize) -> Option<u8> {
        self.pos += run(&bytes[self.pos..], class);
        let end = *bytes.get(self.pos)?;
        let separator = matches!(end, b' ' | b':');
        Some(if separator && self.pos == start { b'\0' } else { end })
    }

    /// Reads one byte of `HTTP/1.1` or of the CR after it.
    fn version(&mut self, bytes: &[u8], byte: u8) -> Result<(), Violation> {
        const FORM: &[u8; 9] = b"HTTP/0.0\r";
        let start = self.target_end.map_or(0, |end| end + 1);
        let fits = match FORM.get(self.pos - start) {
            Some(b'0') => byte.is_ascii_digit(),
            Some(wanted) => byte == *wanted,
            None => false,
        };
        if !fits {
            return Err(if byte == b'\n' { Violation::BareLf } else { Violation::RequestLine });
        }
        if byte == b'\r' {
            self.http11 = match &bytes[start..self.pos] {
                b"HTTP/1.1" => true,
                b"HTTP/1.0" => false,
                _ => return Err(Violation::Version),
            };
            self.at = At::LineLf;
        }
        Ok(())
    }

    /// Reads a field line whose LF was just read.
    fn field(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let name = &bytes[self.name_start..self.name_end];
        let value = trim(bytes, self.name_end + 1..self.pos - 1);
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        if self.trailers {
            return if NOT_IN_TRAILERS.into_iter().any(is) { Err(Violation::TrailerField) } else { Ok(()) };
        }
        match name.len() {
            4 if is("host") && self.host.is_some() => return Err(Violation::HostTwice),
            4 if is("host") => self.host = Some(value),
            7 if is("upgrade") => self.upgrade = true,
            14 if is("content-length") => {
                if self.length.is_some() {
                    return Err(Violation::LengthTwice);
                }
                self.length = Some(length(&bytes[value])?);
            }
            17 if is("transfer-encoding") => {
                if self.chunked {
                    return Err(Violation::CodingTwice);
                }
                // Names of codings are case-insensitive (RFC 9112 section 7).
                if !bytes[value].eq_ignore_ascii_case(b"chunked") {
                    return Err(Violation::CodingUnknown);
                }
                if !self.http11 {
                    return Err(Violation::CodingInHttp10);
                }
                self.chunked = true;
            }
            19 if is("proxy-authorization") => {
                self.credentials_twice = self.credentials.replace(value).is_some();
            }
            _ => {}
        }
        if self.chunked && self.length.is_some() { Err(Violation::LengthAndCoding) } else { Ok(()) }
    }

    /// Runs the checks that need the whole section.
    fn complete(&self, bytes: &[u8]) -> Result<Complete, Violation> {
        let framing =
            if self.chunked { Framing::Chunked } else { Framing::Length(self.length.unwrap_or_default()) };
        let mut complete = Complete { bytes: self.start..self.pos, framing, switches: false };
        if self.trailers {
            return Ok(complete);
        }
        if self.http11 && self.host.is_none() {
            return Err(Violation::HostMissing);
        }
        let method = self.method(bytes).unwrap_or_default();
        let connect = method == b"CONNECT";
        if method.eq_ignore_ascii_case(b"TRACE") {
            return Err(Violation::Trace);
        }
        if connect && framing != Framing::Length(0) {
            return Err(Violation::ConnectContent);
        }
        if !has_form(method, self.target(bytes).unwrap_or_default()) {
            return Err(Violation::TargetForm);
        }
        complete.switches = connect || (self.upgrade && self.http11);
        Ok(complete)
    }
}

/// Expects LF after a CR, and then `next`.
fn after_cr(byte: u8, next: At) -> Result<At, Violation> {
    if byte == b'\n' { Ok(next) } else { Err(Violation::BareCr) }
}

/// The range of a field value without the white space around it (RFC 9110 section 5.6.3).
fn trim(bytes: &[u8], value: Range<usize>) -> Range<usize> {
    let text = &bytes[value.clone()];
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let before = text.iter().take_while(|byte| is_space(byte)).count();
    let after = text[before..].iter().rev().take_while(|byte| is_space(byte)).count();
    value.start + before..value.end - after
}

fn length(value: &[u8]) -> Result<u64, Violation> {
    if value.is_empty() || value.len() > MAX_LENGTH_DIGITS || !value.iter().all(u8::is_ascii_digit) {
        return Err(Violation::LengthInvalid);
    }
    Ok(value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

/// Returns whether the target has the form that its method requires (RFC 9112 section 3.2), and that hyper accepts.
fn has_form(method: &[u8], target: &[u8]) -> bool {
    // This check suffices for nearly every request; a backtick is valid only in a query.
    if method != b"CONNECT" && target.starts_with(b"/") && !target.contains(&b'`') {
        return true;
    }
    let Ok(uri) = Uri::try_from(target) else { return false };
    match method {
        b"CONNECT" => uri.authority().is_some() && uri.path_and_query().is_none(),
        b"OPTIONS" if target == b"*" => true,
        _ => target.starts_with(b"/") || (uri.scheme().is_some() && uri.authority().is_some()),
    }
}
