//! Rules: precedence, routes and addresses.

use std::time::Duration;

use onecli_model::Operations;
use onecli_model::{Action, Clock, Host, Rule, RuleId, RuleSpec, RuleText};
use onecli_sys::SystemClock;
use proptest::prelude::*;

use super::*;

/// A rule parsed from `action host port methods paths`, with `-` for an omitted part.
pub(super) fn rule(id: u32, agent: Option<u8>, line: &str) -> Rule {
    let words: Vec<&str> = line.split_whitespace().collect();
    let word = |at: usize| words.get(at).copied().filter(|word| *word != "-").map(str::to_owned);
    let list =
        |at: usize| word(at).map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default();
    let text = RuleText {
        action: words[0].parse().unwrap(),
        host: word(1),
        port: word(2),
        methods: list(3),
        paths: list(4),
        address: word(5),
        rate: word(6),
        tunnel: false,
    };
    let agent = agent.map(|n| AgentId(Uuid::from_u128(u128::from(n))));
    Rule { id: RuleId(id), agent, terms: RuleSpec::try_from(text).unwrap() }
}

fn rules(lines: &[&str]) -> Vec<Rule> {
    lines.iter().enumerate().map(|(at, line)| rule(u32::try_from(at).unwrap() + 1, None, line)).collect()
}

/// Agents 1 both (deny), 2 cgroup (deny), 4 open (allow); secret 1 api.test /v1/** granted to all.
pub(super) fn ruled(rules: Vec<Rule>) -> Snapshot {
    let agents = vec![
        agent(1, "both", Factors::BOTH, Egress::Deny),
        agent(2, "cgroup", Factors::CGROUP, Egress::Deny),
        agent(4, "open", Factors::CGROUP, Egress::Allow),
    ];
    let secrets = vec![secret(1, "api", "api.test", "/v1/**", Placement::bearer())];
    let grants =
        [1, 2, 4].map(|n| (AgentId(Uuid::from_u128(n)), SecretId(Uuid::from_u128(1)))).into_iter().collect();
    let input = SnapshotInput { agents, secrets, grants, rules, ..SnapshotInput::default() };
    Snapshot::compile(input, &stand_in)
}

pub(super) fn identity_of(world: &Snapshot, name: &str) -> Identity {
    world.identify(&evidence(CaptureMode::Transparent, Some(name), None), NOW).unwrap()
}

fn decided(world: &Snapshot, name: &str, method: &str, target: &str, trace: &mut Trace) -> DecisionOutcome {
    world.decide_traced(&identity_of(world, name), &PlainRequest::new(method, target).facts(), trace)
}

/// `inject grant`, `forward allow 2`, `deny rule_denied by deny 1`, with `approve N` and `limit N` behind it.
pub(super) fn summary(outcome: &DecisionOutcome) -> String {
    let reason = outcome.reason.map(|reason| reason.to_string()).unwrap_or_default();
    let mut text = match &outcome.decision {
        Decision::Inject(_) => format!("inject {reason}"),
        Decision::Forward => format!("forward {reason}"),
        Decision::Deny(refusal) => {
            format!("deny {} by {}", refusal.code, refusal.rule.as_deref().unwrap_or("-"))
        }
    };
    for rule in outcome.approve.iter().chain(&outcome.limits) {
        text = format!("{text}, {rule}");
    }
    text
}

