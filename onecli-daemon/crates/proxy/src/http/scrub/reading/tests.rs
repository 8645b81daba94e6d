//! Tests of readings of single characters, and that sharing changes no reading.
#![allow(clippy::format_collect, reason = "test texts are short")]

use proptest::prelude::*;

use super::*;

/// Returns whether all of `raw` can be read as the one character.
fn reads_as(raw: &str, character: &str) -> bool {
    let text = EscapedText::new(raw.as_bytes());
    text.readings(0)
        .any(|reading| reading.character.as_bytes() == character.as_bytes() && reading.end == raw.len())
}

#[test]
fn every_form_of_a_character_is_read() {
    for form in [
        "/", "%2F", "%2f", r"\/", r"\u002F", r"\u002f", r"\x2f", r"\57", r"\057", r"\\057", "&#47;",
        "&#x2F;", "&#X2f;", "&sol;",
    ] {
        assert!(reads_as(form, "/"), "{form}");
    }
    for form in [
        "%u002F",
        "%u002f",
        "\\x{2f}",
        "\\u{2F}",
        "\\u{0000002f}",
        "\\U0000002f",
        "\\2f",
        "\\2f ",
        "\\2F\t",
        "\\00002f",
        "\\00002f ",
        "\\\\x{2f}",
        "%5Cx%7B2f%7D",
        "&#47",
        "&#x2F",
        "&#x0000000002f;",
        "&#000000000047;",
        "&amp;#47",
        "\\26 sol;",
        "\\x{26}sol;",
    ] {
        assert!(reads_as(form, "/"), "{form}");
    }
    for (form, character) in [
        ("&UnderBar;", "_"),
        ("&lowbar;", "_"),
        ("&VerticalLine;", "|"),
        ("&DiacriticalGrave;", "`"),
        ("&AMP;", "&"),
        ("&LT;", "<"),
        ("&GT;", ">"),
        ("&QUOT;", "\""),
        ("&amp;UnderBar;", "_"),
    ] {
        assert!(reads_as(form, character), "{form}");
    }
    for form in [
        "\\u00e9",
        "&#233;",
        "&#xe9;",
        "\\xe9",
        "&eacute;",
        "&amp;eacute;",
        "%u00E9",
        "\\u{e9}",
        "\\0000e9 ",
        "\\U000000E9",
    ] {
        assert!(reads_as(form, "é"), "{form}");
    }
    for form in ["%ud83d%ude00", "\\u{1f600}", "\\U0001f600", "\\x{1F600}", "\\01f600", "%5Cud83d%5Cude00"] {
        assert!(reads_as(form, "😀"), "{form}");
    }
    for form in ["\\ud83d\\ude00", "&#128512;", "\\\\ud83d\\\\ude00"] {
        assert!(reads_as(form, "😀"), "{form}");
    }
    for form in ["\n", "\\n", "%0A", "&#10;", "\\\\n", "&NewLine;"] {
        assert!(reads_as(form, "\n"), "{form}");
    }
}

#[test]
fn nested_escapes_are_read() {
    for form in [
        r#"\""#,
        r#"\\\""#,
        r#"\\\\\\\""#,
        "%22",
        "%2522",
        "%252522",
        "%5C%22",
        "%5c%5c%5c%22",
        r"\u005c\u0022",
        r"\\u0022",
        r"\\\\u0022",
        "&quot;",
        "&amp;quot;",
        "&amp;amp;quot;",
        r"\u0026quot;",
        r"\\u0026quot;",
        "%26quot%3B",
        "%26%23%78%32%32%3b",
        r"\&quot;",
        r"&#92;&quot;",
    ] {
        assert!(reads_as(form, "\""), "{form}");
    }
    assert!(!reads_as("%2525252522", "\""), "deeper than the levels");
}

/// A digit may itself be an octal escape, which ends after one, two or three digits. All combinations are read.
#[test]
fn every_reading_of_nested_escapes_is_followed() {
    let octal = |text: &str| -> String { text.bytes().map(|byte| format!("\\{byte:03o}")).collect() };
    for (form, character) in [
        (octal("\\057"), "/"),
        (octal("\\57"), "/"),
        (octal(&octal("\\57")), "/"),
        (octal("\\x2f"), "/"),
        (octal("\\u002f"), "/"),
        (octal("%2f"), "/"),
        (octal("&#47;"), "/"),
        (octal("&sol;"), "/"),
        (octal("\\ud83d\\ude00"), "😀"),
        // Short escapes, before a digit that does not belong to them.
        ("\\\\0\\65\\67".to_owned(), "/"),
        ("\\x\\62\\146".to_owned(), "/"),
        ("%\\62\\146".to_owned(), "/"),
        ("&#\\64\\67;".to_owned(), "/"),
    ] {
        assert!(reads_as(&form, character), "{form}");
    }
}

