//! The syntax of rules, and the requests that each rule matches.

use proptest::prelude::*;

use super::*;
use crate::CanonicalPath;

fn text(action: Action) -> RuleText {
    RuleText {
        action,
        host: None,
        port: None,
        methods: Vec::new(),
        paths: Vec::new(),
        address: None,
        rate: None,
        tunnel: false,
    }
}

fn terms(action: Action, host: &str, paths: &[&str]) -> RuleSpec {
    let paths = paths.iter().map(ToString::to_string).collect();
    let rate = (action == Action::Limit).then(|| "1/s".to_owned());
    RuleSpec::try_from(RuleText { host: Some(host.to_owned()), paths, rate, ..text(action) }).unwrap()
}

#[test]
fn rule_texts_are_validated() {
    let refused = |text: RuleText| RuleSpec::try_from(text).unwrap_err().to_string();
    let host = |host: &str| Some(host.to_owned());
    for (rule, says) in [
        (RuleText { host: host("**.com"), ..text(Action::Allow) }, "public suffix"),
        (
            RuleText { host: host("*.co.uk"), rate: Some("1/s".into()), ..text(Action::Limit) },
            "public suffix",
        ),
        (RuleText { host: host("a.*.com"), ..text(Action::Deny) }, "at the beginning"),
        (RuleText { host: host("u@h"), ..text(Action::Deny) }, "user information"),
        (RuleText { host: host("x.test"), paths: vec!["/a/../b".into()], ..text(Action::Deny) }, "segment"),
        (RuleText { host: host("x.test"), paths: vec!["a".into()], ..text(Action::Deny) }, "'/'"),
        (RuleText { host: host("x.test"), methods: vec!["CONNECT".into()], ..text(Action::Deny) }, "CONNECT"),
        (RuleText { host: host("x.test"), port: Some("0".into()), ..text(Action::Allow) }, "port"),
        (RuleText { host: host("x.test"), port: Some("70000".into()), ..text(Action::Allow) }, "port"),
        (RuleText { address: Some("10.0.0/8".into()), ..text(Action::Allow) }, "network"),
        (RuleText { address: Some("::ffff:10.0.0.0/104".into()), ..text(Action::Deny) }, "network"),
        (RuleText { host: host("x.test"), ..text(Action::Limit) }, "rate"),
        (RuleText { host: host("x.test"), rate: Some("1/s".into()), ..text(Action::Allow) }, "rate"),
        (RuleText { rate: Some("0/s".into()), ..text(Action::Limit) }, "rate"),
        (RuleText { rate: Some("1/w".into()), ..text(Action::Limit) }, "rate"),
        (RuleText { rate: Some("-1/s".into()), ..text(Action::Limit) }, "rate"),
        (RuleText { address: Some("10.0.0.0/8".into()), ..text(Action::Approve) }, "address"),
        (text(Action::Allow), "--host"),
    ] {
        let message = refused(rule.clone());
        assert!(message.contains(says), "{rule:?}: {message}");
    }
    // Hosts of any owner: refusing them is safe.
    assert!(RuleSpec::try_from(RuleText { host: host("**.com"), ..text(Action::Deny) }).is_ok());
    assert!(RuleSpec::try_from(RuleText { host: host("*"), ..text(Action::Allow) }).is_ok());
    assert!(RuleSpec::try_from(text(Action::Deny)).is_ok());
}

#[test]
fn default_ports_depend_on_the_action() {
    let port = |action| terms(action, "x.test", &[]).port();
    assert_eq!([Action::Allow, Action::Limit, Action::Approve].map(port), [Some(443); 3]);
    assert_eq!(port(Action::Deny), None, "a host that is denied is denied on every port");
}

#[test]
fn rates() {
    let rate: Rate = "90/m".parse().unwrap();
    assert_eq!(
        (rate.count(), rate.window(), rate.to_string()),
        (90, Duration::from_mins(1), "90/m".to_owned())
    );
    assert_eq!("1/d".parse::<Rate>().unwrap().window(), Duration::from_hours(24));
}

/// No spelling evades a restriction, and no spelling widens a permission.
#[test]
fn spellings() {
    let check = |pattern: &str, path: &str, denied: bool, allowed: bool| {
        let path = CanonicalPath::parse(path).unwrap();
        let about = |action| {
            terms(action, "x.test", &[pattern]).is_about(&Method::GET, &PathReadings::new(&path)).is_ok()
        };
        assert_eq!(about(Action::Deny), denied, "deny {pattern} {path}");
        assert_eq!(about(Action::Limit), denied, "limit {pattern} {path}");
        assert_eq!(about(Action::Approve), denied, "approve {pattern} {path}");
        assert_eq!(about(Action::Allow), allowed, "allow {pattern} {path}");
    };
    check("/admin/**", "/admin/x", true, true);
    check("/admin/**", "/admin", true, false);
    check("/admin", "/admin/", true, false);
    check("/admin", "/ADMIN", true, false);
    check("/admin", "/%61dmin", true, true);
    check("/a:b", "/a%3Ab", true, false);
    check("/$batch", "/%24batch", true, false);
    check("/admin/**", "/x/../admin/y", true, false);
    check("/admin/**", "/x%2f..%2fadmin", true, false);
    check("/admin/**", "//admin", true, false);
    check("/admin/**", "/admin;x", true, false);
    check("/admin/**", "/%2561dmin", true, false);
    check("/admin/**", "/administrator", false, false);
    check("/admin/**", "/v1/admin", false, false);
    check("/**", "/any//thing", true, true);
    let head = |action| terms(action, "x.test", &[]);
    let get =
        |action| RuleSpec { methods: MethodSet::try_from(vec!["GET".to_owned()]).unwrap(), ..head(action) };
    let path = CanonicalPath::parse("/").unwrap();
    assert!(get(Action::Deny).is_about(&Method::HEAD, &PathReadings::new(&path)).is_ok());
    assert_eq!(get(Action::Allow).is_about(&Method::HEAD, &PathReadings::new(&path)), Err(Mismatch::Method));
}

