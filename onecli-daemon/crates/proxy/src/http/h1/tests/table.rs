//! Each rule, with requests that break it and requests that do not.

use super::*;
use Violation::*;

/// Checks that `bytes` pass unchanged, or break the rule; all at once and byte by byte.
fn check(what: &str, bytes: &[u8], expected: Result<(), Violation>) {
    let whole = read(Pieces::of(bytes, usize::MAX), 1 << 20);
    assert_eq!(whole.violation, expected.err(), "{what}: {}", bytes.escape_ascii());
    if expected.is_ok() {
        let own = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        assert_eq!(whole.passed.escape_ascii().to_string(), own.escape_ascii().to_string(), "{what}");
    }
    if bytes.len() < 4096 {
        assert_eq!(read(Pieces::of(bytes, 1), 1), whole, "{what}, byte by byte");
    }
}

/// A request with these field lines besides its `Host`.
fn with(fields: &str) -> Vec<u8> {
    format!("POST /p HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n").into_bytes()
}

#[test]
fn request_lines() {
    let cases: &[(&str, Result<(), Violation>)] = &[
        ("GET / HTTP/1.1\r\n", Ok(())),
        ("GET / HTTP/1.0\r\n", Ok(())),
        ("M-SEARCH!#$%&'*+.^_`|~ / HTTP/1.1\r\n", Ok(())),
        ("GET /a/b;c=d/%2e?x=[y]|{z}`\\^'~ HTTP/1.1\r\n", Ok(())),
        ("GET http://a.test:8080/p?q HTTP/1.1\r\n", Ok(())),
        ("GET HTTP://[::1]/ HTTP/1.1\r\n", Ok(())),
        ("GET //a.test/p HTTP/1.1\r\n", Ok(())),
        ("OPTIONS * HTTP/1.1\r\n", Ok(())),
        ("CONNECT a.test:443 HTTP/1.1\r\n", Ok(())),
        ("CONNECT [::1]:443 HTTP/1.0\r\n", Ok(())),
        ("\r\nGET / HTTP/1.1\r\n", Ok(())),
        ("\r\n\r\nGET / HTTP/1.1\r\n", Err(RequestLine)),
        ("\nGET / HTTP/1.1\r\n", Err(BareLf)),
        ("\rGET / HTTP/1.1\r\n", Err(BareCr)),
        (" GET / HTTP/1.1\r\n", Err(RequestLine)),
        ("GET\r\n", Err(RequestLine)),
        ("GET /\r\n", Err(RequestLine)),
        ("GET /\n", Err(BareLf)),
        ("GET  / HTTP/1.1\r\n", Err(RequestLine)),
        ("GET\t/ HTTP/1.1\r\n", Err(RequestLine)),
        ("GET /  HTTP/1.1\r\n", Err(RequestLine)),
        ("GET / HTTP/1.1 \r\n", Err(RequestLine)),
        ("GET /a b HTTP/1.1\r\n", Err(RequestLine)),
        ("GET / http/1.1\r\n", Err(RequestLine)),
        ("GET / HTTP/1.1\n", Err(BareLf)),
        ("GET / HTTP/1.1\rX", Err(BareCr)),
        ("GET / HTTP/11\r\n", Err(RequestLine)),
        ("GET / HTTP/1.10\r\n", Err(RequestLine)),
        ("GET / HTTP/0.9\r\n", Err(Version)),
        ("GET / HTTP/1.2\r\n", Err(Version)),
        ("GET / HTTP/9.9\r\n", Err(Version)),
        ("PRI * HTTP/2.0\r\n", Err(Version)),
        ("G\0T / HTTP/1.1\r\n", Err(RequestLine)),
        ("G:T / HTTP/1.1\r\n", Err(RequestLine)),
        ("\x16\x03\x01", Err(RequestLine)),
        ("GET /a#b HTTP/1.1\r\n", Err(Fragment)),
        ("GET # HTTP/1.1\r\n", Err(Fragment)),
        ("GET /\"a\" HTTP/1.1\r\n", Err(TargetCharacter(b'"'))),
        ("GET /<a> HTTP/1.1\r\n", Err(TargetCharacter(b'<'))),
        ("GET /a\tb HTTP/1.1\r\n", Err(TargetCharacter(b'\t'))),
        ("GET /\x7f HTTP/1.1\r\n", Err(TargetCharacter(0x7f))),
        ("GET /\u{e4} HTTP/1.1\r\n", Err(TargetCharacter(0xc3))),
        ("GET /a`b HTTP/1.1\r\n", Err(TargetForm)),
        ("GET * HTTP/1.1\r\n", Err(TargetForm)),
        ("GET a.test:80 HTTP/1.1\r\n", Err(TargetForm)),
        ("GET a.test/p HTTP/1.1\r\n", Err(TargetForm)),
        ("GET ?q HTTP/1.1\r\n", Err(TargetForm)),
        ("GET http:///p HTTP/1.1\r\n", Err(TargetForm)),
        ("GET http://a[b/ HTTP/1.1\r\n", Err(TargetForm)),
        ("CONNECT / HTTP/1.1\r\n", Err(TargetForm)),
        ("CONNECT * HTTP/1.1\r\n", Err(TargetForm)),
        ("CONNECT http://a.test/ HTTP/1.1\r\n", Err(TargetForm)),
        ("CONNECT a.test:443/p HTTP/1.1\r\n", Err(TargetForm)),
        ("CONNECT [::1:443 HTTP/1.1\r\n", Err(TargetForm)),
        ("TRACE / HTTP/1.1\r\n", Err(Trace)),
        ("trace / HTTP/1.1\r\n", Err(Trace)),
    ];
    for (line, expected) in cases {
        check(line, format!("{line}Host: a.test\r\n\r\n").as_bytes(), *expected);
    }
}

