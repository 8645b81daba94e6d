//! Compares the matcher with one that tries every possibility.

use proptest::prelude::*;

use super::*;
use crate::CanonicalPath;
use crate::PathReadings;

/// Tries every way to match, one after another. The compiled matcher must agree.
fn naive(pattern: &[&str], path: &[&str], end: End) -> bool {
    match pattern {
        [] => path.is_empty(),
        ["**"] if end == End::Something => !path.is_empty(),
        ["**", rest @ ..] => (0..=path.len()).any(|cut| naive(rest, &path[cut..], end)),
        [own, rest @ ..] => path.split_first().is_some_and(|(name, others)| {
            naive_glob(own.as_bytes(), name.as_bytes()) && naive(rest, others, end)
        }),
    }
}

fn naive_glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', rest @ ..] => (0..=text.len()).any(|cut| naive_glob(rest, &text[cut..])),
        [own, rest @ ..] => text.first() == Some(own) && naive_glob(rest, &text[1..]),
    }
}

fn segments() -> impl Strategy<Value = Vec<&'static str>> {
    let some = ["a", "b", "ab", "aa", "aab", "ba", ""];
    prop::collection::vec(prop::sample::select(some.to_vec()), 1..9)
}

fn patterns() -> impl Strategy<Value = Vec<&'static str>> {
    let some = ["**", "**", "*", "a", "b", "a*", "*b", "*a*b*", "**a", "a**b", "aa", ""];
    prop::collection::vec(prop::sample::select(some.to_vec()), 1..7)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn matcher_agrees_with_exhaustive_search(pattern in patterns(), path in segments()) {
        let text = CanonicalPath::parse(&format!("/{}", path.join("/"))).unwrap();
        let readings = PathReadings::new(&text);
        for end in [End::Something, End::Anything] {
            let compiled = Globs::new(pattern.iter().copied(), end, str::to_owned);
            let expected = naive(&pattern, &path, end);
            prop_assert_eq!(compiled.matches(readings.plain()), expected, "{:?} {:?} {:?}", pattern, path, end);
        }
    }
    #[test]
    fn patterns_behind_prefixes_agree_with_exhaustive_search(
        pattern in patterns(),
        path in segments(),
        most in 0_usize..4,
    ) {
        let text = CanonicalPath::parse(&format!("/{}", path.join("/"))).unwrap();
        let readings = PathReadings::new(&text);
        let compiled = Globs::new(pattern.iter().copied(), End::Anything, str::to_owned).below(most);
        let mut prefixes = 0..=most.min(path.len());
        let expected = prefixes.any(|at| naive(&pattern, &path[at..], End::Anything));
        prop_assert_eq!(compiled.matches(readings.plain()), expected, "{:?} {:?} {}", pattern, path, most);
    }
}
