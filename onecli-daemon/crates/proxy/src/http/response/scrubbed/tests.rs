//! Tests of non-interference: an agent sees the same response for any two values of one class that do not occur in
//! it. The tests compare each write to the agent's connection and its time. The clock advances with the upstream's
//! steps.
#![allow(clippy::format_collect, reason = "test texts are short")]

mod harness;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt;
use proptest::prelude::*;
use tokio::sync::mpsc::unbounded_channel;

use self::harness::{Clock, FLUSH, Script, Scripted, Trace, Version, play, response, scrubber, traces};
use super::*;
use crate::http::scrub::Records;

fn compare(script: &Script, value: &str, other: &str, flush: Option<Duration>) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let one = traces(script, value, flush).await;
        let another = traces(script, other, flush).await;
        for ((way, one), (_, another)) in one.into_iter().zip(another) {
            prop_assert!(one.iter().any(|(_, bytes)| !bytes.is_empty()), "{}", way);
            prop_assert!(one == another, "{way}: {}\n{}", shown(&one), shown(&another));
        }
        Ok(())
    })
}

fn shown(trace: &Trace) -> String {
    let lines = trace.iter().map(|(time, bytes)| format!("{time} {}\n", bytes.escape_ascii()));
    lines.collect()
}

/// An attack from a review: texts that end in a guess are repeated until a frame shows which guess is right.
#[test]
fn guess_is_not_confirmed_by_frames() {
    for (value, other) in [
        ("sk-proj-0a1b2c3d", "sk-proj-9f8e7d6c"),
        ("correct horse 1", "correct house 2"),
        (&"a1".repeat(100), &"b2".repeat(100)),
    ] {
        for length in (1..value.len().min(18)).step_by(4) {
            let text = Bytes::from(format!("hello, this is a file: {}", &value[..length]));
            compare(&vec![(text.clone(), false), (text, false)], value, other, None).unwrap();
        }
    }
}

/// Held bytes are sent after a silence if that is allowed, and otherwise at the end.
#[tokio::test]
async fn held_bytes_are_sent_after_a_silence_if_allowed() {
    let script = vec![(Bytes::from_static(b"so it is"), true), (Bytes::from_static(b" so"), false)];
    for (flush, expected) in [
        (Some(FLUSH), vec![(1, "so it "), (2, "is"), (3, " "), (5, "so")]),
        (None, vec![(1, "so it "), (3, "is "), (5, "so")]),
    ] {
        let mut frames: Vec<(usize, String)> = Vec::new();
        let (sender, pieces) = unbounded_channel::<Bytes>();
        let clock = Clock::default();
        let source = Scripted { pieces, left: None, trailers: None };
        let idle_timeout = IdleTimeout::new(Duration::from_mins(15));
        let mut body = ScrubbedBody::new(source, scrubber("sk-live-canary", flush), idle_timeout, false);
        let playing = {
            let clock = Arc::clone(&clock);
            let script = script.clone();
            async move { play(&script, &clock, |_, piece| sender.send(piece).unwrap()).await }
        };
        let reading = async {
            while let Some(frame) = std::future::poll_fn(|cx| body.poll_frame(cx)).await {
                let data = frame.unwrap().into_data().unwrap();
                frames.push((clock.load(Ordering::Relaxed), String::from_utf8(data.to_vec()).unwrap()));
            }
        };
        tokio::join!(playing, reading);
        let expected: Vec<(usize, String)> =
            expected.into_iter().map(|(step, text)| (step, text.to_owned())).collect();
        assert_eq!(frames, expected, "{flush:?}");
    }
}

