//! Tests of values that are not ASCII, and of encodings of the whole text.
#![allow(clippy::format_collect, reason = "test texts are short")]

use super::tests_of_escapes::{check, each, percent, scrub};

/// UTF-8 that was interpreted as text with one byte for each character.
fn mistaken(value: &str) -> String {
    value.bytes().map(char::from).collect()
}

#[test]
fn value_is_found_after_a_charset_mistake() {
    for value in ["Zürich-9f86d081", "pässwörd-ßé-1", "naïve–“quoted”-€", "Ünïcödé 漢字-😀-7d65"]
    {
        let wrong = mistaken(value);
        let cp1252: Vec<u8> = value
            .chars()
            .map(|c| if c == '–' { 0x96 } else { u8::try_from(u32::from(c)).unwrap_or(b'?') })
            .collect();
        check(value, wrong.as_bytes());
        check(
            value,
            &each(&wrong, |c| if c.is_ascii() { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) }),
        );
        check(
            value,
            &each(&wrong, |c| if c.is_ascii() { c.to_string() } else { format!("&#{};", u32::from(c)) }),
        );
        check(value, &percent(wrong.as_bytes()));
        check(value, data_encoding::HEXLOWER.encode(wrong.as_bytes()).as_bytes());
        // As Python and C print bytes.
        check(
            value,
            &each(&wrong, |c| if c.is_ascii() { c.to_string() } else { format!("\\x{:02x}", u32::from(c)) }),
        );
        check(
            value,
            &each(&wrong, |c| if c.is_ascii() { c.to_string() } else { format!("\\{:03o}", u32::from(c)) }),
        );
        if !value.contains('“') {
            check(value, &cp1252);
            check(value, &percent(&cp1252));
        }
    }
    let (quoted, in_1252) = ("naïve–“quoted”-€", b"na\xefve\x96\x93quoted\x94-\x80");
    check(quoted, in_1252);
    check(quoted, "naÃ¯veâ€“â€œquotedâ€\u{9d}-â‚¬".as_bytes());
    check("Zürich-9f86d081", "Zu\u{308}rich-9f86d081".as_bytes());
    check("Zürich-é", "Z&Atilde;&frac14;rich-&Atilde;&copy;".as_bytes());
    check("Zu\u{308}rich-9f86d081", "Zürich-9f86d081".as_bytes());
}

#[test]
fn base64_of_utf_16_and_quoted_printable_are_found() {
    let value = "sk-live/canary+0f3A~=9_Zq&7";
    let wide = |encode: fn(u16) -> [u8; 2], text: &str| -> Vec<u8> {
        text.encode_utf16().flat_map(encode).collect()
    };
    for encode in [u16::to_le_bytes, u16::to_be_bytes] {
        for before in ["", "a", "ab"] {
            let encoded = data_encoding::BASE64.encode(&wide(encode, &format!("{before}{value}")));
            let out = scrub(value, format!("<{encoded}>").as_bytes(), &[5]);
            let from = 1 + (before.len() * 16).div_ceil(6);
            // At the end, only padding and a character of zeros remain.
            let clean = out[from..].iter().filter(|byte| !b"*=>".contains(byte)).count();
            assert!(clean <= 1, "{before}: {encoded} becomes {}", out.escape_ascii());
        }
    }
    check(value, value.replace('=', "=3D").as_bytes());
    check(value, &value.bytes().flat_map(|b| format!("={b:02X}").into_bytes()).collect::<Vec<u8>>());
    check("Zürich-é=1", b"Z=C3=BCrich-=C3=A9=3D1");
    check("Zürich-é=1", b"Z=FCrich-=E9=3D1");
}

/// The size of spellings that `http/scrub_values` and ARCHITECTURE.md state.
#[test]
fn spellings_have_the_documented_size() {
    use onecli_model::{Placement, SecretValue};
    let value = SecretValue::new(b"abcdefghij_lmnopqrst/vwxyz0123456789ABCD".to_vec()).unwrap();
    let long = SecretValue::new(b"abcdefghij_lmnop".repeat(128)).unwrap();
    let size = |placement: Placement, value: &SecretValue| {
        let needles = super::spellings(&placement.wire_forms(value));
        let bytes = needles.iter().map(super::Needle::len).sum::<usize>();
        println!("{placement}: {} spellings, {bytes} bytes", needles.len());
        (needles.len(), bytes)
    };
    let (count, bytes) = size(Placement::bearer(), &value);
    assert!(count <= 40 && bytes < 3 << 10);
    let (count, bytes) = size(Placement::basic("me").unwrap(), &value);
    assert!(count <= 160 && bytes < 12 << 10);
    let (_, bytes) = size(Placement::bearer(), &long);
    assert!(bytes < 64 << 10);
}