#[test]
fn precedence() {
    let check = |lines: &[&str], name, method, target, expected: &str| {
        let world = ruled(rules(lines));
        let got = summary(&decided(&world, name, method, target, &mut Trace::none()));
        assert_eq!(got, expected, "{lines:?} {name} {method} {target}");
    };
    // Deny precedes everything, whatever the numbers.
    let all = ["allow api.test", "limit api.test - - - - 9/m", "approve api.test", "deny api.test - - /v1/x"];
    check(&all, "cgroup", "GET", "api.test/v1/x", "deny rule_denied by deny 4");
    check(&all, "cgroup", "GET", "api.test/v1/y", "inject grant, approve 3, limit 2");
    check(&all, "cgroup", "GET", "api.test/v2", "forward allow 1, approve 3, limit 2");
    check(&all, "cgroup", "GET", "api.test:8443/v1/y", "deny egress_denied by egress deny");
    // Every limit counts, and one approval is requested.
    let many = ["limit - - - - - 9/m", "limit api.test - - - - 1/s", "approve api.test", "approve -"];
    check(&many, "cgroup", "GET", "api.test/v1/y", "inject grant, approve 3, limit 1, limit 2");
    // A limit allows nothing; an approval rule allows the request.
    check(
        &["limit evil.test - - - - 9/m"],
        "cgroup",
        "GET",
        "evil.test/",
        "deny egress_denied by egress deny",
    );
    check(&["approve evil.test"], "cgroup", "GET", "evil.test/", "forward approve 1, approve 1");
    check(&["approve evil.test"], "open", "GET", "evil.test/", "forward approve 1, approve 1");
    // The default comes last.
    check(&[], "open", "GET", "evil.test/", "forward egress allow");
    check(&["deny evil.test"], "open", "GET", "evil.test:8080/", "deny rule_denied by deny 1");
    check(&["deny **.test"], "open", "GET", "a.b.test/", "deny rule_denied by deny 1");
    check(&["deny **.com"], "open", "GET", "api.com/", "deny rule_denied by deny 1");
    // Methods and paths.
    let fine = ["allow evil.test - GET /a/**"];
    check(&fine, "cgroup", "GET", "evil.test/a/b", "forward allow 1");
    check(&fine, "cgroup", "POST", "evil.test/a/b", "deny egress_denied by egress deny");
    check(&fine, "cgroup", "GET", "evil.test/b", "deny egress_denied by egress deny");
    check(&fine, "cgroup", "GET", "evil.test/a/../b", "deny egress_denied by egress deny");
    check(&["deny - - DELETE"], "cgroup", "DELETE", "api.test/v1/x", "deny rule_denied by deny 1");
    check(&["deny - - DELETE"], "cgroup", "GET", "api.test/v1/x", "inject grant");
    // A restriction may apply to an ambiguous path.
    check(&["deny evil.test - - /x"], "open", "GET", "evil.test/a/../x", "deny path_ambiguous by deny 1");
    check(&["limit evil.test - - /x - 1/s"], "open", "GET", "evil.test//x", "forward egress allow, limit 1");
    // Without its placeholder the agent gets no credential, and may continue only if a rule allows the request.
    check(&[], "both", "GET", "api.test/v1/x", "deny placeholder_missing by -");
    check(&["approve api.test"], "both", "GET", "api.test/v1/x", "deny placeholder_missing by -");
    check(&["allow api.test"], "both", "GET", "api.test/v1/x", "forward allow 1");
}

#[test]
fn rules_apply_to_their_agent_only() {
    let world = ruled(vec![rule(1, Some(1), "allow evil.test"), rule(2, Some(2), "deny api.test")]);
    let decide = |name, target| summary(&decided(&world, name, "GET", target, &mut Trace::none()));
    assert_eq!(decide("both", "evil.test/"), "forward allow 1");
    assert_eq!(decide("cgroup", "evil.test/"), "deny egress_denied by egress deny");
    assert_eq!(decide("cgroup", "api.test/v1/x"), "deny rule_denied by deny 2");
    assert_eq!(decide("open", "api.test/v1/x"), "inject grant");
}

/// An attack is reported as one, even if a rule also refuses the request.
#[test]
fn misplaced_placeholder_is_an_alert_despite_deny_rules() {
    let world = ruled(rules(&["deny evil.test", "allow other.test"]));
    for target in ["evil.test", "other.test"] {
        let path = CanonicalPath::parse("/").unwrap();
        let facts = RequestFacts {
            method: &Method::GET,
            authority: &Authority::parse(target, Some(443)).unwrap(),
            path: PathReadings::new(&path),
            tls: true,
            named: &[],
            placeholders: &[placeholder(4, 1)],
            body: &[],
            operations: &Operations::default(),
            sessions: &[],
        };
        let outcome = world.decide(&identity_of(&world, "open"), &facts);
        assert_eq!(summary(&outcome), "deny placeholder_misplaced by -", "{target}");
    }
}

