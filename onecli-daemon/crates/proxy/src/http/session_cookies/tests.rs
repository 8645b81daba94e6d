//! Tests of the syntax of cookies, and of which texts are masked.

use http::HeaderValue;
use onecli_model::Host;
use onecli_vault::SessionScope;
use proptest::prelude::*;

use super::set_cookie::SetCookie;
use super::watched::watched;
use super::*;

#[test]
fn cookie_name_and_attributes_are_retained() {
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
    // Text of another cookie in an attribute is removed, and so are unknown attributes.
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
fn cookie_scope_matches_client_rules() {
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
fn only_random_looking_values_are_masked_elsewhere() {
    let check = |name: &str, value: &str, expected: bool| {
        assert_eq!(!watched(name.as_bytes(), value.as_bytes()).is_empty(), expected, "{name}={value}");
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
    // Letters only, digits only, and with the characters of base64url.
    check("a", "kTqZbWnXcVmLpRsD", true);
    check("a", "internationally", false);
    check("a", "AbCdEf-GhIjKlMnOpQrStUv", true);
    check("a", "dark-mode_enabled/by+default", false);
    check("a", "480210937746", true);
    check("a", "1764489600", false);
    check("a", "kTq3Z-Wn7X_1", true);
    check("a", "1.2.3-rc1", false);
    // The name alone decides.
    check("PHPSESSID", "abcdefgh", true);
    check("connect.sid", "abcdefgh", true);
    check("x-auth-token", "12345678", true);
    check("session", "short", false);
}

/// A service repeats the decoded value, or a part of it.
#[test]
fn session_is_masked_in_forms_that_frameworks_repeat() {
    const ID: &str = "kTqZb3WnXcVm7LpRsD2f";
    const SIGNATURE: &str = "9pLk2mNbVcXz4aSdFgHj";
    let check = |value: &str, expected: &[&str]| {
        let all = watched(b"a", value.as_bytes());
        let all: Vec<&str> = all.iter().map(|one| std::str::from_utf8(one.expose()).unwrap()).collect();
        assert_eq!(all, expected, "{value}");
    };
    check(ID, &[ID]);
    check(&format!("\"{ID}\""), &[&format!("\"{ID}\""), ID]);
    check(&format!("%22{ID}%22"), &[&format!("%22{ID}%22"), &format!("\"{ID}\""), ID]);
    let express = format!("s:{ID}.{SIGNATURE}");
    check(&express.replace(':', "%3A"), &[&express.replace(':', "%3A"), &express, ID, SIGNATURE]);
    check(&format!("{ID}%3D%3D"), &[&format!("{ID}%3D%3D"), &format!("{ID}==")]);
    check(&format!("{ID}%252f"), &[&format!("{ID}%252f"), &format!("{ID}/")]);
    check(&format!("en|{ID}"), &[&format!("en|{ID}"), ID]);
    let json = format!("j:{{\"t\":\"{ID}\"}}");
    let encoded = json.replace(':', "%3A").replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
    check(&encoded, &[&encoded, &json, ID]);
    check("en.us", &[]);
}

#[test]
fn attributes_cannot_carry_a_session() {
    let check = |field: &str, written: &str| {
        let host: Host = "www.a.test".parse().unwrap();
        let cookie = SetCookie::parse(field.as_bytes()).set_by(&host);
        assert_eq!(String::from_utf8(cookie.with_value(b"NEW")).unwrap(), written, "{field}");
    };
    check("a=1; Path=/app/v2; Domain=.a.test", "a=NEW; Path=/app/v2; Domain=.a.test");
    check("a=1; Path=/Zq7Rk2Lm9Xw4Tn8V", "a=NEW; Path=/");
    check("a=1; Path=/app/Zq7Rk2Lm9Xw4Tn8V/x; Secure", "a=NEW; Path=/app/; Secure");
    check("a=1; Path=%2F%5A%71%37%52%6B", "a=NEW; Path=");
    check("a=1; Domain=Zq7Rk2Lm.www.a.test; HttpOnly", "a=NEW; HttpOnly");
    check("a=1; Domain=Zq7Rk2Lm; Domain=a.test", "a=NEW; Domain=a.test");
    check("a=1; Max-Age=Zq7Rk2Lm; Expires=Zq7Rk2Lm", "a=NEW");
    check(
        "a=1; Max-Age=-1; Expires=Wednesday, 21-Oct-15 07:28:00 GMT",
        "a=NEW; Max-Age=-1; Expires=Wednesday, 21-Oct-15 07:28:00 GMT",
    );
    check(
        "a=1; Expires=Thu Jan 01 1970 00:00:00 GMT+0000",
        "a=NEW; Expires=Thu Jan 01 1970 00:00:00 GMT+0000",
    );
    check("a=1; Max-Age=12345678901; Expires=Wed, 12345678901234567", "a=NEW");
    check("a=1; SameSite=Zq7Rk2Lm; Priority=Zq7Rk2Lm", "a=NEW");
    check("a=1; SameSite=LAX; Priority=high", "a=NEW; SameSite=LAX; Priority=high");
}

#[test]
fn tally_text_lists_nonzero_counts() {
    assert_eq!(Tally::default().text(), None);
    let tally = Tally { opened: 1, removed: 0, sealed: 2, dropped: 0 };
    assert_eq!(tally.to_string(), "opened 1, sealed 2");
}

proptest! {
    /// The value never occurs in the agent's field, whatever a service sends, and the field remains valid.
    #[test]
    fn value_never_remains_in_the_field(name in "[a-zA-Z_-]{0,8}", value in "[!-:<-~]{1,40}", rest in "(; ?[ -~]{0,20}){0,3}") {
        let field = format!("{name}=0{value}0{rest}");
        let cookie = SetCookie::parse(field.as_bytes());
        let written = cookie.with_value(b"NEW");
        prop_assert!(HeaderValue::from_bytes(&written).is_ok());
        let whole = format!("0{value}0");
        prop_assert_eq!(cookie.value, whole.as_bytes());
        prop_assert_eq!(SetCookie::parse(&written).value, b"NEW");
    }
}
