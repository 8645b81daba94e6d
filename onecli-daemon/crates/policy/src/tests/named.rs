//! Resources that a request names besides its URL are decided like the URL itself.

use onecli_model::named::{Naming, named_resources};

use super::rules::{identity_of, rule, ruled, summary};
use super::*;

fn rules(lines: &[&str]) -> Vec<onecli_model::Rule> {
    lines.iter().zip(1..).map(|(line, id)| rule(id, None, line)).collect()
}

/// A decision on `METHOD host/path` with one field.
fn decided(lines: &[&str], name: &str, request: &str, field: (&str, &str)) -> String {
    let (method, target) = request.split_once(' ').unwrap();
    let request = PlainRequest::new(method, target);
    let naming = Naming { method: &request.method, authority: &request.authority, path: &request.path };
    let named = named_resources(&naming, || std::iter::once((field.0, field.1.as_bytes())), None).unwrap();
    let facts = RequestFacts { named: &named, ..request.facts() };
    let world = ruled(rules(lines));
    summary(&world.decide(&identity_of(&world, name), &facts))
}

const SOURCE: &str = "x-amz-copy-source";
const OUTSIDE: &str = "deny egress_denied by egress deny";
const UNREADABLE: &str = "deny bad_request by -";

#[test]
fn a_secret_is_for_named_resources_within_its_scope() {
    let check = |field, value, expected: &str| {
        assert_eq!(decided(&[], "cgroup", "PUT api.test/v1/x", (field, value)), expected, "{field}: {value}");
    };
    check(SOURCE, "/v1/other", "inject grant");
    check(SOURCE, "/v2/other", OUTSIDE);
    check(SOURCE, "/v1/../v2", OUTSIDE);
    check(SOURCE, "/v1/%2e%2e/v2", OUTSIDE);
    check(SOURCE, "arn:aws:s3:x:1:accesspoint/a/object/k", UNREADABLE);
    check("x-ms-copy-source", "https://api.test/v1/y", "inject grant");
    check("x-ms-copy-source", "https://api.test/v2/y", OUTSIDE);
    check("x-ms-copy-source", "https://other.test/v1/y", OUTSIDE);
    check("x-ms-copy-source", "http://api.test/v1/y", OUTSIDE);
    check("x-ms-copy-source", "https://api.test:8443/v1/y", OUTSIDE);
    check("if", "</v2> (<urn:a>)", OUTSIDE);
    check("destination", "https://other.test/", "inject grant");
    let copy = |value| decided(&[], "cgroup", "COPY api.test/v1/x", ("destination", value));
    assert_eq!((copy("/v1/y"), copy("/v2")), ("inject grant".to_owned(), OUTSIDE.to_owned()));
}

#[test]
fn rules_apply_to_named_resources() {
    let check = |lines: &[&str], request, value, expected: &str| {
        assert_eq!(decided(lines, "open", request, (SOURCE, value)), expected, "{lines:?} {request} {value}");
    };
    let free = "PUT x.test/a";
    check(&[], free, "/b/k", "forward egress allow");
    check(&[], free, "arn:aws:s3:x:1:accesspoint/a", "forward egress allow");
    let deny = ["deny x.test - - /b/**"];
    check(&deny, free, "/b/k", "deny rule_denied by deny 1");
    check(&deny, free, "/B/k", "deny rule_denied by deny 1");
    check(&deny, free, "/c/../b/k", "deny rule_denied by deny 1");
    check(&deny, free, "/c/k", "forward egress allow");
    check(&deny, free, "arn:aws:s3:x:1:accesspoint/a", UNREADABLE);
    // An agent that may not read a location may not copy from it.
    check(&["deny x.test - GET /b/**"], free, "/b/k", "deny rule_denied by deny 1");
    check(&["deny x.test - DELETE /b/**"], free, "/b/k", "forward egress allow");
    check(&["approve x.test - - /b/**"], free, "/b/k", "deny bad_request by approve 1");
    check(&["approve x.test"], free, "/b/k", "forward approve 1, approve 1");
    check(&["limit x.test - - /b/** - 9/m"], free, "/b/k", "forward egress allow, limit 1");
    let allow = |lines: &[&str], value| decided(lines, "cgroup", free, (SOURCE, value));
    assert_eq!(allow(&["allow x.test - - /a"], "/b/k"), OUTSIDE);
    assert_eq!(allow(&["allow x.test - - /a", "allow x.test - GET /b/**"], "/b/k"), "forward allow 1");
}

#[test]
fn prefixes_and_unreadable_resources_are_limited() {
    let check = |field, value, expected: &str| {
        let got = decided(&[], "cgroup", "PUT api.test/v1/A/c", (field, value));
        assert_eq!(got, expected, "{field}: {value}");
    };
    check("x-object-manifest", "c/p", "inject grant");
    check("x-symlink-target", "c/../../../v2", OUTSIDE);
    check("x-checksum-deploy", "true", UNREADABLE);
    check("x-vault-namespace", "team", "inject grant");
    // A rule may apply to a part of the prefix.
    let ruled =
        decided(&["deny x.test - - /b/**"], "open", "PUT x.test/v1/A/c", ("x-object-manifest", "c/p"));
    assert_eq!(ruled, UNREADABLE);
}
