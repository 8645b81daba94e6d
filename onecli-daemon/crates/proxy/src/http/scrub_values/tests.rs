//! Tests that sent values are scrubbed.

use std::sync::Arc;

use bytes::Bytes;
use onecli_model::{Clock as _, Placement, SecretValue, WireForm};
use onecli_sys::SystemClock;
use sha2::{Digest, Sha256};

use crate::http::placement::basic::basic;
use crate::http::placement::form::set_field;
use crate::http::placement::kind::StandIn;
use crate::http::placement::query::set_query;
use crate::http::placement::replace::{in_basic, in_json, in_query};
use crate::http::scrub::Scrubber;

const VALUE: &str = r#"sk/real+0f3A~="9%Zq w"#;

/// The text that is sent to the host, for each placement.
fn sent() -> Vec<(Placement, String)> {
    let value = SecretValue::new(VALUE.as_bytes().to_vec()).unwrap();
    let forms = ["PLACE".to_owned()];
    let stand_in = StandIn { forms: &forms };
    let at = |location: &str| Placement::replace(location).unwrap();
    let replaced_basic = |pair: &str| {
        let given = format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes()));
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", given.parse().unwrap());
        in_basic(&mut headers, &stand_in, &value).unwrap();
        headers["authorization"].to_str().unwrap().to_owned()
    };
    let body = in_json(br#"{"a": "PLACE"}"#, &"/a".parse().unwrap(), &stand_in, &value).unwrap();
    let form = set_field(b"a=1&key=PLACE", "key", &stand_in, &value).unwrap();
    let mut all = vec![
        (Placement::parse("form", "key").unwrap().unwrap(), String::from_utf8(form.to_vec()).unwrap()),
        (Placement::bearer(), format!("Bearer {VALUE}")),
        (Placement::header("Authorization: token {secret}").unwrap(), format!("token {VALUE}")),
        (Placement::query("key").unwrap(), set_query(Some("a=1"), "key", &value).unwrap()),
        (at("query:key"), in_query(Some("key=x-PLACE&b=2"), "key", &stand_in, &value).unwrap()),
        (at("json:/a"), String::from_utf8(body.to_vec()).unwrap()),
    ];
    for user in ["", "a", "ab", "abc"] {
        all.push((Placement::basic(user).unwrap(), basic(user, &value)));
        all.push((at("basic"), replaced_basic(&format!("{user}:PLACE"))));
        all.push((at("basic"), replaced_basic(&format!("{user}PLACE:x"))));
    }
    all
}

