//! An unambiguous path has one interpretation: nginx, Apache, Node, Go and Python find the segments that policy
//! matched.

mod servers;

use std::time::{Duration, Instant};

use onecli_model::CanonicalPath;
use onecli_tests::need;
use percent_encoding::percent_decode_str;

use servers::Reader;

/// The number of seconds in which the test generates paths; `cargo xtask fuzz readings` sets it.
const SECONDS: &str = "ONECLI_READINGS_SECONDS";
/// The seed of the paths; a failure prints it.
const SEED: &str = "ONECLI_READINGS_SEED";
/// The minimum number of paths in one run.
const PATHS: u32 = 2_000;

/// The parts of paths: characters that parsers may treat specially.
const PARTS: &[&str] = &[
    "/",
    "/",
    "/",
    "/",
    "a",
    "b",
    "..",
    ".",
    "...",
    "%20",
    "%09",
    "%00",
    "%0a",
    "%2e",
    "%2E",
    "%2f",
    "%2F",
    "%5c",
    "\\",
    ";",
    "%3b",
    "%3F",
    "%23",
    "%25",
    "%252e",
    "%25%32%65",
    "%",
    "%2",
    "%zz",
    "%u002e",
    "%c0%ae",
    "%C0%AF",
    "%E2%80%A5",
    "%E2%80%A6",
    "%EF%BC%8E",
    "%EF%BC%8F",
    "%EF%BC%BC",
    "%EF%BC%9F",
    "%EF%BC%85",
    "%E3%80%80",
    "%C2%A0",
    "%E2%80%8B",
    "%EF%BB%BF",
    "%C3%A9",
    "%CC%88",
    "%F0%9F%98%80",
    "::$DATA",
    ":",
    "@",
    "+",
    "%2B",
    "~",
    "!",
    "'",
    "(",
    ")",
    "*",
    ",",
    "=",
    "&",
    "$",
    "[",
    "]",
    "|",
    "^",
    "{",
    "}",
    "%7f",
    "%80",
    "%61",
    "%41",
    "A",
    "//",
    "/./",
    "/../",
];

/// xorshift64*, so that a seed reproduces the paths.
struct Paths(u64);

impl Paths {
    fn draw(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % below
    }

    fn next(&mut self) -> String {
        let parts = 1 + self.draw(10);
        let parts: Vec<&str> = (0..parts).map(|_| PARTS[self.draw(PARTS.len())]).collect();
        format!("/{}", parts.concat())
    }
}

/// The matched segments, each decoded once. Servers disagree about a trailing slash, and patterns do not rely on it.
fn matched(path: &CanonicalPath) -> Vec<Vec<u8>> {
    let segments = path.segments().map(|segment| percent_decode_str(segment).collect());
    without_end(segments.collect())
}

fn without_end(mut segments: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    if segments.last().is_some_and(Vec::is_empty) {
        segments.pop();
    }
    segments
}

/// The number of servers that read `path`, and the deviations of their readings.
fn disagreements(readers: &mut [Reader], path: &CanonicalPath) -> (usize, Vec<String>) {
    let expected = matched(path);
    let (mut read, mut wrong) = (0, Vec::new());
    for reader in readers {
        let readings = reader.read(path.as_str());
        read += usize::from(!readings.is_empty());
        for reading in readings {
            let reading = without_end(reading);
            if reading != expected {
                let text: Vec<_> = reading.iter().map(|segment| String::from_utf8_lossy(segment)).collect();
                wrong.push(format!("{} reads {path} as {text:?}", reader.name()));
            }
        }
    }
    (read, wrong)
}

#[test]
fn unambiguous_paths_are_read_alike_by_all_servers() {
    let needs = [
        ("nginx", "nginx"),
        ("apache2", "apache2-bin"),
        ("node", "nodejs"),
        ("go", "golang-go"),
        ("python3", "python3"),
    ];
    if !needs.iter().all(|(program, package)| need::program("everything", program, package)) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut readers = servers::start(dir.path());
    let path = |text: &str| CanonicalPath::parse(text).unwrap();

    // Control: the readers do detect differences. These paths are ambiguous, and at least one server shows why.
    for odd in ["/a/../b", "/a//b", "/a/..%2fb", "/a/./b", "/a%2fb"] {
        let odd = path(odd);
        assert!(odd.ambiguity().is_some(), "{odd}");
        assert!(!disagreements(&mut readers, &odd).1.is_empty(), "every server reads {odd} literally");
    }
    let (read, wrong) = disagreements(&mut readers, &path("/a/b%20c/%C3%A9"));
    assert_eq!((read, wrong), (readers.len(), Vec::new()), "all servers read a plain path");

    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number(SEED).unwrap_or(0x5eed_0f9a_7c5b_1d03);
    let until = Instant::now() + Duration::from_secs(number(SECONDS).unwrap_or(0));
    let mut paths = Paths(seed);
    let (mut tried, mut plain, mut answers) = (0_u32, 0_usize, 0_usize);
    while tried < PATHS || Instant::now() < until {
        tried += 1;
        let text = paths.next();
        let Ok(path) = CanonicalPath::parse(&text) else { continue };
        if path.ambiguity().is_some() {
            continue;
        }
        let (read, wrong) = disagreements(&mut readers, &path);
        assert!(wrong.is_empty(), "{SEED}={seed}, {text:?}: {}", wrong.join("; "));
        plain += 1;
        answers += read;
    }
    println!("{tried} paths, {plain} not ambiguous, {answers} readings");
    assert!(plain > usize::try_from(PATHS / 20).unwrap(), "{plain} of {tried} paths are not ambiguous");
    assert!(answers > plain * 4, "{answers} readings of {plain} paths");
}
