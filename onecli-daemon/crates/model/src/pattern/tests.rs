//! Parsing of patterns, and the paths and hosts that they match.

use super::*;

mod speed;

#[test]
fn host_patterns() {
    let check = |pattern: &str, host: &str, expected: bool| {
        let pattern: HostPattern = pattern.parse().unwrap();
        assert_eq!(pattern.matches(&host.parse().unwrap()), expected, "{pattern} {host}");
    };
    check("api.example.com", "API.example.com.", true);
    check("api.example.com", "xapi.example.com", false);
    check("*.example.com", "a.example.com", true);
    check("*.example.com", "a.b.example.com", false);
    check("*.example.com", "example.com", false);
    check("*.example.com", "aexample.com", false);
    check("**.example.com", "a.b.example.com", true);
    check("**.example.com", "example.com", false);
    check("**.example.com", "evilexample.com", false);
    check("127.0.0.1", "127.0.0.1", true);
    check("::1", "[::1]", true);
}

#[test]
fn bad_host_patterns_are_refused() {
    for pattern in [
        "*",
        "**",
        "*.com",
        "**.co.uk",
        "*.github.io",
        "a.*.com",
        "a*.example.com",
        "*.127.0.0.1",
        "*.",
        "a b",
        "u@h",
        "*.*.example.com",
        "",
    ] {
        assert!(pattern.parse::<HostPattern>().is_err(), "{pattern:?}");
    }
}

#[test]
fn path_patterns() {
    let check = |pattern: &str, path: &str, expected: bool| {
        let parsed: PathPattern = pattern.parse().unwrap();
        let canonical = CanonicalPath::parse(path).unwrap();
        assert_eq!(parsed.matches(&PathReadings::new(&canonical)), expected, "{pattern} {path}");
    };
    check("/**", "/", true);
    check("/**", "/a/../b", true);
    check("/v1/**", "/v1/a/b", true);
    check("/v1/**", "/v1/", true);
    check("/v1/**", "/v1", false);
    check("/v1/**", "/v1/../admin", false);
    check("/v1/**", "/v1/%2e%2e/admin", false);
    check("/v1/**", "/v1/a%2f..", false);
    check("/v1/**", "/v10/a", false);
    check("/v1/*/items", "/v1/7/items", true);
    check("/v1/*/items", "/v1/7/8/items", false);
    check("/v1/*/items", "/v1//items", false);
    check("/a/**/b", "/a/b", true);
    check("/a/**/b", "/a/x/y/b", true);
    check("/a/**/b", "/a/x/y/c", false);
    check("/a/**/b/**", "/a/x/b/", true);
    check("/a/**/b/**", "/a/x/b", false);
    check("/models/gpt-*", "/models/gpt-5", true);
    check("/models/gpt-*", "/models/claude", false);
    check("/v1/chat", "/v1/%63hat", true);
    check("/v1/chat", "/v1/chat/", false);
    // With a full-width slash or question mark: all readings are contained.
    check("/v1/**", "/v1/a%EF%BC%8Fb", true);
    check("/v1/*", "/v1/a%EF%BC%8Fb", false);
    check("/v1/*/c", "/v1/a%EF%BC%9Fb/c", false);
    check("/v1/*.txt", "/v1/%EF%BC%91.txt", true);
}

/// Restrictions match each way in which a server may read the path.
#[test]
fn restrictions_match_compatible_characters() {
    let check = |pattern: &str, path: &str, expected: bool| {
        let parsed: PathPattern = pattern.parse().unwrap();
        let canonical = CanonicalPath::parse(path).unwrap();
        assert_eq!(parsed.matches_any_spelling(&PathReadings::new(&canonical)), expected, "{pattern} {path}");
    };
    check("/admin/**", "/%EF%BD%81dmin/x", true);
    check("/admin/**", "/ad%E2%80%8Bmin/x", true);
    check("/admin/**", "/admin%EF%BC%8Fx", true);
    check("/a/admin", "/a/admin%EF%BC%9Fx/y", true);
    check("/admin/x", "/admin:$I30:$INDEX_ALLOCATION/x", true);
    check("/admin/x", "/admin%20/x.", true);
    check("/stra%C3%9Fe", "/STRASSE", true);
    check("/admin/**", "/%E7%AE%A1%E7%90%86/x", false);
}

#[test]
fn long_patterns_are_refused() {
    assert!("/a".repeat(MAX_PATTERN_SEGMENTS).parse::<PathPattern>().is_ok());
    assert!("/a".repeat(MAX_PATTERN_SEGMENTS + 1).parse::<PathPattern>().is_err());
    assert!(format!("/{}", "a".repeat(MAX_PATTERN)).parse::<PathPattern>().is_err());
}

#[test]
fn bad_path_patterns_are_refused() {
    for pattern in ["", "v1", "/a/../b", "/a%2fb", "//a", "/a?b", "/a b", "/a;b"] {
        assert!(pattern.parse::<PathPattern>().is_err(), "{pattern:?}");
    }
}

#[test]
fn methods() {
    let set = MethodSet::try_from(vec!["get".to_owned(), "POST".to_owned()]).unwrap();
    assert!(set.contains(&Method::GET) && !set.contains(&Method::DELETE));
    assert!(MethodSet::default().contains(&Method::DELETE));
    assert!(!MethodSet::default().contains(&Method::TRACE));
    assert!(MethodSet::try_from(vec!["CONNECT".to_owned()]).is_err());
    assert!(MethodSet::try_from(vec!["GE T".to_owned()]).is_err());
}
