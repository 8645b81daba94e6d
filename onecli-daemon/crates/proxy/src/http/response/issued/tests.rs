//! Tests of which members of a response are masked, with arbitrary chunks.

use http_body_util::{BodyExt, StreamBody};
use onecli_model::issued::IssuedShape;
use onecli_model::{MaskIssued, Placeholder};
use proptest::prelude::*;

use super::*;

fn shape(members: &[&str], prefixes: &[&str], length: usize) -> &'static IssuedShape {
    let own = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    Box::leak(Box::new(IssuedShape {
        source: "a test".to_owned(),
        date: "2026-11-30".to_owned(),
        members: own(members),
        headers: vec!["x-issued-token".to_owned()],
        prefixes: own(prefixes),
        length,
    }))
}

fn kinds(mode: MaskIssued) -> Kinds {
    let token = shape(&["token", "secretaccesskey"], &[], 16);
    let prefixed = shape(&["key"], &["ghp_", "github_pat_"], 16);
    Kinds::new(vec![(token, mode), (prefixed, mode)])
}

/// Masks `text`, cut after each of `cuts` bytes in turn.
fn masked(mode: MaskIssued, format: Format, text: &str, cuts: &[usize]) -> (String, Found) {
    let mut masker = Masker::new(kinds(mode), format, true);
    let mut out = Vec::new();
    let mut rest = Bytes::copy_from_slice(text.as_bytes());
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let length = cuts.next().map_or(rest.len(), |cut| (*cut).clamp(1, rest.len()));
        out.extend_from_slice(&masker.push(&rest.split_to(length)));
        assert!(masker.held() <= members::MAX_HELD, "{}", masker.held());
    }
    out.extend_from_slice(&masker.finish());
    assert_eq!(out.len(), text.len());
    (String::from_utf8(out).unwrap(), masker.found())
}

const LISTED: MaskIssued = MaskIssued::Listed;
const KEY: &str = "abcdefghijklmnop0123456789";
const HIDDEN: &str = "**************************";

/// Checks the text in one piece and byte by byte.
fn check(mode: MaskIssued, format: Format, text: &str, expected: &str, (hidden, passed): (u64, u64)) {
    for cuts in [&[usize::MAX][..], &[1], &[2, 3, 7], &[40]] {
        let (got, found) = masked(mode, format, text, cuts);
        assert_eq!(got, expected, "{cuts:?}");
        assert_eq!(found, Found { masked: hidden, passed }, "{text} {cuts:?}");
    }
}

