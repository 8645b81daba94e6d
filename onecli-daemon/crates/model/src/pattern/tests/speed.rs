//! The cost of matching the worst paths. `cargo xtask bench --paths` prints it for a release build.

use std::hint::black_box;
use std::time::{Duration, Instant};

use http::Method;

use super::*;
use crate::Operations;
use crate::operation::Asked;
use crate::path::MAX_PATH;
use crate::path::MAX_SEGMENTS;
use crate::template::Template;

/// The time limit in a release build for one pattern or all denials of a template, including the readings of the
/// path.
const BOUND: Duration = Duration::from_millis(1);
const ROUNDS: u32 = 20;

/// Paths at their limits that are hard for a matcher.
fn worst_paths() -> Vec<(&'static str, CanonicalPath)> {
    // As many repetitions as the limits permit, and one name in the remaining room.
    let fill = |block: &str| {
        let of = |count: usize, name: usize| {
            CanonicalPath::parse(&format!("{}/{}", block.repeat(count), "a".repeat(name))).ok()
        };
        let count = (0..=MAX_SEGMENTS).rev().find(|count| of(*count, 0).is_some()).unwrap();
        let room = (0..MAX_PATH).step_by(64).rev();
        room.filter(|name| block.len() * count + name < MAX_PATH).find_map(|name| of(count, name)).unwrap()
    };
    [
        ("one long name", ""),
        ("short names", "/a"),
        ("names of a pattern", "/aaaaaaaaaaaaaaaaaaaaaaaaaaaab"),
        ("escapes", "/a%20A"),
        ("dot segments", "/a/.."),
        ("double escapes", "/%252e%252e"),
        ("triple escapes of everything", "/%25252e%253f%252561"),
        ("encoded slashes", "%2Fa"),
        ("encoded slashes of every depth", "/a%2Fb%255c%25252f%3b%253f"),
        ("parameters", "/a;b"),
        ("wide characters", "/%EF%BC%A1%EF%BC%8E"),
        ("characters that grow", "/%E3%8C%96%E3%8C%96"),
        ("wide characters, escaped twice", "/%25EF%25BC%258E%25EF%25BC%258F"),
        ("broken escapes", "/%u002e%"),
        ("capitals", "/ADMIN."),
    ]
    .map(|(name, block)| (name, if block.is_empty() { long_name() } else { fill(block) }))
    .into()
}

fn long_name() -> CanonicalPath {
    CanonicalPath::parse(&format!("/{}", "a".repeat(MAX_PATH - 1))).unwrap()
}

fn best(mut measured: impl FnMut() -> bool) -> Duration {
    let rounds = if cfg!(debug_assertions) { 1 } else { ROUNDS };
    let once = |_| {
        #[expect(clippy::disallowed_methods, reason = "it measures real time")]
        let started = Instant::now();
        black_box(measured());
        started.elapsed()
    };
    (0..rounds).map(once).min().unwrap()
}

/// The worst path for each kind of pattern, at the limits of both, and for each template's denials.
#[test]
fn worst_paths_cost_less_than_a_millisecond() {
    let block = |part: &str| part.repeat(MAX_PATTERN_SEGMENTS / 2 - 2);
    let patterns = [
        ("literal", "/a".repeat(MAX_PATTERN_SEGMENTS)),
        ("one '**'", "/**/a/b".to_owned()),
        ("two '**'", "/a/**/a/**".to_owned()),
        ("many '**'", format!("{}/b", "/**/a".repeat(MAX_PATTERN_SEGMENTS / 2 - 1))),
        ("a long block behind '**'", format!("/**{}/b/**", block("/a"))),
        ("globs behind '**'", format!("/**{}/b/**", block("/a*a*b"))),
        ("a name of many '*'", format!("/**/{}c", "a*".repeat(500))),
    ];
    let paths = worst_paths();
    let mut worst: Vec<((Duration, &str), String)> = Vec::new();
    let mut note = |kind: String, measure: &dyn Fn(&PathReadings<'_>) -> bool| {
        let times = paths.iter().map(|(name, path)| (best(|| measure(&PathReadings::new(path))), *name));
        worst.push((times.max().unwrap(), kind));
    };
    for (name, text) in &patterns {
        let pattern: PathPattern = text.parse().unwrap();
        note(format!("allowing, {name}"), &|path| pattern.matches(path));
        note(format!("allowing encoded slashes, {name}"), &|path| pattern.matches_opaque(path));
        note(format!("restricting, {name}"), &|path| pattern.matches_any_spelling(path));
    }
    for template in Template::all().iter().filter(|template| !template.denials.is_empty()) {
        note(format!("denials of {}", template.name), &|path| {
            // At a host of the operator's own, denials also apply behind prefixes.
            let host = "api.test".parse().unwrap();
            let operations = Operations::default();
            template.denies(&Asked { method: &Method::POST, host: &host, path, operations: &operations })
        });
    }
    let parsing =
        paths.iter().map(|(name, path)| (best(|| CanonicalPath::parse(path.as_str()).is_ok()), *name));
    worst.push((parsing.max().unwrap(), "parsing".to_owned()));
    worst.sort();
    for ((time, path), kind) in &worst {
        println!("{time:>12.3?}  {kind}: {path}");
    }
    let ((slowest, _), _) = worst.last().unwrap();
    if !cfg!(debug_assertions) {
        assert!(*slowest < BOUND, "{slowest:?}");
    }
}
