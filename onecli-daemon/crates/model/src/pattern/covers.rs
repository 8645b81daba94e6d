//! Comparison of path patterns: whether one contains another. It uses only their segments, and is `false` if that
//! does not suffice.

/// Returns whether `wide` matches every path that `narrow` matches.
///
/// It does if they are the same text or `wide` is `/**`. It also does if each segment of `wide` is `*` or equals that
/// of `narrow`. A `**` at the end of `wide` covers the rest of `narrow` if that has at least one segment. Any other
/// `**`, and a `*` beside other text, covers only identical text.
pub(super) fn covers(wide: &str, narrow: &str) -> bool {
    if wide == narrow || wide == super::EVERYTHING {
        return true;
    }
    let (wide, narrow) = (segments(wide), segments(narrow));
    match wide.split_last() {
        Some((&"**", before)) => {
            let Some((beginning, rest)) = narrow.split_at_checked(before.len()) else { return false };
            each_covers(before, beginning) && is_something(rest)
        }
        _ => wide.len() == narrow.len() && each_covers(&wide, &narrow),
    }
}

fn segments(pattern: &str) -> Vec<&str> {
    pattern.split('/').skip(1).collect()
}

fn each_covers(wide: &[&str], narrow: &[&str]) -> bool {
    let is_single = |segment: &str| segment != "**";
    let covers = |(wide, narrow): (&&str, &&str)| {
        is_single(wide) && is_single(narrow) && (wide == narrow || (*wide == "*" && !narrow.is_empty()))
    };
    wide.iter().zip(narrow).all(covers)
}

/// Returns whether the rest of a pattern matches at least one segment. Servers may ignore an empty segment at its
/// end.
fn is_something(rest: &[&str]) -> bool {
    rest == ["**"] || rest.iter().any(|segment| !matches!(*segment, "" | "**"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CanonicalPath;
    use crate::PathPattern;
    use crate::PathReadings;

    #[test]
    fn covered_patterns_are_detected() {
        for (wide, narrow, expected) in [
            ("/**", "/a/**/b", true),
            ("/v1/**", "/v1/**", true),
            ("/v1/**", "/v1/models", true),
            ("/v1/**", "/v1/models/*", true),
            ("/v1/**", "/v1/models/**", true),
            ("/v1/**", "/v1/**/x", true),
            ("/repos/*/*/**", "/repos/acme/x/issues", true),
            ("/repos/*/x", "/repos/a-*/x", true),
            ("/v1/**", "/v1", false),
            ("/v1/**", "/v1/", false),
            ("/v1/**", "/v2/x", false),
            ("/v1/**", "/*/x", false),
            ("/v1/**", "/**", false),
            ("/v1/**", "/**/x", false),
            ("/v1/*", "/v1/**", false),
            ("/v1/*", "/v1/a/b", false),
            ("/v1/*", "/v1/", false),
            ("/v1/a", "/v1/*", false),
            ("/v1/a", "/v1/A", false),
            // True, but not evident from the segments.
            ("/v1/a*", "/v1/ab", false),
            ("/**/x", "/a/x", false),
        ] {
            assert_eq!(covers(wide, narrow), expected, "{wide} {narrow}");
        }
    }

    /// Every reported cover holds, for all patterns and paths of a small alphabet.
    #[test]
    fn covering_pattern_matches_all_covered_paths() {
        let parts = ["a", "%41", "*", "a*", "**", ""];
        let names = ["a", "b", "ab", "%61", "", "a%2Fb"];
        let texts = |parts: &[&str]| -> Vec<String> {
            let one = parts.iter().map(|one| format!("/{one}"));
            let two = parts.iter().flat_map(|one| parts.iter().map(move |two| format!("/{one}/{two}")));
            let three = two.clone().flat_map(|two| parts.iter().map(move |three| format!("{two}/{three}")));
            one.chain(two).chain(three).collect()
        };
        let patterns: Vec<PathPattern> = texts(&parts).iter().filter_map(|text| text.parse().ok()).collect();
        let paths: Vec<CanonicalPath> =
            texts(&names).iter().filter_map(|text| CanonicalPath::parse(text).ok()).collect();
        let readings: Vec<PathReadings<'_>> = paths.iter().map(PathReadings::new).collect();
        let mut covered = 0;
        for wide in &patterns {
            for narrow in patterns.iter().filter(|narrow| wide.covers(narrow)) {
                covered += 1;
                for path in &readings {
                    assert!(!narrow.matches(path) || wide.matches(path), "{wide} {narrow}");
                    assert!(!narrow.matches_opaque(path) || wide.matches_opaque(path), "{wide} {narrow}");
                }
            }
        }
        assert!(covered > 1000, "{covered}");
    }
}
