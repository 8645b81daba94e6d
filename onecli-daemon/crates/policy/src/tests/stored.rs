//! A host for which a secret is stored is inspected for every agent.

use onecli_model::{Mint, Rule, RuleId, RuleSpec, RuleText};

use super::*;

fn rule(id: u32, text: RuleText) -> Rule {
    Rule { id: RuleId(id), agent: None, terms: RuleSpec::try_from(text).unwrap() }
}

fn allow(host: &str, port: &str, tunnel: bool) -> RuleText {
    serde_json::from_value(serde_json::json!({
        "action": "allow", "host": host, "port": port, "tunnel": tunnel,
    }))
    .unwrap()
}

/// Agent 1 has the grants; agent 2 has none and may reach every host. Secrets: of api.test:443, of all hosts below
/// files.test, and one whose tokens come from login.test.
fn world(rules: Vec<Rule>) -> Snapshot {
    let mut issued = secret(3, "issued", "issued.test", "/**", Placement::bearer());
    issued.profile.mint = Some(Mint::ClientCredentials {
        token_url: "https://login.test/token".parse().unwrap(),
        client_id: "me".to_owned(),
        scope: None,
        audience: None,
    });
    let mut disabled = secret(4, "disabled", "disabled.test", "/**", Placement::bearer());
    disabled.enabled = false;
    let secrets = vec![
        secret(1, "api", "api.test", "/**", Placement::bearer()),
        secret(2, "files", "**.files.test", "/**", Placement::bearer()),
        issued,
        disabled,
    ];
    let agents = vec![
        agent(1, "holder", Factors::CGROUP, Egress::Deny),
        agent(2, "open", Factors::CGROUP, Egress::Allow),
    ];
    let id = |n: u128| (AgentId(Uuid::from_u128(1)), SecretId(Uuid::from_u128(n)));
    let grants = vec![id(1), id(2), id(3)];
    Snapshot::compile(SnapshotInput { agents, secrets, grants, rules, ..SnapshotInput::default() }, &stand_in)
}

fn identity_of(world: &Snapshot, name: &str) -> Identity {
    world.identify(&evidence(CaptureMode::Transparent, Some(name), None), NOW).unwrap()
}

fn route(world: &Snapshot, name: &str, target: &str) -> String {
    match world.route(&identity_of(world, name), &Authority::parse(target, Some(443)).unwrap()) {
        Route::Inspect => "inspect".to_owned(),
        Route::Tunnel { reason, .. } => format!("tunnel {reason}"),
        Route::Deny(refusal) => format!("deny {}", refusal.code),
    }
}

#[test]
fn a_host_with_a_secret_is_inspected_for_agents_without_a_grant() {
    let plain = world(Vec::new());
    for (target, expected) in [
        ("api.test", "inspect"),
        ("api.test:8443", "inspect"),
        ("a.b.files.test", "inspect"),
        ("issued.test", "inspect"),
        // The client's secret is sent there.
        ("login.test", "inspect"),
        ("disabled.test", "inspect"),
        ("files.test", "tunnel egress allow"),
        ("else.test", "tunnel egress allow"),
    ] {
        assert_eq!(route(&plain, "open", target), expected, "{target}");
    }
    let ruled =
        world(vec![rule(1, allow("api.test", "443", false)), rule(2, allow("else.test", "443", false))]);
    assert_eq!(route(&ruled, "open", "api.test"), "inspect");
    assert_eq!(route(&ruled, "holder", "else.test"), "tunnel allow 2");
}

#[test]
fn a_tunnel_rule_lets_other_agents_pass_unread() {
    let ruled = world(vec![
        rule(1, allow("api.test", "443", false)),
        rule(2, allow("api.test", "443", true)),
        rule(3, allow("**.files.test", "*", true)),
    ]);
    assert_eq!(route(&ruled, "open", "api.test"), "tunnel allow 2");
    assert_eq!(route(&ruled, "open", "x.files.test:8443"), "tunnel allow 3");
    assert_eq!(route(&ruled, "open", "disabled.test"), "inspect");
    // A grant requires inspection.
    assert_eq!(route(&ruled, "holder", "api.test"), "inspect");
    let deny: RuleText = serde_json::from_value(
        serde_json::json!({"action": "deny", "host": "api.test", "methods": ["DELETE"]}),
    )
    .unwrap();
    let judged = world(vec![rule(1, allow("api.test", "443", true)), rule(2, deny)]);
    assert_eq!(route(&judged, "open", "api.test"), "inspect", "a method is judged");
}

#[test]
fn only_an_allow_of_whole_connections_is_a_tunnel() {
    for bad in [
        serde_json::json!({"action": "deny", "host": "api.test", "tunnel": true}),
        serde_json::json!({"action": "approve", "host": "api.test", "tunnel": true}),
        serde_json::json!({"action": "allow", "host": "api.test", "paths": ["/a"], "tunnel": true}),
        serde_json::json!({"action": "allow", "host": "api.test", "methods": ["GET"], "tunnel": true}),
    ] {
        let error = serde_json::from_value::<RuleSpec>(bad.clone()).unwrap_err();
        assert!(error.to_string().contains("--tunnel"), "{bad}: {error}");
    }
}

/// Bytes that are neither TLS nor HTTP are refused on the port of a secret, and on no other.
#[test]
fn unread_bytes_are_refused_on_the_port_of_a_secret() {
    let ruled = world(vec![rule(1, allow("api.test", "*", false)), rule(2, allow("login.test", "*", true))]);
    let allows = |target: &str| {
        ruled
            .allows_unread(&identity_of(&ruled, "open"), &Authority::parse(target, Some(443)).unwrap())
            .is_some()
    };
    assert!(!allows("api.test:443"));
    assert!(allows("api.test:5432"));
    assert!(allows("login.test:443"), "by --tunnel");
}

/// Another agent's secret allows nothing.
#[test]
fn a_secret_of_another_agent_changes_nothing_else() {
    let world = world(Vec::new());
    let mut closed = agent(2, "open", Factors::CGROUP, Egress::Deny);
    closed.agent.egress = Egress::Deny;
    let secrets = vec![secret(1, "api", "api.test", "/**", Placement::bearer())];
    let closed = Snapshot::compile(
        SnapshotInput { agents: vec![closed], secrets, ..SnapshotInput::default() },
        &stand_in,
    );
    let host = "api.test".parse().unwrap();
    assert!(!closed.may_resolve(&identity_of(&closed, "open"), &host));
    assert!(!closed.is_written(&identity_of(&closed, "open"), &host));
    assert_eq!(route(&closed, "open", "api.test"), "deny egress_denied");
    assert!(world.values_to_scrub(&identity_of(&world, "open"), &host).is_empty());
}

#[test]
fn each_secret_of_a_host_is_searched_for_once() {
    let two = "api.test,*.api.test,**.api.test";
    let secrets = vec![
        secret(1, "api", two, "/**", Placement::bearer()),
        secret(2, "other", "api.test", "/**", Placement::bearer()),
    ];
    let world = Snapshot::compile(SnapshotInput { secrets, ..SnapshotInput::default() }, &stand_in);
    let names = |host: &str| {
        let groups = world.stored_at(&host.parse().unwrap());
        let mut names: Vec<String> =
            world.stored_values(&groups).iter().map(|grant| grant.secret().name.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(names("api.test"), ["api", "other"]);
    assert_eq!(names("x.api.test"), ["api"]);
    assert!(names("else.test").is_empty());
}
