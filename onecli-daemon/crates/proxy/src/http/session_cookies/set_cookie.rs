//! `Set-Cookie` (RFC 6265 section 5.2), as far as needed to replace the value and retain the attributes.

use onecli_model::Host;
use onecli_vault::SessionScope;

use super::pair;
use super::watched::looks_random;

/// Attributes that are retained if [`allowed`] accepts their values. Others are dropped, because they could contain a
/// part of a session.
const ATTRIBUTES: [&str; 9] =
    ["expires", "max-age", "domain", "path", "secure", "httponly", "samesite", "partitioned", "priority"];
/// The attributes without a value.
const FLAGS: [&str; 3] = ["secure", "httponly", "partitioned"];
/// The values of `SameSite` and `Priority`.
const CHOICES: [&str; 6] = ["strict", "lax", "none", "low", "medium", "high"];
/// The first letters of the words in a date (RFC 6265 section 5.1.1).
const DATE_WORDS: [&str; 21] = [
    "mon", "tue", "wed", "thu", "fri", "sat", "sun", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug",
    "sep", "oct", "nov", "dec", "gmt", "utc",
];
/// Length of the longest such word, "Wednesday".
const DATE_WORD: usize = 9;
/// Maximum number of digits in a date: day, year, time and offset.
const DATE_DIGITS: usize = 16;
/// Maximum number of digits of an age in seconds.
const AGE_DIGITS: usize = 10;

/// A cookie that a service sets.
#[derive(Clone)]
pub(super) struct SetCookie<'f> {
    pub(super) name: &'f [u8],
    pub(super) value: &'f [u8],
    /// Set if there is an `=` between name and value.
    is_named: bool,
    attributes: Vec<(&'f [u8], Option<&'f [u8]>)>,
}

impl<'f> SetCookie<'f> {
    pub(super) fn parse(field: &'f [u8]) -> SetCookie<'f> {
        let mut parts = field.split(|byte| *byte == b';');
        let first = parts.next().unwrap_or_default();
        let (name, value) = pair(first);
        let attribute = |part: &'f [u8]| {
            let (name, value) = pair(part);
            if part.contains(&b'=') { (name, Some(value)) } else { (value, None) }
        };
        SetCookie { name, value, is_named: first.contains(&b'='), attributes: parts.map(attribute).collect() }
    }

    /// Returns the same cookie with another value.
    pub(super) fn with_value(&self, value: &[u8]) -> Vec<u8> {
        let mut out = self.name.to_vec();
        if self.is_named {
            out.push(b'=');
        }
        out.extend_from_slice(value);
        for (name, value) in &self.attributes {
            let known = ATTRIBUTES.iter().find(|known| name.eq_ignore_ascii_case(known.as_bytes()));
            let Some(known) = known else { continue };
            let value = value.filter(|_| !FLAGS.contains(known));
            let shown = value.map(|value| allowed(known, up_to_comma(value, *known == "expires")));
            if shown == Some(None) {
                continue;
            }
            out.extend_from_slice(b"; ");
            out.extend_from_slice(name);
            if let Some(value) = shown.flatten() {
                out.push(b'=');
                out.extend_from_slice(value);
            }
        }
        out
    }

    /// Removes domains that do not cover `host`, which set the cookie. No client accepts a cookie with such a domain.
    pub(super) fn set_by(mut self, host: &Host) -> SetCookie<'f> {
        self.attributes.retain(|(name, value)| {
            !name.eq_ignore_ascii_case(b"domain") || value.and_then(|value| domain(value, host)).is_some()
        });
        self
    }

    /// The hosts that a client sends the cookie to (RFC 6265 section 5.3), if `host` set it.
    pub(super) fn scope(&self, host: &Host) -> SessionScope {
        let own = host.to_string();
        let last = self.attributes.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(b"domain"));
        // A client refuses the cookie if they do not agree.
        let domain = last.and_then(|(_, value)| domain((*value)?, host));
        domain.map_or(SessionScope::Host(own), SessionScope::Domain)
    }
}

/// The domain in this attribute value, if `host` may set cookies for it.
fn domain(value: &[u8], host: &Host) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let domain = text.strip_prefix('.').unwrap_or(text).to_ascii_lowercase();
    let covers = matches!(host, Host::Name(_))
        && !is_public_suffix(&domain)
        && SessionScope::Domain(domain.clone()).covers(host);
    covers.then_some(domain)
}

/// The part of a known attribute's value that the agent gets, which cannot be a session. `None` if the attribute is
/// dropped.
fn allowed<'v>(attribute: &str, value: &'v [u8]) -> Option<&'v [u8]> {
    let is_allowed = match attribute {
        "path" => return Some(known_path(value)),
        "expires" => is_date(value),
        "max-age" => {
            let digits = value.strip_prefix(b"-").unwrap_or(value);
            digits.len() <= AGE_DIGITS && digits.iter().all(u8::is_ascii_digit)
        }
        "samesite" | "priority" => CHOICES.iter().any(|choice| value.eq_ignore_ascii_case(choice.as_bytes())),
        // A domain, which `set_by` has checked.
        _ => true,
    };
    is_allowed.then_some(value)
}

/// The path up to its first segment that looks random. The client then sends the cookie to more paths.
fn known_path(value: &[u8]) -> &[u8] {
    let mut end = 0;
    for segment in value.split_inclusive(|byte| *byte == b'/') {
        if looks_random(segment) {
            return &value[..end];
        }
        end += segment.len();
    }
    value
}

/// Returns whether the value contains only the words and numbers of a date.
fn is_date(value: &[u8]) -> bool {
    let is_word = |word: &[u8]| {
        let known =
            |known: &&str| word.get(..3).is_some_and(|word| word.eq_ignore_ascii_case(known.as_bytes()));
        word.is_empty() || (word.len() <= DATE_WORD && DATE_WORDS.iter().any(known))
    };
    let is_separator = |byte: &u8| byte.is_ascii_digit() || b" ,:-+".contains(byte);
    value.iter().filter(|byte| byte.is_ascii_digit()).count() <= DATE_DIGITS
        && value.iter().all(|byte| is_separator(byte) || byte.is_ascii_alphabetic())
        && value.split(is_separator).all(is_word)
}

/// Proxies join several `Set-Cookie` fields with commas. The text after a comma belongs to another cookie and is
/// dropped. A date contains one comma itself.
fn up_to_comma(value: &[u8], is_date: bool) -> &[u8] {
    let mut commas = value.iter().enumerate().filter(|(_, byte)| **byte == b',').map(|(at, _)| at);
    let end = commas.nth(usize::from(is_date)).unwrap_or(value.len());
    value[..end].trim_ascii()
}

fn is_public_suffix(domain: &str) -> bool {
    domain.is_empty() || psl::suffix_str(domain).is_some_and(|suffix| suffix == domain)
}