#[test]
fn routes_follow_rules() {
    let check = |lines: &[&str], name, target, expected: &str| {
        let world = ruled(rules(lines));
        let route = world.route(&identity_of(&world, name), &Authority::parse(target, Some(443)).unwrap());
        let got = match route {
            Route::Inspect => "inspect".to_owned(),
            Route::Tunnel { reason, .. } => format!("tunnel {reason}"),
            Route::Deny(refusal) => format!("deny {}", refusal.code),
        };
        assert_eq!(got, expected, "{lines:?} {name} {target}");
    };
    check(&["allow x.test"], "cgroup", "x.test", "tunnel allow 1");
    check(&["allow x.test"], "cgroup", "x.test:8443", "deny egress_denied");
    check(&["allow x.test *"], "cgroup", "x.test:8443", "tunnel allow 1");
    check(&["allow *"], "cgroup", "x.test", "tunnel allow 1");
    check(&["allow *.x.test"], "cgroup", "a.x.test", "tunnel allow 1");
    check(&["allow x.test", "deny x.test"], "cgroup", "x.test", "deny rule_denied");
    check(&["deny x.test"], "open", "x.test", "deny rule_denied");
    check(&["deny api.test"], "cgroup", "api.test", "deny rule_denied");
    // Rules that depend on requests need them decrypted, if some may be allowed at all.
    for fine in ["deny x.test - POST", "allow x.test - - /a", "limit x.test - - - - 1/s", "approve x.test"] {
        check(&[fine, "allow x.test"], "cgroup", "x.test", "inspect");
        check(&[fine], "open", "x.test", "inspect");
        check(&[fine], "open", "y.test", "tunnel egress allow");
    }
    check(&["allow x.test - - /a"], "cgroup", "x.test", "inspect");
    check(&["approve x.test"], "cgroup", "x.test", "inspect");
    check(&["limit - - - - - 1/s"], "cgroup", "x.test", "deny egress_denied");
    check(&["deny x.test - POST"], "cgroup", "x.test", "deny egress_denied");
    // By address.
    check(&["allow - - - - 10.0.0.0/8"], "cgroup", "10.1.2.3", "tunnel allow 1");
    check(&["allow - - - - 10.0.0.0/8"], "cgroup", "x.test", "deny egress_denied");
    check(&["deny - - - - 203.0.113.0/24"], "open", "203.0.113.9", "deny rule_denied");
    check(&["deny - - - - 203.0.113.0/24"], "open", "x.test", "tunnel egress allow");
}

#[test]
fn names_are_resolved_only_if_allowed() {
    let check = |lines: &[&str], name, host: &str, expected: bool| {
        let world = ruled(rules(lines));
        let got = world.may_resolve(&identity_of(&world, name), &host.parse().unwrap());
        assert_eq!(got, expected, "{lines:?} {name} {host}");
    };
    check(&[], "cgroup", "x.test", false);
    check(&["allow x.test 22"], "cgroup", "x.test", true);
    check(&["approve x.test"], "cgroup", "x.test", true);
    check(&["limit x.test - - - - 1/s"], "cgroup", "x.test", false);
    check(&["deny x.test"], "open", "x.test", false);
    check(&["deny x.test 80"], "open", "x.test", true);
    check(&["deny x.test - POST"], "open", "x.test", true);
    check(&["deny api.test"], "cgroup", "api.test", false);
    // A network without a host allows no names: an agent could leak data in the names it resolves.
    check(&["allow - - - - 10.0.0.0/8"], "cgroup", "x.test", false);
    check(&["allow x.test - - - 10.0.0.0/8"], "cgroup", "x.test", true);
}

#[test]
fn unreadable_bytes_require_a_rule() {
    let check = |lines: &[&str], name, address: &str, expected: &[&str]| {
        let world = ruled(rules(lines));
        let got = world.unread(&identity_of(&world, name), address.parse().unwrap());
        let got: Vec<String> =
            got.iter().map(|(authority, _, reason)| format!("{authority} {reason}")).collect();
        assert_eq!(got, expected, "{lines:?} {name} {address}");
    };
    check(&[], "open", "192.0.2.1:22", &[]);
    check(&["allow - 22 - - 192.0.2.0/24"], "cgroup", "192.0.2.1:22", &["192.0.2.1:22 allow 1"]);
    check(&["allow - 22 - - 192.0.2.0/24"], "cgroup", "192.0.2.1:23", &[]);
    check(&["allow db.test 5432"], "cgroup", "10.0.0.5:5432", &["db.test:5432 allow 1"]);
    check(&["allow db.test 5432"], "cgroup", "10.0.0.5:5433", &[]);
    check(&["allow *.db.test 5432"], "cgroup", "10.0.0.5:5432", &[]);
    // If requests must be read, nothing passes unread.
    check(&["allow api.test"], "cgroup", "192.0.2.1:443", &[]);
    check(&["allow x.test", "deny x.test - POST"], "cgroup", "192.0.2.1:443", &[]);
    check(&["allow x.test", "deny x.test"], "cgroup", "192.0.2.1:443", &[]);
}

