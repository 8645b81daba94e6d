//! Property tests with arbitrary bytes in arbitrary pieces.

use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue, Method, Uri};
use proptest::prelude::*;

use super::*;

/// Fragments of requests, valid and invalid, whose combinations come close to every rule.
const FRAGMENTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST /a?b HTTP/1.1\r\n",
    b"GET http://a.test/ HTTP/1.0\r\n",
    b"CONNECT a.test:443 HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"HEAD /",
    b" HTTP/1.1\r\n",
    b"Host: a.test\r\n",
    b"Host: b.test\r\n\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 3\r\n\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n",
    b"Upgrade: websocket\r\n",
    b"A: b\r\n",
    b"A:",
    b"A",
    b"abc",
    b"3\r\nabc\r\n",
    b"3;x=y\r\nabc\r\n",
    b"0\r\n",
    b"0\r\n\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\r",
    b"\n",
    b" ",
    b"\t",
    b":",
    b";",
    b"#",
    b"\0",
    b"\x80",
];

fn input() -> impl Strategy<Value = Vec<u8>> {
    let good = b"POST /p HTTP/1.1\r\nHost: a.test\r\n";
    let fragment = prop_oneof![
        8 => prop::sample::select(FRAGMENTS).prop_map(<[u8]>::to_vec),
        2 => Just(good.to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
}

/// Parses bytes that passed with another parser, that of hyper. Returns the number of heads, if they and their bodies
/// cover `bytes`; only the last body may be truncated.
fn reparse(mut bytes: &[u8]) -> Result<u64, String> {
    let mut heads = 0;
    while !bytes.is_empty() {
        let mut headers = vec![httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes).map_err(|error| format!("head {heads}: {error}"))? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial => return Err(format!("head {heads} is cut off")),
        };
        heads += 1;
        let (method, path) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
        Method::from_bytes(method.as_bytes()).map_err(|error| error.to_string())?;
        Uri::try_from(path).map_err(|error| format!("{path}: {error}"))?;
        let mut framing = Vec::new();
        for header in request.headers.iter() {
            HeaderName::from_bytes(header.name.as_bytes()).map_err(|error| error.to_string())?;
            HeaderValue::from_bytes(header.value).map_err(|error| error.to_string())?;
            if ["content-length", "transfer-encoding"].contains(&header.name.to_ascii_lowercase().as_str()) {
                framing.push((header.name.to_ascii_lowercase(), header.value));
            }
        }
        bytes = &bytes[length..];
        bytes = match framing.as_slice() {
            [] => bytes,
            [(name, value)] if name == "content-length" => {
                let length: usize =
                    std::str::from_utf8(value).unwrap_or_default().parse().unwrap_or(usize::MAX);
                &bytes[length.min(bytes.len())..]
            }
            [(_, value)] if value.eq_ignore_ascii_case(b"chunked") => after_chunks(bytes)?,
            other => return Err(format!("{other:?}")),
        };
    }
    Ok(heads)
}

fn after_chunks(mut bytes: &[u8]) -> Result<&[u8], String> {
    loop {
        let (line, size) = match httparse::parse_chunk_size(bytes).map_err(|error| format!("{error:?}"))? {
            httparse::Status::Complete(chunk) => chunk,
            httparse::Status::Partial => return Ok(&[]),
        };
        bytes = &bytes[line..];
        if size == 0 {
            let mut trailers = vec![httparse::EMPTY_HEADER; MAX_FIELDS];
            return match httparse::parse_headers(bytes, &mut trailers).map_err(|error| error.to_string())? {
                httparse::Status::Complete((length, _)) => Ok(&bytes[length..]),
                // Trailers pass as a whole or not at all.
                httparse::Status::Partial if bytes.is_empty() => Ok(&[]),
                httparse::Status::Partial => Err("trailers are cut off".to_owned()),
            };
        }
        let end = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len());
        bytes = &bytes[end..];
        match bytes {
            [b'\r', b'\n', rest @ ..] => bytes = rest,
            [] | [b'\r'] => return Ok(&[]),
            _ => return Err("a chunk has no end".to_owned()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn result_does_not_depend_on_pieces(
        bytes in input(),
        cuts in prop::collection::vec(1_usize..40, 1..20),
        room in 1_usize..200,
    ) {
        let whole = read(Pieces::of(&bytes, usize::MAX), 1 << 16);
        let mut pieces = VecDeque::new();
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            pieces.push_back(piece.to_vec());
            rest = behind;
        }
        prop_assert_eq!(&read(Pieces(pieces), room), &whole);
        // No byte is added, changed or moved.
        prop_assert!(is_within(&whole.passed, &bytes));
    }

    #[test]
    fn passed_bytes_have_one_reading(bytes in input()) {
        let seen = read(Pieces::of(&bytes, usize::MAX), 1 << 16);
        prop_assert_eq!(reparse(&seen.passed), Ok(seen.heads), "{}", seen.passed.escape_ascii());
    }
}

/// Returns whether `passed` can result from `bytes` by removing empty lines and everything after some position.
fn is_within(passed: &[u8], bytes: &[u8]) -> bool {
    // Every position in `bytes` that the passed bytes so far may reach.
    let mut places = BTreeSet::from([0]);
    for byte in passed {
        let empty_lines = places.iter().filter(|at| bytes[**at..].starts_with(b"\r\n")).map(|at| at + 2);
        let reached: Vec<usize> = places.iter().copied().chain(empty_lines).collect();
        places = reached.into_iter().filter(|at| bytes.get(*at) == Some(byte)).map(|at| at + 1).collect();
    }
    !places.is_empty()
}