#[test]
fn networks_are_evaluated_by_address_or_later() {
    let rule = |action, host: Option<&str>, address: &str| {
        let host = host.map(str::to_owned);
        let port = Some("*".to_owned());
        RuleSpec::try_from(RuleText { host, port, address: Some(address.to_owned()), ..text(action) })
            .unwrap()
    };
    let check = |terms: &RuleSpec, target: &str, expected: Result<(), Mismatch>| {
        assert_eq!(
            terms.judges(&Authority::parse(target, Some(443)).unwrap()),
            expected,
            "{target} {terms:?}"
        );
    };
    let allow = rule(Action::Allow, None, "10.0.0.0/8");
    check(&allow, "10.1.2.3", Ok(()));
    check(&allow, "11.1.2.3", Err(Mismatch::Address));
    check(&allow, "evil.test", Err(Mismatch::Address));
    let named = rule(Action::Allow, Some("db.test"), "10.0.0.0/8");
    check(&named, "db.test", Ok(()));
    check(&named, "evil.test", Err(Mismatch::Host));
    check(&named, "10.1.2.3", Err(Mismatch::Host));
    let deny = rule(Action::Deny, None, "10.0.0.0/8");
    check(&deny, "10.1.2.3", Ok(()));
    check(&deny, "[64:ff9b::a01:203]", Ok(()));
    check(&deny, "any.test", Err(Mismatch::AddressLater));
    check(&deny, "11.1.2.3", Err(Mismatch::Address));
}

fn some_path() -> impl Strategy<Value = String> {
    proptest::collection::vec("[a-cA-C]{1,2}|%2[eEfF5]|%6[1-3]|\\.\\.?|;|", 1..5)
        .prop_map(|segments| format!("/{}", segments.join("/")))
}

fn some_pattern() -> impl Strategy<Value = String> {
    proptest::collection::vec("[a-c]{1,2}|\\*\\*|\\*|a\\*", 1..4)
        .prop_map(|segments| format!("/{}", segments.join("/")))
}

proptest! {
    /// A pattern that matches a path in a permission also matches it in a restriction.
    #[test]
    fn restrictions_match_all_allowed_paths(pattern in some_pattern(), path in some_path()) {
        let (pattern, path) = (pattern.parse::<PathPattern>().unwrap(), CanonicalPath::parse(&path).unwrap());
        let path = PathReadings::new(&path);
        prop_assert!(!pattern.matches(&path) || pattern.matches_any_spelling(&path));
    }

    /// Letter case, escapes of unreserved characters and a slash at the end do not evade a restriction.
    #[test]
    fn respelling_does_not_evade_restrictions(pattern in some_pattern(), plain in "(/[a-c]{1,2}){1,3}", mask in any::<u32>()) {
        let pattern = pattern.parse::<PathPattern>().unwrap();
        let odd: String = plain.chars().enumerate().map(|(at, c)| match (mask >> (2 * (at % 16))) & 3 {
            1 if c != '/' => c.to_ascii_uppercase().to_string(),
            2 if c != '/' => format!("%{:02x}", u32::from(c)),
            _ => c.to_string(),
        }).collect();
        let odd = if mask & 1 == 1 { odd + "/" } else { odd };
        let (plain, odd) = (CanonicalPath::parse(&plain).unwrap(), CanonicalPath::parse(&odd).unwrap());
        let matches = |path| pattern.matches_any_spelling(&PathReadings::new(path));
        prop_assert!(!matches(&plain) || matches(&odd), "{} {} {}", pattern, plain, odd);
    }

    /// Terms are equal after they are written and parsed again.
    #[test]
    fn terms_round_trip(
        action in prop_oneof![Just(Action::Allow), Just(Action::Deny), Just(Action::Approve)],
        host in prop_oneof![Just(None), Just(Some("*")), Just(Some("*.x.test")), Just(Some("api.test"))],
        port in prop_oneof![Just(None), Just(Some("*")), Just(Some("8443"))],
        paths in proptest::collection::vec(some_pattern(), 0..3),
        methods in proptest::sample::subsequence(vec!["GET", "POST", "PUT"], 0..3),
    ) {
        let text = RuleText {
            host: host.map(str::to_owned),
            port: port.map(str::to_owned),
            paths,
            methods: methods.into_iter().map(str::to_owned).collect(),
            ..text(action)
        };
        if let Ok(terms) = RuleSpec::try_from(text) {
            prop_assert_eq!(RuleSpec::try_from(RuleText::from(terms.clone())).unwrap(), terms);
        }
    }
}
