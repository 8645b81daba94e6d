//! Echo: the upstream returns the request in an encoding that the agent chose, and the agent decodes it.
//!
//! Control: the same search finds the value in the upstream's response without OneCLI.

use std::fmt::Write as _;
use std::io;

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

use crate::stage::row::{Row, Trial};
use crate::stage::world::{A, Conn, Seen, World, reply_with};

/// A value that differs in each encoding.
const ECHOED: &str = "sk/real+7Qx2mZt9Lr4WbN8cYp3VdK6h";
/// This many consecutive characters of the value are a leak.
const WINDOW: usize = 10;
const GETS: &str = "the value, from an encoded echo";
const CONTROL: &str = "the same echo without OneCLI contains the value";

pub(crate) const ROWS: &[Row] = &[
    Row::new("echo/bearer", GETS, CONTROL, bearer),
    Row::new("echo/basic", GETS, CONTROL, basic).quick(),
    Row::new("echo/basic-own-user", GETS, CONTROL, basic_own_user),
    Row::new("echo/query", GETS, CONTROL, query).quick(),
    Row::new("echo/replaced-query", GETS, CONTROL, replaced_query),
    Row::new("echo/json-body", GETS, CONTROL, json_body),
];

const ENCODINGS: &[&str] = &[
    "plain",
    "hex",
    "HEX",
    "base64",
    "base64url",
    "percent",
    "json",
    "html",
    "octal",
    "octal-twice",
    "utf-16le",
    "utf-16be",
];

fn encode(encoding: &str, text: &[u8]) -> Vec<u8> {
    let each =
        |one: &dyn Fn(u8) -> String| text.iter().map(|byte| one(*byte)).collect::<String>().into_bytes();
    match encoding {
        "hex" => HEXLOWER.encode(text).into_bytes(),
        "HEX" => HEXUPPER.encode(text).into_bytes(),
        "base64" => BASE64.encode(text).into_bytes(),
        "base64url" => BASE64URL_NOPAD.encode(text).into_bytes(),
        "percent" => each(&|byte| format!("%{byte:02x}")),
        "json" => each(&|byte| format!("\\u{byte:04x}")),
        "html" => each(&|byte| format!("&#{byte};")),
        "octal" => each(&|byte| format!("\\{byte:03o}")),
        // The backslash of one escape is itself escaped.
        "octal-twice" => each(&|byte| format!("\\134{byte:03o}")),
        "utf-16le" => text.iter().flat_map(|byte| [*byte, 0]).collect(),
        "utf-16be" => text.iter().flat_map(|byte| [0, *byte]).collect(),
        _ => text.to_vec(),
    }
}

/// Decodes the text. Masked bytes decode to other bytes, and the rest stays at its offset.
fn decode(encoding: &str, text: &[u8]) -> Vec<u8> {
    match encoding {
        "hex" | "HEX" => from_hex(text),
        "base64" | "base64url" => from_base64(text),
        "percent" => unescape(text, "%", 2, 16),
        "json" => unescape(text, "\\u", 4, 16),
        "octal" => unescape(text, "\\", 3, 8),
        "octal-twice" => unescape(&unescape(text, "\\", 3, 8), "\\", 3, 8),
        "html" => from_entities(text),
        "utf-16le" | "utf-16be" => text.iter().copied().filter(|byte| *byte != 0).collect(),
        _ => text.to_vec(),
    }
}

fn from_hex(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
    text.chunks_exact(2).filter_map(|two| u8::try_from(digit(two[0]) * 16 + digit(two[1])).ok()).collect()
}

fn from_base64(text: &[u8]) -> Vec<u8> {
    let mut lenient = BASE64_NOPAD.specification();
    lenient.check_trailing_bits = false;
    let encoding = lenient.encoding().expect("a valid specification");
    let one = |byte: &u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        byte if byte.is_ascii_alphanumeric() || b"+/".contains(byte) => *byte,
        _ => b'A',
    };
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let mut letters: Vec<u8> = text[..end].iter().map(one).collect();
    if letters.len() % 4 == 1 {
        letters.pop();
    }
    encoding.decode(&letters).unwrap_or_default()
}

/// Decodes `PREFIX` followed by this many digits, anywhere.
fn unescape(text: &[u8], prefix: &str, digits: usize, radix: u32) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let mut parts = text.split(prefix);
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..digits).and_then(|d| u32::from_str_radix(d, radix).ok()) {
            Some(code) => {
                out.extend(u8::try_from(code).ok());
                out.extend(&part.as_bytes()[digits..]);
            }
            None => out.extend(part.as_bytes()),
        }
    }
    out
}

fn from_entities(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    text.split("&#").filter_map(|part| part.split(';').next()?.parse().ok()).collect()
}

