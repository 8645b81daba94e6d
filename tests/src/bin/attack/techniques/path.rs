//! Paths that a server may read differently from the daemon. The secret is for `/public/**`.

use crate::stage::row::{Row, Trial};
use crate::stage::world::{A, VALUE, World, reply};
use crate::wire::Answer;

const GETS: &str = "a path outside the secret's scope, with the credential";
const CONTROL: &str = "ordinary spellings inside it are injected";

pub(crate) const ROWS: &[Row] = &[
    Row::new("path/traversal", GETS, CONTROL, traversal),
    Row::new("path/windows-and-unicode", GETS, CONTROL, windows_and_unicode).quick(),
    Row::new(
        "path/http2-characters",
        "characters over HTTP/2 that HTTP/1.1 refuses",
        "an ordinary character passes over both versions",
        http2_characters,
    ),
];

fn try_all(trial: &mut Trial, spellings: &[&str]) {
    let (world, granted) =
        World::with_key(&["--bearer", "--path", "/public/**"], |_, conn| reply(conn, "ok"));
    let fields = format!("Authorization: Bearer {}\r\nConnection: close\r\n", granted.placeholder);
    for path in ["/public/x", "/public/a%20b", "/public/100%25", "/public/a...b", "/public/%C3%A9t%C3%A9"] {
        world.script.clear();
        let answer = world.get(A, path, &fields);
        trial.control(format!("{path}: {}", answer.status), world.script.saw(VALUE));
    }
    for path in spellings {
        world.script.clear();
        let answer = world.get(A, path, &fields);
        trial.attempt(format!("{path}: {}", answer.status), world.script.saw(VALUE));
    }
}

fn traversal(trial: &mut Trial) {
    try_all(
        trial,
        &[
            "/public/../admin",
            "/public/%2e%2e/admin",
            "/public/%2E./admin",
            "/public/..;/admin",
            "/public/..;a=b/admin",
            "/public/..%2fadmin",
            "/public/%2e%2e%2fadmin",
            "/public/%252e%252e/admin",
            "/public/%25252e%25252e/admin",
            "/public/%%32%65%%32%65/admin",
            "/public/%u002e%u002e/admin",
            "/public/%c0%ae%c0%ae/admin",
            "/public/%e0%80%ae%e0%80%ae/admin",
            "/public\\..\\admin",
            "/public/%5c..%5cadmin",
            "/public/..%255cadmin",
            "/public/x/../../admin",
            "/public/..%00/admin",
            "/public/..%0d/admin",
            "//admin/public/x",
            "/public//../admin",
            "/./admin",
            "/PUBLIC/x",
            "/public",
            "/publicity",
            "http://b.test/public/x",
        ],
    );
}

fn windows_and_unicode(trial: &mut Trial) {
    try_all(
        trial,
        &[
            "/public/..%20/admin",
            "/public/%20../admin",
            "/public/%20..%20/admin",
            "/public/.%20./admin",
            "/public/.../admin",
            "/public/..../admin",
            "/public/..%09/admin",
            "/public/..%C2%A0/admin",
            // Full-width full stops and slashes, a two-dot leader, an ellipsis: dots and slashes after NFKC.
            "/public/%EF%BC%8E%EF%BC%8E/admin",
            "/public/.%EF%BC%8E/admin",
            "/public/..%EF%BC%8Fadmin",
            "/public/..%EF%BC%BCadmin",
            "/public/%E2%80%A5/admin",
            "/public/%E2%80%A4%E2%80%A4/admin",
            "/public/%E2%80%A6/admin",
            "/public/%EF%B9%92%EF%B9%92/admin",
            "/public/..::$INDEX_ALLOCATION/admin",
            "/public/..%3a%3a$index_allocation/admin",
            "/public/..:stream/admin",
        ],
    );
}

/// Every byte except letters and digits, including some beyond ASCII.
fn characters() -> impl Iterator<Item = u8> {
    (1..=255_u8).filter(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, 0x91..=0xf0))
}

fn http2_characters(trial: &mut Trial) {
    let (world, _) = World::with_key(&["--bearer", "--path", "/public/**"], |_, conn| reply(conn, "ok"));
    let passes = |before: &str, byte: u8, http2: bool| {
        world.script.clear();
        let target = [before.as_bytes(), &[byte][..], b"b"].concat();
        let complete = if http2 {
            world.http2(A).get_bytes(&world.at(A), &target).is_ok_and(|answer| answer.complete)
        } else {
            let head = format!(" HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", world.at(A));
            let answer: Answer = world.send(A, &[b"GET ", target.as_slice(), head.as_bytes()].concat());
            answer.status == 200
        };
        complete && !world.script.seen().is_empty()
    };
    for before in ["/public/a", "/public/x?a"] {
        trial.control(format!("{before}~b"), passes(before, b'~', false) && passes(before, b'~', true));
        let only: Vec<String> = characters()
            // The HTTP/2 library removes a fragment, so neither policy nor the upstream receives it.
            .filter(|byte| *byte != b'#')
            .filter(|byte| passes(before, *byte, true) && !passes(before, *byte, false))
            .map(|byte| format!("{byte:#04x}"))
            .collect();
        trial.attempt(format!("behind {before}: {}", only.join(" ")), !only.is_empty());
    }
}
