//! Tests of the bytes that wait at the end of a read: they depend on the text and on the classes of the values, never
//! on a value.
#![allow(clippy::format_collect, reason = "test texts are short")]

use onecli_model::SecretValue;
use proptest::prelude::*;

use super::records::Message;
use super::*;

fn forms(value: &[u8]) -> Vec<WireForm> {
    WireForm::plain(&SecretValue::new(value.to_vec()).unwrap())
}

fn scrubber(value: &[u8]) -> Scrubber {
    let mut scrubber = Scrubber::default();
    scrubber.add_forms(&forms(value));
    scrubber
}

/// The number of bytes held of `text` while `value` is watched.
fn held(value: &[u8], text: &[u8]) -> usize {
    let mut scrubber = scrubber(value);
    let length = scrubber.push(Bytes::copy_from_slice(text)).len();
    assert_eq!(length + scrubber.held(), text.len());
    scrubber.held()
}

#[test]
fn held_bytes_depend_on_the_class() {
    let long = "a".repeat(5000);
    let check = |text: &str, token: usize, words: usize| {
        assert_eq!(held(b"sk-live-canary", text.as_bytes()), token, "token: {text:?}");
        assert_eq!(held(b"correct horse battery", text.as_bytes()), words, "text: {text:?}");
    };
    check("{\"x\": 1}", 0, 8);
    check("see you soon", 4, 12);
    check("a word\n", 5, 7);
    check("a word\r\n", 6, 8);
    check("a word\n\n", 0, 0);
    check("data: a word\r\n\r\n", 0, 0);
    check("data: a word\r\r", 0, 0);
    check("a\n\nword", 4, 4);
    check("two\nwords", 9, 9);
    check("a \\", 1, 3);
    check("a \\u00", 4, 6);
    check("a %4", 2, 4);
    check("a &am", 3, 5);
    check("a &amp", 4, 6);
    check("an \\u0041\\u0042", 12, 15);
    check("it is \\u003c", 5, 12);
    check("100%", 4, 4);
    check("w\0o\0r\0d\0", 8, 8);
    check("word\0\0", 0, 6);
    check(&long, 255, 255);
    check(&format!("{long} "), 0, 255);
    assert_eq!(held(&[b'a'; 129], long.as_bytes()), 1023, "the first 1 KiB decides");
    assert_eq!(held(&[b'b'; 16_384], long.as_bytes()), 1023, "of longer ones too");
}

#[test]
fn widest_class_decides_for_all_values() {
    let mut scrubber = scrubber(b"correct horse battery");
    scrubber.add_forms(&forms(&[b'k'; 2000]));
    scrubber.push(Bytes::from("a".repeat(5000)));
    assert_eq!(scrubber.held(), 1023);
    scrubber.push(Bytes::from_static(b"!"));
    assert_eq!(scrubber.held(), 255, "a value that is no token is a text of 128 bytes");
}

#[test]
fn held_bytes_leave_together_with_later_bytes() {
    let mut scrubber = scrubber(b"sk-live-canary");
    assert_eq!(scrubber.push(Bytes::from_static(b"is it sk-live")), "is it ");
    assert_eq!(scrubber.push(Bytes::from_static(b"-or not? ")), "sk-live-or not? ");
    assert_eq!(scrubber.push(Bytes::from_static(b"it is")), "it ");
    assert_eq!(scrubber.push_last(Bytes::from_static(b" sk-live-canary")), "is **************");
}

#[test]
fn lines_and_messages_leave_when_they_are_complete() {
    let mut lines = scrubber(b"correct horse battery");
    lines.split_into(Records::Lines);
    assert_eq!(lines.push(Bytes::from_static(b"{\"a\":\"word\"}\n{\"b\"")), "{\"a\":\"word\"}\n");
    assert_eq!(lines.push(Bytes::from_static(b":1}\n")), "{\"b\":1}\n");
    let mut messages = scrubber(b"sk-live-canary");
    messages.split_into(Records::Grpc(Message::default()));
    let message = Bytes::from_static(b"\0\0\0\0\x04word");
    assert_eq!(messages.push(message.clone()), message);
    assert_eq!(messages.push(Bytes::from_static(b"\0\0\0\0\x08word")), b"\0\0\0\0\x08"[..]);
    assert_eq!(messages.push(Bytes::from_static(b"word")), "wordword");
}