/// Returns whether `text` contains a part of the value, raw, percent-encoded, or in base64 words.
fn holds(text: &[u8]) -> bool {
    let words = text.split(|byte| !byte.is_ascii_alphanumeric() && !b"+/-_=".contains(byte));
    let decoded = words.filter(|word| word.len() >= 16).map(from_base64);
    let views = [text.to_vec(), unescape(text, "%", 2, 16)].into_iter().chain(decoded);
    views
        .into_iter()
        .any(|view| ECHOED.as_bytes().windows(WINDOW).any(|part| memchr::memmem::find(&view, part).is_some()))
}

/// Returns head and body in the encoding that the path selects, in the body and in a header field.
fn echo(seen: &Seen, conn: &mut Conn) -> io::Result<()> {
    let encoded = encode(seen.last_segment(), &[seen.head.as_bytes(), &seen.body].concat());
    let is_field = encoded.iter().all(u8::is_ascii_graphic);
    let field = String::from_utf8_lossy(&encoded).into_owned();
    let fields = if is_field { format!("X-Echo: {field}\r\n") } else { String::new() };
    reply_with(conn, &fields, encoded)
}

/// Returns whether the agent finds the value when it decodes a response.
fn leaks(answer: &crate::wire::Answer, encoding: &str) -> bool {
    let field = answer.field("x-echo").unwrap_or_default();
    holds(&decode(encoding, &answer.body)) || holds(&decode(encoding, field.as_bytes()))
}

/// Tries each encoding. `request` builds the request from a path and a credential.
fn try_all(trial: &mut Trial, options: &[&str], request: impl Fn(&World, &str, &str) -> Vec<u8>) {
    let world = World::new(echo);
    let granted = world.give("key", A, ECHOED, options);
    let mut found = Vec::new();
    for encoding in ENCODINGS {
        let path = format!("/echo/{encoding}");
        let control = world.direct(A, &request(&world, &path, ECHOED));
        trial.control(format!("{encoding}: {control:?}"), leaks(&control, encoding));
        world.script.clear();
        let answer = world.send(A, &request(&world, &path, &granted.placeholder));
        let sent = world.script.seen().iter().any(|seen| holds(seen.head.as_bytes()) || holds(&seen.body));
        trial.control(
            format!("{encoding}: the credential was sent: {answer:?}"),
            sent && answer.status == 200,
        );
        if leaks(&answer, encoding) {
            found.push(*encoding);
        }
    }
    trial.attempt(found.join(", "), !found.is_empty());
}

fn bearer(trial: &mut Trial) {
    try_all(trial, &["--bearer"], |world, path, key| {
        world.request("GET", A, path, &format!("Authorization: Bearer {key}\r\n"))
    });
}

fn basic_fields(user: &str, key: &str) -> String {
    format!("Authorization: Basic {}\r\n", BASE64.encode(format!("{user}:{key}").as_bytes()))
}

fn basic(trial: &mut Trial) {
    try_all(trial, &["--basic", "me"], |world, path, key| {
        world.request("GET", A, path, &basic_fields("me", key))
    });
}

/// The length of the user name shifts the value within its base64 form.
fn basic_own_user(trial: &mut Trial) {
    for user in ["u", "us", "use", "a-name-of-the-agents-own"] {
        try_all(trial, &["--replace", "basic"], |world, path, key| {
            world.request("GET", A, path, &basic_fields(user, key))
        });
    }
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        let _ = if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            write!(out, "{}", char::from(byte))
        } else {
            write!(out, "%{byte:02X}")
        };
        out
    })
}

fn query(trial: &mut Trial) {
    try_all(trial, &["--query", "key"], |world, path, key| {
        world.request("GET", A, &format!("{path}?key={}", percent(key)), "")
    });
}

fn replaced_query(trial: &mut Trial) {
    try_all(trial, &["--replace", "query:key"], |world, path, key| {
        world.request("GET", A, &format!("{path}?a=1&key={}&b=2", percent(key)), "")
    });
}

fn json_body(trial: &mut Trial) {
    try_all(trial, &["--replace", "json:/key"], |world, path, key| {
        let body = format!("{{\"a\": 1, \"key\": \"{key}\"}}");
        let fields = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        [world.request("POST", A, path, &fields), body.into_bytes()].concat()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_finds_encoded_values_and_no_masked_ones() {
        let text =
            |value: &str| format!("GET /?key={value} HTTP/1.1\r\nAuthorization: Bearer {value}\r\n\r\n");
        for encoding in ENCODINGS {
            let found = |value: &str| holds(&decode(encoding, &encode(encoding, text(value).as_bytes())));
            assert!(found(ECHOED), "{encoding}");
            assert!(found(&percent(ECHOED)), "{encoding}");
            assert!(!found(&"*".repeat(ECHOED.len())), "{encoding}");
            let masked = encode(encoding, text(ECHOED).as_bytes()).iter().map(|_| b'*').collect::<Vec<_>>();
            assert!(!holds(&decode(encoding, &masked)), "{encoding}");
        }
    }
}