#[test]
fn field_lines() {
    let cases: &[(&str, Result<(), Violation>)] = &[
        ("A: b\r\n", Ok(())),
        ("A:b\r\nA:\r\nA: \t \r\n", Ok(())),
        ("A:\t b c\t \r\n", Ok(())),
        ("A: \u{e4}\r\n", Ok(())),
        ("!#$%&'*+-.^_`|~09: x\r\n", Ok(())),
        ("A : b\r\n", Err(FieldName)),
        ("A\t: b\r\n", Err(FieldName)),
        ("A B: c\r\n", Err(FieldName)),
        (": b\r\n", Err(FieldName)),
        ("A\r\n", Err(FieldName)),
        ("A\n", Err(BareLf)),
        ("\u{e4}: b\r\n", Err(FieldName)),
        ("A(b): c\r\n", Err(FieldName)),
        ("A\0: b\r\n", Err(FieldName)),
        ("A: b\r\n c\r\n", Err(Folded)),
        ("A: b\r\n\tc\r\n", Err(Folded)),
        (" A: b\r\n", Err(Folded)),
        ("A: b\nC: d\r\n", Err(BareLf)),
        ("A: b\rC: d\r\n", Err(BareCr)),
        ("A: b\r\r\n", Err(BareCr)),
        ("A: b\0c\r\n", Err(FieldValue)),
        ("A: \x1b[2J\r\n", Err(FieldValue)),
        ("A: \x7f\r\n", Err(FieldValue)),
        ("\n", Err(BareLf)),
        ("\rX", Err(BareCr)),
        ("Host: a.test\r\n", Err(HostTwice)),
        ("HOST: b.test\r\n", Err(HostTwice)),
        ("Host:\r\n", Err(HostTwice)),
    ];
    for (lines, expected) in cases {
        check(lines, &with(lines), *expected);
    }
    check("no Host", b"GET / HTTP/1.1\r\nA: b\r\n\r\n", Err(HostMissing));
    check("no Host at all", b"GET / HTTP/1.1\r\n\r\n", Err(HostMissing));
    check("CONNECT without Host", b"CONNECT a.test:443 HTTP/1.1\r\n\r\n", Err(HostMissing));
    check("HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", Ok(()));
    check("CONNECT in HTTP/1.0", b"CONNECT a.test:443 HTTP/1.0\r\n\r\n", Ok(()));
    check("folded before the first field", b"GET / HTTP/1.1\r\n Host: a.test\r\n\r\n", Err(Folded));
    check("two heads", &[with(""), with("A: b\r\n")].concat(), Ok(()));
    check("a valid head, then an invalid one", &[with(""), with("A : b\r\n")].concat(), Err(FieldName));
    check("an empty line between", &[with(""), b"\r\n".to_vec(), with(" ")].concat(), Err(Folded));
    check("nothing", b"", Ok(()));
    check("a line of a head", b"GET / HTTP/1.1\r\n", Err(CutOff));
    check("a letter", b"G", Err(CutOff));
}