#[test]
fn long_value_is_masked_to_its_end() {
    let value: Vec<u8> =
        (0..1300_u32).map(|n| b"abcdefghijk"[usize::try_from(n * n % 11).unwrap()]).collect();
    let wrapped = value.chunks(76).collect::<Vec<_>>().join(&b"\r\n"[..]);
    let escaped: Vec<u8> = value.iter().flat_map(|b| format!("\\u{b:04x}").into_bytes()).collect();
    let hex = data_encoding::HEXLOWER.encode(&value).into_bytes();
    for spelling in [&value, &wrapped, &escaped, &hex] {
        let text = [b"<", spelling.as_slice(), b"> and more"].concat();
        for size in [97, 1500, text.len()] {
            let mut scrubber = scrubber(&value);
            let mut out = Vec::new();
            for chunk in text.chunks(size) {
                out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(chunk)));
            }
            out.extend_from_slice(&scrubber.finish());
            let masked: Vec<u8> =
                spelling.iter().map(|b| if b"\r\n".contains(b) { *b } else { b'*' }).collect();
            let expected = [b"<", masked.as_slice(), b"> and more"].concat();
            assert!(out == expected, "{size}: {}", out.escape_ascii());
            assert_eq!(scrubber.hits(), 1, "{size}");
        }
        // An upstream that ends early, or continues with another text.
        let mut scrubber = scrubber(&value);
        let cut = [&text[..=spelling.len() - 48], b"\"}"].concat();
        let out = scrubber.push_last(cut.clone().into());
        assert!(out.ends_with(b"*\"}"), "{}", out.escape_ascii());
    }
}

#[test]
fn exceeding_the_hold_limit_ends_the_stream() {
    let mut scrubber = scrubber(b"sk-live-canary");
    let thrice: String = "a".repeat(250).chars().map(|c| format!("&#x{:08x};", u32::from(c))).collect();
    let thrice: String = thrice.chars().map(|c| format!("&#x{:08x};", u32::from(c))).collect();
    let thrice: String = thrice.chars().map(|c| format!("&#x{:08x};", u32::from(c))).collect();
    let mut out = 0;
    for chunk in thrice.as_bytes().chunks(4096) {
        out += scrubber.push(Bytes::copy_from_slice(chunk)).len();
        assert!(scrubber.held() <= MAX_HELD);
    }
    assert!(scrubber.is_overrun());
    assert_eq!(out, 0);
    assert!(scrubber.finish().is_empty());
}

/// Two values of one class.
fn pairs() -> impl Strategy<Value = (String, String)> {
    let of = |pattern: &'static str| {
        let value = || proptest::string::string_regex(pattern).unwrap();
        (value(), value()).boxed()
    };
    prop_oneof![
        of("sk-[a-zA-Z0-9+/=_.~-]{8,24}"),
        of("[ -~]{8,24}").prop_map(|(a, b)| (a + " ", b + " ")),
        of("[a-z0-9]{140,180}"),
        of("[a-z0-9]{1100,1200}"),
        of("[ -~]{140,180}").prop_map(|(a, b)| (a + " ", b + " ")),
    ]
}

/// Pieces of a text: beginnings of the value in several forms, and other text.
fn pieces() -> impl Strategy<Value = Vec<(usize, usize, String)>> {
    let noise = proptest::string::string_regex(r#"[a-c \\%&u0-9;#x{}"\r\n]{0,12}"#).unwrap();
    proptest::collection::vec((0..6_usize, 0..40_usize, noise), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// An agent that knows the beginning of a value learns nothing about the rest.
    #[test]
    fn output_does_not_depend_on_a_value((value, other) in pairs(), pieces in pieces()) {
        prop_assume!(value != other);
        let utf16: String = value.chars().flat_map(|c| [c, '\0']).collect();
        let forms = [
            value.clone(),
            data_encoding::BASE64.encode(value.as_bytes()),
            data_encoding::HEXLOWER.encode(value.as_bytes()),
            value.bytes().map(|b| format!("\\u{b:04x}")).collect(),
            value.bytes().map(|b| format!("%{b:02x}")).collect(),
            utf16,
        ];
        let run = |watched: &str| {
            let mut scrubber = scrubber(watched.as_bytes());
            let mut out = Vec::new();
            for (form, length, noise) in &pieces {
                let beginning: String = forms[*form].chars().take((*length).min(value.len() - 2)).collect();
                out.push(scrubber.push(Bytes::from(noise.clone() + &beginning)));
            }
            out.push(scrubber.finish());
            (out, scrubber.hits())
        };
        let (one, another) = (run(&value), run(&other));
        prop_assume!(one.1 == 0 && another.1 == 0);
        prop_assert_eq!(one.0, another.0);
    }
}