#[test]
fn invalid_escape_is_read_as_itself() {
    for raw in ["%", "%zz", "%2", "\\", "\\u00", "\\u00zz", "&", "&x;", "&#;", "&#xzz;", "&amp", "\\ud83d!"] {
        let text = EscapedText::new(raw.as_bytes());
        let first = text.readings(0).next().map(|reading| (reading.character, reading.end));
        assert_eq!(first, Some((Character::byte(raw.as_bytes()[0]), 1)), "{raw}");
    }
}

#[test]
fn truncated_escape_is_reported() {
    for (raw, cut) in [
        ("%", true),
        ("%2", true),
        ("\\", true),
        ("\\u00", true),
        ("\\ud83d", true),
        ("&quo", true),
        ("%25", true),
        ("% ", false),
        ("%zz", false),
        ("\\u00z", false),
        ("& ", false),
        ("&averylongname", false),
        ("&Underline", false),
        ("&UnderB", true),
        ("&#47", true),
        ("&#x0000000000000047", false),
        ("%u00", true),
        ("%ud83d%", true),
        ("%ux", false),
        ("\\x{2f", true),
        ("\\x{2fg", false),
        ("\\x{123456789", false),
        ("\\2f", true),
        ("\\2f ", false),
        ("\\2fz", false),
    ] {
        assert_eq!(EscapedText::new(raw.as_bytes()).is_cut(0), cut, "{raw}");
    }
}

#[test]
fn line_breaks_are_read_in_every_form() {
    for raw in ["\n", "\r", "\r\n", "\\n", "\\r\\n", "\\\\r\\\\n", "%0d%0a", "\r\\n"] {
        let mut ends = Vec::new();
        EscapedText::new(raw.as_bytes()).line_breaks(0, &mut ends);
        assert!(ends.contains(&raw.len()), "{raw:?} {ends:?}");
    }
}

/// The result of [`EscapedText::new`] if each introducer is read on its own.
fn read_each(raw: &[u8]) -> EscapedText<'_> {
    let mut text = EscapedText { raw, places: vec![0; raw.len()], ..EscapedText::default() };
    let mut out = PendingEscape { readings: Vec::new(), cut: NEVER, farthest: 0 };
    for at in (0..raw.len()).rev().filter(|at| is_introducer(raw[*at])) {
        text.read(at, &mut out);
        text.places[at] = text.list(at, &out);
    }
    text
}

fn reads_like_each(raw: &[u8]) {
    let (text, each) = (EscapedText::new(raw), read_each(raw));
    for at in 0..=raw.len() {
        let of = |text: &EscapedText<'_>| -> Vec<(Character, usize, u8)> {
            text.readings(at).map(|reading| (reading.character, reading.end, reading.level)).collect()
        };
        let shown = raw.escape_ascii();
        assert_eq!(of(&text), of(&each), "at {at} of {shown}");
        assert_eq!(text.cut_level(at), each.cut_level(at), "at {at} of {shown}");
    }
}

#[test]
fn repeated_text_is_read_like_its_first_occurrence() {
    for block in [
        "\\",
        "%",
        "&",
        "%25",
        "%5c",
        "&amp;",
        "\\u005c",
        "\\u005c%5c&bsol;",
        "\\\"",
        "\\\\\"",
        "\\x5c",
        "\\134",
        "%26amp%3b",
        "&#92;u0022",
        "\\ud83d\\ude00",
        "&#47",
        "\\2f ",
        "\\x{5c}",
        "%u005c",
        "\\26 amp;",
        "&UnderBar;",
    ] {
        for tail in ["", "x", "2", "u0", "\\", "%", "&", "amp"] {
            reads_like_each(format!("{}{tail}", block.repeat(40)).as_bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Repeated blocks of characters that occur in escapes, with another text between them.
    #[test]
    fn sharing_does_not_change_readings(
        blocks in prop::collection::vec("[\\\\%&uU0-9a-fmp;#xnrbsolqt\"{} ]{1,9}", 1..4),
        order in prop::collection::vec((0..4_usize, 1..12_usize), 1..12),
    ) {
        let text: String =
            order.iter().map(|(block, times)| blocks[block % blocks.len()].repeat(*times)).collect();
        reads_like_each(text.as_bytes());
    }
}