#[test]
fn framing() {
    let cases: &[(&str, &str, Result<(), Violation>)] = &[
        ("Content-Length: 3\r\n", "abc", Ok(())),
        ("content-LENGTH:003 \r\n", "abc", Ok(())),
        ("Content-Length: 0\r\n", "", Ok(())),
        ("Content-Length: 3\r\n", "ab", Ok(())),
        ("Content-Length: 3\r\nContent-Length: 3\r\n", "", Err(LengthTwice)),
        ("Content-Length: 3\r\nContent-Length: 4\r\n", "", Err(LengthTwice)),
        ("Content-Length: 3, 3\r\n", "", Err(LengthInvalid)),
        ("Content-Length: 3 3\r\n", "", Err(LengthInvalid)),
        ("Content-Length:\r\n", "", Err(LengthInvalid)),
        ("Content-Length: -1\r\n", "", Err(LengthInvalid)),
        ("Content-Length: +1\r\n", "", Err(LengthInvalid)),
        ("Content-Length: 0x1\r\n", "", Err(LengthInvalid)),
        ("Content-Length: 1.0\r\n", "", Err(LengthInvalid)),
        ("Content-Length: 1e3\r\n", "", Err(LengthInvalid)),
        ("Content-Length: \u{663}\r\n", "", Err(LengthInvalid)),
        ("Content-Length: 999999999999999999\r\n", "", Ok(())),
        ("Content-Length: 18446744073709551616\r\n", "", Err(LengthInvalid)),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n", Ok(())),
        ("transfer-encoding:Chunked\r\n", "0\r\n\r\n", Ok(())),
        ("Transfer-Encoding: gzip\r\n", "", Err(CodingUnknown)),
        ("Transfer-Encoding: gzip, chunked\r\n", "", Err(CodingUnknown)),
        ("Transfer-Encoding: chunked, identity\r\n", "", Err(CodingUnknown)),
        ("Transfer-Encoding: chunked,\r\n", "", Err(CodingUnknown)),
        ("Transfer-Encoding: chunked;x=y\r\n", "", Err(CodingUnknown)),
        ("Transfer-Encoding: \"chunked\"\r\n", "", Err(CodingUnknown)),
        ("Transfer-Encoding: xchunked\r\n", "", Err(CodingUnknown)),
        ("Transfer-Encoding:\r\n", "", Err(CodingUnknown)),
        ("Transfer-Encoding: identity\r\n", "", Err(CodingUnknown)),
        ("Transfer-Encoding: \x0bchunked\r\n", "", Err(FieldValue)),
        ("Transfer-Encoding\0: chunked\r\n", "", Err(FieldName)),
        ("Transfer-Encoding : chunked\r\n", "", Err(FieldName)),
        ("Transfer-Encoding:\r\n chunked\r\n", "", Err(CodingUnknown)),
        ("X: y\r\n Transfer-Encoding: chunked\r\n", "", Err(Folded)),
        ("X: y\nTransfer-Encoding: chunked\r\n", "", Err(BareLf)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "", Err(CodingTwice)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", "", Err(CodingTwice)),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "", Err(LengthAndCoding)),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", "", Err(LengthAndCoding)),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "", Err(LengthAndCoding)),
    ];
    for (fields, body, expected) in cases {
        check(fields, &[with(fields), body.as_bytes().to_vec()].concat(), *expected);
    }
    let connect = |rest: &str| format!("CONNECT a.test:443 {rest}\r\n\r\n").into_bytes();
    check("CONNECT, no content", &connect("HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0"), Ok(()));
    check(
        "CONNECT with content",
        &connect("HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1"),
        Err(ConnectContent),
    );
    check(
        "CONNECT with chunks",
        &connect("HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked"),
        Err(ConnectContent),
    );
    check(
        "chunks in HTTP/1.0",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        Err(CodingInHttp10),
    );
}