#[test]
fn address_rules_widen_and_restrict_reach() {
    let address_scope = |lines: &[&str], name, target| {
        let world = ruled(rules(lines));
        decided(&world, name, "GET", target, &mut Trace::none()).address_scope
    };
    let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect::<Vec<ipnet::IpNet>>();
    assert_eq!(address_scope(&[], "open", "x.test/"), AddressScope::open());
    let opened = address_scope(&["allow x.test - - - 10.0.0.0/8"], "cgroup", "x.test/");
    assert_eq!(opened, AddressScope { open: false, allowed: nets(&["10.0.0.0/8"]), denied: Vec::new() });
    // A grant allows public addresses, and those that a rule names for the host.
    let granted = address_scope(&["allow api.test - - - 10.0.0.0/8"], "cgroup", "api.test/v1/x");
    assert_eq!(granted, AddressScope { open: true, allowed: nets(&["10.0.0.0/8"]), denied: Vec::new() });
    let closed =
        address_scope(&["deny - - - - 203.0.113.0/24", "deny y.test - - - 10.0.0.0/8"], "open", "x.test/");
    assert_eq!(closed, AddressScope { open: true, allowed: Vec::new(), denied: nets(&["203.0.113.0/24"]) });
}

#[test]
fn running_requests_end_when_a_rule_denies_them() {
    let own = evidence(CaptureMode::Transparent, Some("cgroup"), None);
    let still = |lines: &[&str], target: &str, used: &[SecretId]| {
        let request = PlainRequest::new("GET", target);
        ruled(rules(lines))
            .still_allows(&own, NOW, AgentId(Uuid::from_u128(2)), &request.facts(), used)
            .is_some()
    };
    let api = [SecretId(Uuid::from_u128(1))];
    assert!(still(&[], "api.test/v1/x", &api));
    assert!(!still(&["deny api.test"], "api.test/v1/x", &api));
    assert!(!still(&["deny - - GET"], "api.test/v1/x", &api));
    assert!(still(&["deny - - POST"], "api.test/v1/x", &api));
    // Approval and limits were met at the start: neither is checked again.
    assert!(still(&["approve api.test", "limit api.test - - - - 1/d"], "api.test/v1/x", &api));
    assert!(still(&["approve x.test"], "x.test/", &[]));
    assert!(!still(&[], "x.test/", &[]), "the rule that allowed it is gone");
}

/// Every rule is recorded with its reason, and recording does not change the decision.
#[test]
fn trace_contains_the_reason_of_each_rule() {
    let world =
        ruled(rules(&["deny x.test", "allow y.test", "allow api.test - POST", "limit - - - - - 9/m"]));
    let mut trace = Trace::wanted();
    let outcome = decided(&world, "cgroup", "GET", "api.test/v1/x", &mut trace);
    assert_eq!(summary(&outcome), "inject grant, limit 4");
    let trace_lines: Vec<String> = trace
        .into_considered()
        .iter()
        .map(|one| {
            let subject = match &one.subject {
                Subject::Rule(rule) => rule.to_string(),
                Subject::Secret(secret) => secret.name.to_string(),
            };
            format!("{subject}: {:?}", one.mismatch)
        })
        .collect();
    let expected =
        ["deny 1: Some(Host)", "limit 4: None", "allow 2: Some(Host)", "allow 3: Some(Method)", "api: None"];
    assert_eq!(trace_lines, expected);
}

fn some_rule() -> impl Strategy<Value = String> {
    let action = prop_oneof![Just("allow"), Just("deny"), Just("approve"), Just("limit")];
    let host = proptest::sample::select(vec![
        "*",
        "a.x.test",
        "b.x.test",
        "x.test",
        "*.x.test",
        "**.x.test",
        "**.a.x.test",
        "y.test",
    ]);
    let port = proptest::sample::select(vec!["-", "443", "*", "8443"]);
    let methods = proptest::sample::select(vec!["-", "GET", "POST,PUT"]);
    let paths = proptest::sample::select(vec!["-", "/a/**", "/a", "/*/b"]);
    (action, host, port, methods, paths).prop_map(|(action, host, port, methods, paths)| {
        let rate = if action == "limit" { "1/s" } else { "-" };
        format!("{action} {host} {port} {methods} {paths} - {rate}")
    })
}

