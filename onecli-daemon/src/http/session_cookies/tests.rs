//! The syntax of cookies, and what may be masked.

use http::HeaderValue;
use proptest::prelude::*;

use super::set_cookie::SetCookie;
use super::*;
use crate::model::Host;
use crate::vault::SessionScope;

#[test]
fn a_cookie_keeps_its_name_and_its_attributes() {
    let check = |field: &str, name: &str, value: &str, written: &str| {
        let cookie = SetCookie::parse(field.as_bytes());
        assert_eq!((cookie.name, cookie.value), (name.as_bytes(), value.as_bytes()), "{field}");
        assert_eq!(String::from_utf8(cookie.with_value(b"NEW")).unwrap(), written, "{field}");
    };
    check("a=b", "a", "b", "a=NEW");
    check(" a = b ;Path=/ ; HttpOnly", "a", "b", "a=NEW; Path=/; HttpOnly");
    check("a=b=c; samesite=none;Secure", "a", "b=c", "a=NEW; samesite=none; Secure");
    check("a=\"b c\"; Max-Age=5", "a", "\"b c\"", "a=NEW; Max-Age=5");
    // Without a name.
    check("token; Path=/", "", "token", "NEW; Path=/");
    check("=token", "", "token", "=NEW");
    let date = "a=b; Expires=Wed, 21 Oct 2015 07:28:00 GMT; Priority=High; Partitioned";
    check(date, "a", "b", "a=NEW; Expires=Wed, 21 Oct 2015 07:28:00 GMT; Priority=High; Partitioned");
    // What an attribute could carry of another cookie goes, and what no client knows.
    check("a=b; Path=/, sid=OTHER; HttpOnly", "a", "b", "a=NEW; Path=/; HttpOnly");
    check(
        "a=b; Expires=Wed, 21 Oct 2015 07:28:00 GMT, sid=OTHER",
        "a",
        "b",
        "a=NEW; Expires=Wed, 21 Oct 2015 07:28:00 GMT",
    );
    check("a=b; copy=OTHER; Secure=OTHER; OTHER", "a", "b", "a=NEW; Secure");
    check("a=1, sid=OTHER; Path=/", "a", "1, sid=OTHER", "a=NEW; Path=/");
}

#[test]
fn the_scope_is_that_of_a_client() {
    let check = |host: &str, field: &str, expected: SessionScope| {
        let host: Host = host.parse().unwrap();
        assert_eq!(SetCookie::parse(field.as_bytes()).scope(&host), expected, "{host} {field}");
    };
    let own = |host: &str| SessionScope::Host(host.to_owned());
    let domain = |host: &str| SessionScope::Domain(host.to_owned());
    check("api.example.com", "a=b", own("api.example.com"));
    check("api.example.com", "a=b; Domain=example.com", domain("example.com"));
    check("api.example.com", "a=b; domain=.Example.COM", domain("example.com"));
    check("api.example.com", "a=b; Domain=api.example.com", domain("api.example.com"));
    check("api.example.com", "a=b; Domain=x.test; Domain=example.com", domain("example.com"));
    for refused in ["com", "co.uk", "other.com", "x.api.example.com", "le.com", "", "."] {
        check("api.example.com", &format!("a=b; Domain={refused}"), own("api.example.com"));
    }
    check("a.github.io", "a=b; Domain=github.io", own("a.github.io"));
    check("192.0.2.1", "a=b; Domain=2.1", own("192.0.2.1"));
}

#[test]
fn only_what_looks_random_is_masked_elsewhere() {
    let check = |name: &str, value: &str, expected: bool| {
        assert_eq!(watched(name.as_bytes(), value.as_bytes()).is_some(), expected, "{name}={value}");
    };
    check("JSESSIONID", "9F86D081884C7D65", true);
    check("sid", "abc12345", true);
    check("sid", "s%3Aab.cd+ef/1234567", true);
    check("lang", "en-US", false);
    check("tz", "America/New_York", false);
    check("seen", "2026-11-30", false);
    check("n", "12345678", false);
    check("a", "1", false);
    check("XSRF-TOKEN", "9F86D081884C7D65", false);
    check("__Host-csrf", "9F86D081884C7D65", false);
}

#[test]
fn a_tally_tells_what_was_done() {
    assert_eq!(Tally::default().text(), None);
    let tally = Tally { opened: 1, removed: 0, sealed: 2, dropped: 0 };
    assert_eq!(tally.to_string(), "opened 1, sealed 2");
}

proptest! {
    /// Whatever a service sends, its value does not stand in what the agent gets, and the field stays valid.
    #[test]
    fn no_value_stays(name in "[a-zA-Z_-]{0,8}", value in "[!-:<-~]{1,40}", rest in "(; ?[ -~]{0,20}){0,3}") {
        let field = format!("{name}=0{value}0{rest}");
        let cookie = SetCookie::parse(field.as_bytes());
        let written = cookie.with_value(b"NEW");
        prop_assert!(HeaderValue::from_bytes(&written).is_ok());
        let whole = format!("0{value}0");
        prop_assert_eq!(cookie.value, whole.as_bytes());
        prop_assert_eq!(SetCookie::parse(&written).value, b"NEW");
    }
}
