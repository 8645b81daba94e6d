//! Selects the session values, and their forms, that are masked in the rest of a response.
//!
//! A service may repeat a session in a body or a header. Frameworks write a cookie with escapes or in quotes, and
//! repeat it without them. They also put a random identifier and a signature into one value, and repeat one of the
//! two.

use std::cmp::Reverse;

use onecli_model::SecretValue;

use super::super::scrub::EscapedText;
use super::is_csrf;

/// Minimum number of letters and digits of a value that counts as random if it has both.
const RANDOM: usize = 8;
/// From this length on, a value with a digit counts as random, whatever other characters it has.
const SURELY_RANDOM: usize = 16;
/// A value with this many digits counts as random. A time in milliseconds has 13 digits; a date or a time in seconds
/// has fewer.
const DIGITS: usize = 12;
/// A value with this many letters in a row counts as random, because few words are that long.
const LETTERS: usize = 16;
/// Minimum length of a part that is masked on its own.
const PART: usize = 16;
/// Suffixes of the names of cookies and headers that contain a session, whatever the value looks like.
const SESSION_NAMES: [&[u8]; 7] =
    [b"sid", b"sess", b"session", b"sessionid", b"session_id", b"token", b"jwt"];

/// The texts that must not reach the agent elsewhere in the response: the value as received, without escapes and
/// quotes, and its random parts. None if it does not look random, because masking it would damage pages (`lang=en`,
/// `tz=Europe/Berlin`).
pub(super) fn watched(name: &[u8], value: &[u8]) -> Vec<SecretValue> {
    let mut all: Vec<SecretValue> = Vec::new();
    if is_csrf(name) {
        return all;
    }
    let mut add = |text: &[u8]| {
        let new = SecretValue::new(text.to_vec()).ok();
        all.extend(new.filter(|new| all.iter().all(|known| known.expose() != new.expose())));
    };
    let is_session = is_session_name(name);
    let unescaped = unescaped(value);
    for text in [value, &unescaped] {
        let inner = unquoted(text);
        if is_session || looks_random(inner) {
            add(text);
            add(inner);
        }
    }
    parts(&unescaped).filter(|part| part.len() >= PART && looks_random(part)).for_each(&mut add);
    all
}

/// Returns whether this text looks as if a program generated it at random.
pub(super) fn looks_random(text: &[u8]) -> bool {
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    let letters = text.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
    let is_word = text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_+/=~".contains(byte));
    let letters_in_a_row = text.split(|byte| !byte.is_ascii_alphabetic()).map(<[u8]>::len).max();
    (digits > 0 && text.len() >= SURELY_RANDOM)
        || (is_word && digits > 0 && letters > 0 && digits + letters >= RANDOM)
        || (digits == text.len() && digits >= DIGITS)
        || letters_in_a_row >= Some(LETTERS)
}

fn is_session_name(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    SESSION_NAMES.iter().any(|end| name.ends_with(end))
}

/// Returns the value with all escapes decoded, at any depth. The scrubber finds less decoded forms by itself.
fn unescaped(value: &[u8]) -> Vec<u8> {
    let text = EscapedText::new(value);
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(longest) = text.readings(at).min_by_key(|reading| Reverse(reading.end)) {
        out.extend_from_slice(longest.character.as_bytes());
        at = longest.end;
    }
    out
}

/// Removes surrounding quotes (RFC 6265 section 4.1.1).
fn unquoted(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text)
}

/// The parts between separators: dots, colons, and all characters that neither base64 nor identifiers contain. The
/// parts of a text are disjoint.
fn parts(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| !(byte.is_ascii_alphanumeric() || b"-_+/=~".contains(byte)))
}