#[test]
fn members_of_json_are_masked() {
    let check = |text: &str, hits: u64| {
        let text = text.replace("KEY", KEY);
        check(LISTED, Format::Json, &text, &text.replace(KEY, HIDDEN), (hits, 0));
    };
    check(r#"{"token":"KEY"}"#, 1);
    check("{ \"Token\" :\n \"KEY\" , \"a\": 1}", 1);
    check(r#"[{"id":1,"SecretAccessKey":"KEY"},{"token":"KEY"}]"#, 2);
    check(r#"{"token":["KEY","KEY"],"n":["x"]}"#, 2);
    check("callback({\"token\":\"KEY\"});", 1);
    check("{\"token\":\"KEY\"}\n{\"token\":\"KEY\"}\n", 2);
}

#[test]
fn other_json_text_is_unchanged() {
    let check = |text: &str| {
        let text = text.replace("KEY", KEY);
        check(LISTED, Format::Json, &text, &text, (0, 0));
    };
    for text in [
        r#"{"id":"KEY"}"#,
        r#"{"a":"token","KEY":"KEY"}"#,
        r#"{"token":null,"a":"KEY"}"#,
        r#"{"token":12,"a":"KEY"}"#,
        r#"{"token":{},"a":"KEY"}"#,
        r#"{"token":[],"a":"KEY"}"#,
        r#"["token","KEY"]"#,
        r#"{"token":"short"}"#,
        r#"{"text":"\"id\":\"KEY\", \"token\", \"KEY\""}"#,
        r#"{"text":"send <token> KEY with it, or token: KEY"}"#,
        r#"{"a":"<token>","b":"KEY","c":"<d>"}"#,
        r#"{"tokens":"KEY","xtoken":"KEY"}"#,
        r#"{"key":"KEY"}"#,
    ] {
        check(text);
    }
}

#[test]
fn members_are_found_in_every_container() {
    let hidden = |format: Format, text: &str, hits: u64| {
        let text = text.replace("KEY", KEY);
        check(LISTED, format, &text, &text.replace(KEY, HIDDEN), (hits, 0));
    };
    for format in [Format::Json, Format::Text, Format::Xml] {
        hidden(format, r#"{"token":{"v":"KEY","w":["KEY",{"x":"KEY"}]},"id":"ok"}"#, 3);
        hidden(format, r#"it's: {"a":"b","token": "KEY"} and "{"token":"KEY"}"#, 2);
        hidden(format, r#"{"body":"{\"token\":\"KEY\",\"a\":1}"}"#, 1);
        hidden(format, r#"{"a":"{\"b\":\"{\\\"token\\\": \\\"KEY\\\"}\"}"}"#, 1);
        hidden(format, "<div data-x=\"{&quot;token&quot;:&quot;KEY&quot;}\">", 1);
        hidden(format, "<script>x = {token: 'KEY'}; y.token = \"KEY\"; z = {'token' => 'KEY'}</script>", 3);
        hidden(format, "JSON.parse('{\\u0022token\\u0022:\\u0022KEY\\u0022}')", 1);
        hidden(format, "{\"xml\":\"<SecretAccessKey>KEY</SecretAccessKey>\"}", 1);
        hidden(format, "<K Token='KEY' id=\"ok\"/>", 1);
    }
    hidden(Format::Text, "token=KEY&scope=a", 1);
    hidden(Format::Text, "scope=a&token=KEY\n", 1);
    hidden(Format::Text, "a: b\ntoken=KEY", 1);
    hidden(Format::Text, "token=\"KEY\"", 1);
    hidden(Format::Text, "<?xml version='1.0'?><a><Token>KEY</Token></a>", 1);
    hidden(Format::Xml, "<Token><![CDATA[KEY]]></Token>", 1);
    hidden(Format::Xml, "<Token><v>KEY</v></Token>", 1);
    hidden(Format::Xml, "<Token x='>'><!-- </Token> -->KEY</Token>", 1);
    for text in ["see https://x/?token=KEY", "say <token> KEY", "token KEY", "the token, KEY"] {
        let text = text.replace("KEY", KEY);
        check(LISTED, Format::Text, &text, &text, (0, 0));
    }
}

/// A masked number is still a number.
#[test]
fn numbers_are_masked_with_digits() {
    let check = |text: &str, expected: &str, hits: u64| {
        check(LISTED, Format::Json, text, expected, (hits, 0));
    };
    check(r#"{"token":12345678901234567890,"a":2}"#, r#"{"token":11111111111111111111,"a":2}"#, 1);
    check(r#"{"token": [-1234567890123456]}"#, r#"{"token": [-1111111111111111]}"#, 1);
    check(r#"{"token":123,"a":12345678901234567890}"#, r#"{"token":123,"a":12345678901234567890}"#, 0);
}

#[test]
fn text_in_utf_16_and_utf_32_is_masked() {
    let json = format!(r#"{{"a":"b","token":"{KEY}","b":"{KEY}"}}"#);
    let expected = json.replacen(KEY, HIDDEN, 1);
    let wide = |text: &str| {
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let longest: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        [[b"\xff\xfe".to_vec(), little].concat(), [b"\xfe\xff".to_vec(), big].concat(), longest]
    };
    for (text, expected) in wide(&json).into_iter().zip(wide(&expected)) {
        for size in [1, 7, text.len()] {
            let mut masker = Masker::new(kinds(LISTED), Format::Json, true);
            let mut out = Vec::new();
            for piece in text.chunks(size) {
                out.extend_from_slice(&masker.push(&Bytes::copy_from_slice(piece)));
                assert!(masker.held() <= members::MAX_HELD, "{}", masker.held());
            }
            out.extend_from_slice(&masker.finish());
            assert_eq!(out, expected, "{size}: {}", out.escape_ascii());
        }
    }
}

#[test]
fn escapes_do_not_end_a_value() {
    let text = r#"{"token":"abcdefghijkl\"mnop\\","a":"b"}"#;
    let expected = r#"{"token":"********************","a":"b"}"#;
    check(LISTED, Format::Json, text, expected, (1, 0));
}

#[test]
fn long_values_are_masked_to_their_end() {
    let long = "x".repeat(5000);
    let text = format!("{{\"token\":\"{long}\",\"a\":\"{long}\"}}");
    let expected = format!("{{\"token\":\"{}\",\"a\":\"{long}\"}}", "*".repeat(5000));
    check(LISTED, Format::Json, &text, &expected, (1, 0));
}

#[test]
fn elements_of_xml_are_masked() {
    let xml = |text: &str, hits| {
        let text = text.replace("KEY", KEY);
        check(LISTED, Format::Xml, &text, &text.replace(KEY, HIDDEN), (hits, 0));
    };
    xml("<Credentials><SecretAccessKey>KEY</SecretAccessKey></Credentials>", 1);
    xml("<a:Token xmlns:a=\"b\">KEY</a:Token>", 1);
    let text = format!("<Name>{KEY}</Name><Token/>{KEY}<!-- token -->{KEY}<Token>short</Token>");
    check(LISTED, Format::Xml, &text, &text, (0, 0));
}

#[test]
fn fields_of_forms_are_masked() {
    let text = format!("scope=a&token={KEY}&type=bearer&token={KEY}");
    check(LISTED, Format::Form, &text, &text.replace(KEY, HIDDEN), (2, 0));
    let other = format!("scope=token&a={KEY}&x-token={KEY}");
    check(LISTED, Format::Form, &other, &other, (0, 0));
}

#[test]
fn unlisted_credentials_pass_unless_mode_is_all() {
    let token = format!("ghp_{KEY}");
    let hidden = "*".repeat(token.len());
    for text in [
        format!("see {token}, and"),
        format!("{{\"text\":\"https://x:{token}@github.com\"}}"),
        token.clone(),
        format!("a\n{token}\n"),
        format!("ghp_ghp_ghp_{token}"),
    ] {
        check(LISTED, Format::Text, &text, &text, (0, 1));
        let expected =
            if text.starts_with("ghp_ghp") { "*".repeat(text.len()) } else { text.replace(&token, &hidden) };
        check(MaskIssued::All, Format::Text, &text, &expected, (1, 0));
    }
    for text in [
        "ghp_short and more",
        "xghp_abcdefghijklmnop0123",
        "ghp abcdefghijklmnop0123",
        "_ghp_abcdefghijklmnop01",
    ] {
        check(MaskIssued::All, Format::Text, text, text, (0, 0));
    }
}

#[test]
fn listed_member_with_its_prefix_is_masked() {
    let text = format!("{{\"key\":\"ghp_{KEY}\",\"token\":\"github_pat_{KEY}\"}}");
    let expected = format!("{{\"key\":\"{}\",\"token\":\"{}\"}}", "*".repeat(30), "*".repeat(37));
    check(LISTED, Format::Json, &text, &expected, (2, 0));
    check(MaskIssued::None, Format::Json, &text, &text, (0, 2));
}

#[test]
fn placeholders_are_not_masked() {
    let own = Placeholder::from_bits([7; 20]);
    let text = format!("{{\"token\":\"{own}\",\"key\":\"ghp_{own}\",\"a\":\"ghp_{own}\"}} ghp_{own}");
    for mode in [LISTED, MaskIssued::All] {
        check(mode, Format::Json, &text, &text, (0, 0));
    }
    // A placeholder with adjacent text is not a placeholder.
    let text = format!("{{\"token\":\"{own}{KEY}\"}}");
    let expected = format!("{{\"token\":\"{}\"}}", "*".repeat(own.as_str().len() + KEY.len()));
    check(LISTED, Format::Json, &text, &expected, (1, 0));
}

#[test]
fn format_follows_from_the_content_type() {
    let check = |kind: Option<&'static str>, expected: Option<Format>| {
        let kind = kind.map(|kind| (header::CONTENT_TYPE, HeaderValue::from_static(kind)));
        assert_eq!(format_of(&kind.clone().into_iter().collect()), expected, "{kind:?}");
    };
    check(None, Some(Format::Text));
    check(Some("json"), Some(Format::Text));
    check(Some("application/octet-stream, application/json"), Some(Format::Text));
    for json in [
        "application/json; charset=utf-8",
        "application/vnd.github+json",
        "application/x-amz-json-1.1",
        "application/x-ndjson",
        "application/json-seq",
        "application/x-json",
        "text/javascript",
        "application/problem+json",
    ] {
        check(Some(json), Some(Format::Json));
    }
    check(Some("text/xml"), Some(Format::Xml));
    check(Some("application/atom+xml"), Some(Format::Xml));
    check(Some("text/plain"), Some(Format::Text));
    check(Some("application/vnd.github.raw+json; charset=utf-8"), Some(Format::Content));
    for never in [
        "text/event-stream",
        "application/octet-stream",
        "application/x-git-upload-pack-result",
        "application/zip",
        "application/gzip",
        "image/svg",
        "application/x-tar",
        "application/vnd.amazon.eventstream",
        "application/grpc",
    ] {
        check(Some(never), None);
    }
}

#[test]
fn header_fields_are_masked() {
    let mut issued = Issued { kinds: kinds(LISTED), ..Issued::default() };
    let mut headers = HeaderMap::new();
    headers.insert("x-issued-token", HeaderValue::from_static(KEY));
    headers.insert("x-other", HeaderValue::from_static(KEY));
    issued.headers(&mut headers);
    assert_eq!(headers["x-issued-token"], HIDDEN);
    assert_eq!(headers["x-other"], KEY);
    assert_eq!(issued.in_headers, Found { masked: 1, passed: 0 });
}

/// Lengths, trailers and the end of a body remain correct.
#[tokio::test]
async fn body_is_masked_and_its_trailers_follow() {
    let json: HeaderMap =
        [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))].into_iter().collect();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-end", HeaderValue::from_static("1"));
    trailers.insert("x-issued-token", HeaderValue::from_static(KEY));
    let pieces = ["{\"token\":\"abcdefghij", "klmnop", "qrstuvwx", "yz\""]
        .map(|text| Ok(Frame::data(Bytes::from(text))));
    let frames = pieces.into_iter().chain([Ok::<_, std::io::Error>(Frame::trailers(trailers))]);
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let issued = Issued { kinds: kinds(LISTED), ..Issued::default() };
    let whole = issued.stage(StatusCode::OK, &json, body).collect().await.unwrap();
    assert_eq!(whole.trailers().unwrap()["x-end"], "1");
    assert_eq!(whole.trailers().unwrap()["x-issued-token"], HIDDEN);
    assert_eq!(whole.to_bytes(), "{\"token\":\"**************************\"");
}

proptest! {
    /// The result does not depend on the chunks, and only listed values change.
    #[test]
    fn masking_does_not_depend_on_chunks(
        parts in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\\", "\"token\":\"", "\"key\"", "ghp_", "abcdefghijklmnop", " ", "<Token>",
            "</Token>", "<", "token=", "&", "onecli_ph_", "é", "'", "\\\"", "\\\\\\\"", "&quot;", "token", "\\u0022", "0123456789",
            "\0", "\n", "<![CDATA[", "]]>", "<!--", "-->",
        ]), 0..40),
        cuts in prop::collection::vec(1usize..20, 1..8),
    ) {
        let text = parts.concat();
        for format in [Format::Json, Format::Xml, Format::Form, Format::Text] {
            for mode in [LISTED, MaskIssued::All, MaskIssued::None] {
                let mut whole = Masker::new(kinds(mode), format, true);
                let mut expected = whole.push(&Bytes::copy_from_slice(text.as_bytes())).to_vec();
                expected.extend_from_slice(&whole.finish());
                let mut cut = Masker::new(kinds(mode), format, true);
                let mut got = Vec::new();
                let mut rest = Bytes::copy_from_slice(text.as_bytes());
                for length in cuts.iter().cycle() {
                    if rest.is_empty() {
                        break;
                    }
                    got.extend_from_slice(&cut.push(&rest.split_to((*length).min(rest.len()))));
                }
                got.extend_from_slice(&cut.finish());
                prop_assert_eq!(&got, &expected);
                prop_assert_eq!(cut.found(), whole.found());
                prop_assert_eq!(got.len(), text.len());
                if mode == MaskIssued::None {
                    prop_assert_eq!(&got[..], text.as_bytes());
                }
            }
        }
    }
}