#[test]
fn chunks() {
    let long = format!("1;{}\r\na\r\n", "x".repeat(9000));
    let trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(129));
    let large = format!("0\r\nA: {}\r\n\r\n", "b".repeat(9000));
    let cases: &[(&str, Result<(), Violation>)] = &[
        ("0\r\n\r\n", Ok(())),
        ("000\r\n\r\n", Ok(())),
        ("a\r\n0123456789\r\n0\r\n\r\n", Ok(())),
        ("00000A\r\n0123456789\r\n0\r\n\r\n", Ok(())),
        ("1;a=b;c=\"d e\"\r\nx\r\n0;e\r\n\r\n", Ok(())),
        ("1\r\nx\r\n0\r\nChecksum: 1\r\nA:\r\n\r\n", Ok(())),
        ("1\r\nx", Ok(())),
        ("\r\n", Err(ChunkSize)),
        (" 1\r\nx\r\n", Err(ChunkSize)),
        ("1 \r\nx\r\n", Err(ChunkSize)),
        ("1 ;a\r\nx\r\n", Err(ChunkSize)),
        ("0x1\r\nx\r\n", Err(ChunkSize)),
        ("-1\r\nx\r\n", Err(ChunkSize)),
        ("+1\r\nx\r\n", Err(ChunkSize)),
        ("1_0\r\nx\r\n", Err(ChunkSize)),
        (";a\r\nx\r\n", Err(ChunkSize)),
        ("g\r\n", Err(ChunkSize)),
        ("0000000000000001\r\nx\r\n", Err(ChunkSize)),
        ("ffffffffffffffff\r\nx\r\n", Err(ChunkSize)),
        ("10000000000000000\r\nx\r\n", Err(ChunkSize)),
        ("1\nx\r\n", Err(BareLf)),
        ("1\rx\r\n", Err(BareCr)),
        ("1\r\r\nx", Err(BareCr)),
        ("1;a\nx\r\n", Err(BareLf)),
        ("1;a\0\r\nx\r\n", Err(ChunkSize)),
        ("1;a\rb\r\nx\r\n", Err(BareCr)),
        ("1\r\nxy\r\n", Err(ChunkEnd)),
        ("1\r\nx\n", Err(ChunkEnd)),
        ("1\r\nx\rY", Err(ChunkEnd)),
        ("2\r\nx\r\n0\r\n\r\n", Err(ChunkEnd)),
        (&long, Err(ChunkExtension)),
        ("0\r\nA : b\r\n\r\n", Err(FieldName)),
        ("0\r\nA: b\r\n c\r\n\r\n", Err(Folded)),
        ("0\r\nA: b\n\r\n", Err(BareLf)),
        ("0\r\n\n", Err(BareLf)),
        ("0\r\n\rX", Err(BareCr)),
        ("0\r\nContent-Length: 1\r\n\r\n", Err(TrailerField)),
        ("0\r\ntransfer-encoding: chunked\r\n\r\n", Err(TrailerField)),
        ("0\r\nHost: b.test\r\n\r\n", Err(TrailerField)),
        ("0\r\nAuthorization: Bearer x\r\n\r\n", Err(TrailerField)),
        (&trailers, Ok(())),
        (&large, Err(TrailersTooLarge)),
    ];
    for (body, expected) in cases {
        check(body, &[with("Transfer-Encoding: chunked\r\n"), body.as_bytes().to_vec()].concat(), *expected);
    }
    let head = with("Transfer-Encoding: chunked\r\n");
    let follow = |next: &[u8]| [&head, b"1\r\nx\r\n0\r\n\r\n".as_slice(), next].concat();
    check("another request after it", &follow(&with("")), Ok(()));
    check("an invalid request after it", &follow(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"), Err(FieldName));
    check("junk after it", &follow(b"\0"), Err(RequestLine));
    let behind_length = [with("Content-Length: 1\r\n"), b"x".to_vec(), b"\0".to_vec()].concat();
    check("junk after a body with a length", &behind_length, Err(RequestLine));
}

#[test]
fn bounds() {
    let fill = |size: usize| with(&format!("A: {}\r\n", "b".repeat(size - with("A: \r\n").len())));
    check("at the size limit", &fill(MAX_HEAD), Ok(()));
    check("a byte more", &fill(MAX_HEAD + 1), Err(TooLarge));
    check("at the field limit", &with(&"A: b\r\n".repeat(MAX_FIELDS - 1)), Ok(()));
    check("a field more", &with(&"A: b\r\n".repeat(MAX_FIELDS)), Err(TooManyFields));
    check("a long target", format!("GET /{}", "a".repeat(MAX_HEAD)).as_bytes(), Err(TooLarge));
    check("a long method", "A".repeat(MAX_HEAD + 1).as_bytes(), Err(TooLarge));
}

/// The record has the parts of a malformed request that were read, but never a query or user information.
#[test]
fn malformed_request_shows_method_host_and_path() {
    type Seen = (Option<&'static str>, Option<&'static str>, Option<&'static str>);
    let cases: &[(&str, Seen)] = &[
        ("GET /p?secret HTTP/1.1\r\nHost: a.test\r\nA : b", (Some("GET"), Some("a.test"), Some("/p"))),
        ("GET http://u:pw@a.test:8080/p?q HTTP/1.1\r\nA : b", (Some("GET"), Some("a.test:8080"), Some("/p"))),
        ("GET http://a.test?q HTTP/1.1\r\nA : b", (Some("GET"), Some("a.test"), Some("/"))),
        ("GET /x?u=http://b.test/ HTTP/1.1\r\nA : b", (Some("GET"), None, Some("/x"))),
        ("GET /x://b HTTP/1.1\r\nA : b", (Some("GET"), None, Some("/x://b"))),
        ("CONNECT a.test:443 HTTP/1.1\r\nA : b", (Some("CONNECT"), Some("a.test:443"), None)),
        ("POST /p#f HTTP/1.1\r\n", (Some("POST"), None, Some("/p"))),
        ("POST /p\0", (Some("POST"), None, Some("/p"))),
        ("\x16\x03\x01", (None, None, None)),
    ];
    for (bytes, expected) in cases {
        let mut section = Section::head();
        let violation = section.read(bytes.as_bytes()).unwrap_err();
        let rejected = RejectedRequest::new(violation, &section, bytes.as_bytes());
        assert_eq!(rejected.seen(), *expected, "{bytes}");
    }
}