/// Documented encodings of a whole text, each with its decoder. A mask decodes to bytes that occur in no text.
type Coding = (&'static str, fn(&[u8]) -> Vec<u8>, fn(&[u8]) -> Vec<u8>);

fn unmasked(text: &[u8], digit: u8) -> Vec<u8> {
    text.iter().map(|byte| if *byte == b'*' { digit } else { *byte }).collect()
}

const CODINGS: &[Coding] = &[
    ("plain", |text| text.to_vec(), |text| unmasked(text, 0)),
    (
        "hex",
        |text| data_encoding::HEXLOWER.encode(text).into_bytes(),
        |text| data_encoding::HEXLOWER.decode(&unmasked(text, b'0')).unwrap(),
    ),
    (
        "HEX",
        |text| data_encoding::HEXUPPER.encode(text).into_bytes(),
        |text| data_encoding::HEXUPPER.decode(&unmasked(text, b'0')).unwrap(),
    ),
    (
        "base64",
        |text| data_encoding::BASE64.encode(text).into_bytes(),
        |text| data_encoding::BASE64.decode(&unmasked(text, b'A')).unwrap(),
    ),
    (
        "base64url",
        |text| data_encoding::BASE64URL.encode(text).into_bytes(),
        |text| data_encoding::BASE64URL.decode(&unmasked(text, b'A')).unwrap(),
    ),
    (
        "UTF-16LE",
        |text| text.iter().flat_map(|byte| [*byte, 0]).collect(),
        |text| unmasked(text, 0).chunks(2).map(|pair| pair[0]).collect(),
    ),
    (
        "UTF-16BE",
        |text| text.iter().flat_map(|byte| [0, *byte]).collect(),
        |text| unmasked(text, 0).chunks(2).map(|pair| pair[1]).collect(),
    ),
    (
        "percent-encoded base64",
        |text| {
            data_encoding::BASE64
                .encode(text)
                .bytes()
                .flat_map(|b| format!("%{b:02x}").into_bytes())
                .collect()
        },
        |text| {
            let text = unmasked(text, b'A');
            let decoded: Vec<u8> = percent_encoding::percent_decode(&text).collect();
            // Three masks represent one character.
            let decoded = String::from_utf8(decoded).unwrap().replace("AAA", "A");
            data_encoding::BASE64.decode(decoded.as_bytes()).unwrap()
        },
    ),
];

/// An upstream echoes the request head, with any placement, encoding, position and chunks. Of the text that was sent
/// for the value, at most the first and the last character remain.
#[test]
fn sent_forms_are_scrubbed_in_every_encoding() {
    let value = SecretValue::new(VALUE.as_bytes().to_vec()).unwrap();
    for (placement, text) in sent() {
        let forms = placement.wire_forms(&value);
        let find = |form: &WireForm| {
            Some((text.find(std::str::from_utf8(form.expose()).ok()?)?, form.expose().len()))
        };
        let (from, length) = forms.iter().filter_map(find).max_by_key(|found| found.1).unwrap();
        for before in ["", "x", "xy"] {
            let text = format!("{before}{text} HTTP/1.1");
            let own = before.len() + from..before.len() + from + length;
            for (coding, encode, decode) in CODINGS {
                let encoded = encode(text.as_bytes());
                for size in [1, 7, encoded.len()] {
                    let mut scrubber = Scrubber::default();
                    scrubber.add_forms(&forms);
                    let mut out = Vec::new();
                    for piece in encoded.chunks(size) {
                        out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(piece)));
                    }
                    out.extend_from_slice(&scrubber.finish());
                    let seen = decode(&out);
                    let left = own.clone().filter(|at| seen[*at] == text.as_bytes()[*at]);
                    let inner = own.start + 1..own.end - 1;
                    let unmasked = left.filter(|at| inner.contains(at)).count();
                    assert_eq!(
                        unmasked,
                        0,
                        "{placement} in {coding}, pieces of {size}: {}",
                        seen.escape_ascii()
                    );
                }
            }
        }
    }
}

/// This is a guard, not a benchmark: a search for a host's many secrets costs less than one search for each.
#[test]
fn many_values_of_a_host_are_searched_together() {
    let size = if cfg!(debug_assertions) { 1 << 14 } else { 1 << 21 };
    let text = Bytes::from("The quick brown fox jumps over the lazy dog, {\"id\": 4711}. ".repeat(size / 60));
    let value = |n: usize| {
        let seed = Sha256::digest(n.to_be_bytes());
        SecretValue::new(data_encoding::BASE64URL_NOPAD.encode(&seed).into_bytes()).unwrap()
    };
    let mut one = 0.0;
    for count in [1, 50, 200] {
        let started = SystemClock.instant();
        let basic = Placement::basic("me").unwrap();
        let mut needles = crate::http::scrub::Needles::default();
        needles.extend((0..count).flat_map(|n| crate::http::scrub::spellings(&basic.wire_forms(&value(n)))));
        let compiled = SystemClock.instant().duration_since(started);
        let needles = Arc::new(needles);
        let started = SystemClock.instant();
        let mut scrubber = Scrubber::new(Arc::clone(&needles));
        let passed: usize =
            text.chunks(1 << 14).map(|piece| scrubber.push(text.slice_ref(piece)).len()).sum();
        assert_eq!(passed + scrubber.finish().len(), text.len());
        let each = SystemClock.instant().duration_since(started).as_secs_f64() * 1e9
            / f64::from(u32::try_from(text.len()).unwrap());
        println!("{count} values: compiled in {compiled:?}, {each:.2} ns a byte");
        if count == 1 {
            one = each;
        }
        assert!(cfg!(debug_assertions) || each < one * 200.0, "{count}: {each} ns a byte");
    }
}