fn some_target() -> impl Strategy<Value = (&'static str, String)> {
    let host = proptest::sample::select(vec![
        "a.x.test",
        "b.x.test",
        "x.test",
        "y.a.x.test",
        "c.a.x.test",
        "y.test",
        "z.test",
        "192.0.2.1",
    ]);
    let port = proptest::sample::select(vec!["", ":8443"]);
    let path = proptest::sample::select(vec!["/", "/a", "/a/b", "/A/b", "/c/b", "//a", "/x/../a"]);
    (proptest::sample::select(vec!["GET", "POST", "HEAD"]), host, port, path)
        .prop_map(|(method, host, port, path)| (method, format!("{host}{port}{path}")))
}

proptest! {
    /// Rules found by host and rules considered one by one decide the same; and the order of precedence holds.
    #[test]
    fn lookup_by_host_decides_like_a_full_scan(
        lines in proptest::collection::vec(some_rule(), 0..12),
        (method, target) in some_target(),
        name in prop_oneof![Just("cgroup"), Just("open")],
    ) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let all = rules(&lines);
        let world = ruled(all.clone());
        let quick = decided(&world, name, method, &target, &mut Trace::none());
        let slow = decided(&world, name, method, &target, &mut Trace::wanted());
        prop_assert_eq!(summary(&quick), summary(&slow));
        prop_assert_eq!(&quick.address_scope, &slow.address_scope);
        prop_assert_eq!(quick.is_ruled, slow.is_ruled);

        let (authority, path) = target.split_at(target.find('/').unwrap());
        let authority = Authority::parse(authority, Some(443)).unwrap();
        let path = CanonicalPath::parse(path).unwrap();
        let verb = Method::from_bytes(method.as_bytes()).unwrap();
        let applies = |action: Action| all.iter().any(|rule| {
            rule.terms.action() == action
                && rule.terms.judges(&authority).is_ok()
                && rule.terms.is_about(&verb, &PathReadings::new(&path)).is_ok()
        });
        let denied = matches!(quick.decision, Decision::Deny(_));
        prop_assert!(!applies(Action::Deny) || denied);
        prop_assert_eq!(quick.approve.is_some(), !denied && applies(Action::Approve));
        let allowed = applies(Action::Allow) || applies(Action::Approve) || name == "open";
        prop_assert_eq!(denied, applies(Action::Deny) || !allowed);

        // On a connection that is forwarded unread, every request would have been allowed, and none would have
        // waited or been counted.
        if let Route::Tunnel { .. } = world.route(&identity_of(&world, name), &authority) {
            prop_assert!(!denied && quick.approve.is_none() && quick.limits.is_empty());
        }
        // On a connection that is refused, every request would have been refused.
        if let Route::Deny(_) = world.route(&identity_of(&world, name), &authority) {
            prop_assert!(denied);
        }
        // No request may be sent to a name that may not be resolved.
        if let (Host::Name(_), false) = (authority.host(), world.may_resolve(&identity_of(&world, name), authority.host())) {
            prop_assert!(denied);
        }
    }
}

/// A guard, not a benchmark: a thousand rules for other hosts slow down a decision only a little.
#[test]
fn rules_for_other_hosts_are_not_visited() {
    let lines: Vec<String> =
        (0..1000).map(|n| format!("allow h{n}.x{}.test - GET /v{n}/**", n % 7)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let world = ruled(rules(&lines));
    let identity = identity_of(&world, "cgroup");
    let request = PlainRequest::new("GET", "h7.x0.test/v7/x");
    let facts = request.facts();
    let rounds: u32 = 2000;
    let started = SystemClock.instant();
    for _ in 0..rounds {
        assert!(matches!(world.decide(&identity, &facts).decision, Decision::Forward));
    }
    let each = SystemClock.instant().duration_since(started) / rounds;
    println!("a decision among 1000 rules: {each:?}");
    assert!(each < Duration::from_micros(500), "{each:?}");
}
