//! Tests of less common escapes, and of the remaining names and numbers of HTML.
#![allow(clippy::format_collect, reason = "test texts are short")]

use onecli_model::SecretValue;
use proptest::prelude::*;

use super::*;

fn scrubber(value: &str) -> Scrubber {
    let mut scrubber = Scrubber::default();
    scrubber.add_forms(&WireForm::plain(&SecretValue::new(value.into()).unwrap()));
    scrubber
}

/// Scrubs `text` in chunks of these sizes, which are repeated.
pub(super) fn scrub(value: &str, mut text: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut scrubber = scrubber(value);
    let mut out = Vec::new();
    for size in sizes.iter().cycle() {
        let (piece, rest) = text.split_at(text.len().min(*size));
        out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(piece)));
        text = rest;
        if text.is_empty() {
            break;
        }
    }
    out.extend_from_slice(&scrubber.finish());
    out
}

/// Checks that `spelling` is masked completely, in any chunks.
pub(super) fn check(value: &str, spelling: &[u8]) {
    let text = [b"<<", spelling, b">>"].concat();
    let expected = [b"<<".to_vec(), vec![b'*'; spelling.len()], b">>".to_vec()].concat();
    for size in [1, 2, 3, 7, text.len()] {
        let out = scrub(value, &text, &[size]);
        assert!(out == expected, "{value} {size}: {} becomes {}", text.escape_ascii(), out.escape_ascii());
    }
}

pub(super) fn each(text: &str, escape: impl Fn(char) -> String) -> Vec<u8> {
    text.chars().map(escape).collect::<String>().into_bytes()
}

pub(super) fn percent(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("%{byte:02X}").into_bytes()).collect()
}

#[test]
fn entity_names_of_letters_are_read() {
    let value = "Zürich-é-ß-ä-Ñ-§-Ž-α";
    check(value, "Z&uuml;rich-&eacute;-&szlig;-&auml;-&Ntilde;-&sect;-&Zcaron;-&alpha;".as_bytes());
    check(
        value,
        "Z&amp;uuml;rich-&amp;eacute;-&amp;szlig;-&auml;-&Ntilde;-&sect;-&Zcaron;-&alpha;".as_bytes(),
    );
}

/// The ways to escape a character, whatever follows it.
const ESCAPES: &[fn(char) -> String] = &[
    |c| c.to_string(),
    |c| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("%u{unit:04X}")).collect::<String>(),
    |c| format!("\\x{{{:x}}}", u32::from(c)),
    |c| format!("\\u{{{:X}}}", u32::from(c)),
    |c| format!("\\U{:08x}", u32::from(c)),
    |c| format!("\\{:06x}", u32::from(c)),
    |c| format!("\\{:06x} ", u32::from(c)),
    |c| if ('\u{10}'..'\u{7f}').contains(&c) { format!("\\{:x} ", u32::from(c)) } else { c.to_string() },
    |c| if ('\u{10}'..'\u{7f}').contains(&c) { format!("\\{:02x}", u32::from(c)) } else { c.to_string() },
    |c| format!("&#x{:09x};", u32::from(c)),
    |c| match c {
        '_' => "&UnderBar;".to_owned(),
        '|' => "&VerticalLine;".to_owned(),
        '`' => "&DiacriticalGrave;".to_owned(),
        '&' => "&AMP;".to_owned(),
        'ü' => "&uuml;".to_owned(),
        other => other.to_string(),
    },
];

/// The ways to embed the whole text.
const OUTER: &[fn(&str) -> String] = &[
    str::to_owned,
    |text| text.replace('\\', "\\\\").replace('"', "\\\""),
    |text| percent(text.as_bytes()).iter().map(|byte| char::from(*byte)).collect(),
    |text| text.replace('&', "&amp;"),
];

#[test]
fn numbers_without_a_semicolon_are_read() {
    let value = "sk_l|v`é-9Zq&0x73";
    check(value, &each(value, |c| format!("&#{}", u32::from(c))));
    check(value, &each(value, |c| format!("&#x{:x}", u32::from(c))));
    check(
        value,
        &each(
            value,
            |c| if c.is_ascii_punctuation() { format!("&#{};", u32::from(c)) } else { c.to_string() },
        ),
    );
    check("key-value", b"key&#45value");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_escape_is_found_after_any_text_in_any_chunks(
        value in "[a-f0-9_|`&üß😀-]{8,20}",
        ways in proptest::collection::vec(0..ESCAPES.len(), 20),
        outer in 0..OUTER.len(),
        before in r"([%\\&u0-9a-f;#x{ \r\n]|\\x\{|%u0|&#){0,12}",
        after in r"[%\\&u0-9a-f;#x} \r\n]{0,8}",
        sizes in proptest::collection::vec(1..9_usize, 1..8),
    ) {
        let spelling: String = value.chars().zip(ways).map(|(c, way)| ESCAPES[way](c)).collect();
        let spelling = OUTER[outer](&spelling);
        let text = format!("{before}{spelling}{after}");
        let whole = scrub(&value, text.as_bytes(), &[text.len()]);
        let within = &whole[before.len()..before.len() + spelling.len()];
        // A blank may follow an escape, or belong to it.
        prop_assert!(within.trim_ascii_end().iter().all(|byte| b"*\r\n".contains(byte)), "{text:?}: {}", whole.escape_ascii());
        prop_assert_eq!(scrub(&value, text.as_bytes(), &sizes), whole, "{:?}", text);
    }
}