/// Events, lines and messages are sent as soon as they are complete. The upstream sends the next one after the agent
/// has read the previous one.
#[tokio::test]
async fn records_leave_when_they_are_complete() {
    let message = |text: &str| {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[0], &length[..], text.as_bytes()].concat()
    };
    let texts = ["ends in a word", "{\"a\": \"sk-live\"}", "sk-live"];
    for kind in ["text/event-stream", "application/x-ndjson", "application/jsonl", "application/grpc"] {
        for value in ["sk-live-canary", "correct horse battery", &"long-token".repeat(200)] {
            for version in [Version::Http1, Version::Http2] {
                let mut scrubber = scrubber(value, None);
                let field = (http::header::CONTENT_TYPE, kind.parse().unwrap());
                scrubber.split_into(Records::of(&[field].into_iter().collect()));
                let (sender, pieces) = unbounded_channel::<Bytes>();
                let body = Scripted { pieces, left: None, trailers: None };
                let mut body = response(version, body, scrubber).await;
                for text in texts {
                    let record = match kind {
                        "text/event-stream" => format!("data: {text}\n\n").into_bytes(),
                        "application/grpc" => message(text),
                        _ => format!("{text}\n").into_bytes(),
                    };
                    sender.send(record.clone().into()).unwrap();
                    let mut read = Vec::new();
                    while read.len() < record.len() {
                        let frame = tokio::time::timeout(Duration::from_secs(20), body.frame()).await;
                        let frame = frame.unwrap_or_else(|_| panic!("{kind} waits, {version:?}, {value}"));
                        read.extend_from_slice(frame.unwrap().unwrap().data_ref().unwrap());
                    }
                    assert_eq!(read, record, "{kind}, {version:?}");
                }
            }
        }
    }
}

/// Two different values of one class.
fn values() -> impl Strategy<Value = (String, String)> {
    prop_oneof![
        ("sk-[a-zA-Z0-9+/=_.~-]{0,9}", "[a-zA-Z0-9+/=_.~-]{12}", "[a-zA-Z0-9+/=_.~-]{12}"),
        ("[ -~]{0,9} ", "[ -~]{12}", "[ -~]{12}"),
        ("[a-z0-9]{140,150}", "[a-z0-9]{12}", "[a-z0-9]{12}"),
        ("[a-z0-9]{1040,1050}", "[a-z0-9]{12}", "[a-z0-9]{12}"),
    ]
    .prop_map(|(same, one, another)| (same.clone() + &one, same + &another))
}

/// Beginnings of a value in several forms, with other bytes between them.
fn script_of(value: &str, pieces: &[(usize, usize, String, bool)], silences: bool) -> Script {
    let forms = [
        value.to_owned(),
        data_encoding::BASE64.encode(value.as_bytes()),
        data_encoding::HEXLOWER.encode(value.as_bytes()),
        value.bytes().map(|b| format!("\\u{b:04x}")).collect(),
        value.bytes().map(|b| format!("%{b:02x}")).collect(),
        value.chars().flat_map(|c| [c, '\0']).collect(),
    ];
    let piece = |(form, length, noise, is_silent): &(usize, usize, String, bool)| {
        let beginning: String = forms[*form].chars().take(*length).collect();
        (Bytes::from(format!("{noise}{beginning}")), *is_silent && silences)
    };
    pieces.iter().map(piece).filter(|(piece, _)| !piece.is_empty()).collect()
}

fn pieces() -> impl Strategy<Value = Vec<(usize, usize, String, bool)>> {
    let noise = proptest::string::string_regex("[a-c \\\\%&u0;\"}\r\n\0]{0,9}").unwrap();
    proptest::collection::vec((0..6_usize, 0..21_usize, noise, any::<bool>()), 1..6)
}

/// Compares the traces for the two watched values, unless one of them occurs in the text.
fn check(
    (value, other): (String, String),
    pieces: &[(usize, usize, String, bool)],
    flush: Option<Duration>,
) -> Result<(), TestCaseError> {
    let script = script_of(&value, pieces, flush.is_some());
    let text = script.iter().flat_map(|(piece, _)| piece.to_vec()).collect::<Vec<u8>>();
    let hits = |value: &str| {
        let mut scrubber = scrubber(value, None);
        scrubber.push_last(text.clone().into());
        scrubber.hits()
    };
    prop_assume!(value != other && !script.is_empty() && hits(&value) == 0 && hits(&other) == 0);
    compare(&script, &value, &other, flush)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn traces_do_not_depend_on_a_value(values in values(), pieces in pieces()) {
        check(values, &pieces, None)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn traces_with_silences_do_not_depend_on_a_value(values in values(), pieces in pieces()) {
        check(values, &pieces, Some(FLUSH))?;
    }
}
