//! Tests with values that are stored while a response streams.

use super::*;

/// A scrubber that starts without values and adds these.
fn idle(values: &[&[u8]]) -> Scrubber {
    let forms = values.iter().rev().map(|value| forms(value)).collect::<Vec<_>>().concat();
    Scrubber::following(Wanted::default(), Box::new(Later(forms, Wanted::default())))
}

#[test]
fn idle_scrubber_starts_to_search_during_a_stream() {
    let mut scrubber = idle(&[VALUE]);
    assert!(scrubber.is_idle());
    let out = scrubber.push_last(Bytes::from([b"a ", VALUE, b" b"].concat()));
    assert_eq!(out, [b"a ".to_vec(), vec![b'*'; VALUE.len()], b" b".to_vec()].concat());
    assert!(!scrubber.is_idle());
}

/// Values that only this response is searched for remain when the host's values change.
#[test]
fn response_values_remain_when_host_values_change() {
    let mut scrubber = idle(&[VALUE]);
    scrubber.add_forms(&forms(b"own-signature"));
    let out = scrubber.push_last(Bytes::from([b"own-signature ", VALUE].concat()));
    assert_eq!(out, [vec![b'*'; 13], vec![b' '], vec![b'*'; VALUE.len()]].concat());
}

#[test]
fn unsearchable_response_ends_when_its_host_gets_values() {
    let mut scrubber = idle(&[VALUE]);
    scrubber.pass_unsearched();
    assert!(!scrubber.is_blind());
    // Works without a chunk, because an upstream may be silent.
    assert!(scrubber.is_blind_now());
    let mut searchable = idle(&[VALUE]);
    assert!(!searchable.is_blind_now());
    let mut own = Scrubber::default();
    own.add_forms(&forms(b"own-signature"));
    own.pass_unsearched();
    assert!(!own.is_blind_now(), "a part may contain a signature of this request");
}

/// The second message begins in a chunk that is not searched.
#[test]
fn message_borders_are_tracked_without_values() {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut scrubber = Scrubber::default();
    scrubber.split_into(Records::of(&headers));
    let first = Bytes::from_static(b"\0\0\0\0\x01x\0\0\0\0\x06ab");
    assert_eq!(scrubber.push(first.clone()), first);
    scrubber.add_forms(&forms(VALUE));
    let second = Bytes::from_static(b"cdef");
    assert_eq!(scrubber.push(second.clone()), second, "the message is complete");
}
