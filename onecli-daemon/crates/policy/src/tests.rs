//! Tables of identification and decisions.

use http::Method;
use jiff::Timestamp;
use onecli_model::Operations;
use onecli_model::{
    AddressScope, Agent, AgentId, Authority, CanonicalPath, Code, Egress, Factors, MethodSet, PathReadings,
    Placeholder, Placement, Profile, Sealed, Secret, SecretId, Target, TokenHash,
};
use uuid::Uuid;

use super::CaptureMode::{Explicit, Transparent};
use super::*;

mod conditions;
mod named;
mod rules;
mod still;
mod stored;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn agent(n: u8, name: &str, factors: Factors, egress: Egress) -> AgentInput {
    AgentInput {
        agent: Agent {
            id: AgentId(Uuid::from_u128(u128::from(n))),
            name: name.parse().unwrap(),
            factors,
            cgroup: format!("agent-{name}.slice").parse().unwrap(),
            user: None,
            egress,
            enabled: true,
            generation: 1,
            allow_git_config: false,
        },
        token: TokenHash([n; 32]),
    }
}

fn secret(n: u8, name: &str, host: &str, path: &str, placement: Placement) -> Secret {
    Secret {
        id: SecretId(Uuid::from_u128(u128::from(n))),
        name: name.parse().unwrap(),
        target: Target {
            host: host.parse().unwrap(),
            port: 443,
            methods: MethodSet::default(),
            paths: vec![path.parse().unwrap()],
            allow_plaintext: false,
        },
        placement,
        profile: Profile::default(),
        env: None,
        enabled: true,
        version: 1,
        class: None,
        sealed: Sealed(Vec::new()),
    }
}

fn stand_in(agent: AgentId, secret: SecretId, generation: u32) -> Placeholder {
    let mut bits = [0; 20];
    bits[0] = agent.0.as_bytes()[15];
    bits[1] = secret.0.as_bytes()[15];
    bits[2] = generation.to_be_bytes()[3];
    Placeholder::from_bits(bits)
}

fn placeholder(agent: u128, secret: u128) -> Placeholder {
    stand_in(AgentId(Uuid::from_u128(agent)), SecretId(Uuid::from_u128(secret)), 1)
}

/// Agents: 1 both (deny), 2 cgroup (deny), 3 token (deny), 4 open (cgroup, allow).
/// Secrets: 1 api.test /v1/** bearer, 2 api.test /v1/admin/** bearer, 3 api.test header, 4 other.test bearer.
fn world() -> Snapshot {
    let agents = vec![
        agent(1, "both", Factors::BOTH, Egress::Deny),
        agent(2, "cgroup", Factors::CGROUP, Egress::Deny),
        agent(3, "token", Factors::TOKEN, Egress::Deny),
        agent(4, "open", Factors::CGROUP, Egress::Allow),
    ];
    let secrets = vec![
        secret(1, "api", "api.test", "/v1/**", Placement::bearer()),
        secret(2, "admin", "api.test", "/v1/admin/**", Placement::bearer()),
        secret(3, "extra", "api.test", "/v1/extra/**", Placement::header("x-extra: {secret}").unwrap()),
        secret(4, "other", "other.test", "/**", Placement::bearer()),
    ];
    let mut grants = Vec::new();
    for agent in 1..=4 {
        for secret in 1..=4 {
            grants.push((AgentId(Uuid::from_u128(agent)), SecretId(Uuid::from_u128(secret))));
        }
    }
    let sessions = vec![TokenInput {
        agent: AgentId(Uuid::from_u128(3)),
        token: TokenHash([33; 32]),
        expires: NOW + jiff::SignedDuration::from_secs(60),
        launched_by: None,
    }];
    Snapshot::compile(
        SnapshotInput { agents, sessions, secrets, grants, ..SnapshotInput::default() },
        &stand_in,
    )
}

fn evidence(mode: CaptureMode, cgroup: Option<&str>, token: Option<u8>) -> ClientEvidence {
    ClientEvidence {
        mode,
        cgroup: cgroup.map(|name| format!("agent-{name}.slice").parse().unwrap()),
        token: token.map(|n| TokenHash([n; 32])),
    }
}

#[test]
fn identity_table() {
    let world = world();
    let check = |mode, cgroup, token, expected: Result<(&str, Factors), Code>| {
        let got = world.identify(&evidence(mode, cgroup, token), NOW);
        let got = got.as_ref().map(|i| (i.agent().name.as_str(), i.proven())).map_err(|r| r.code);
        assert_eq!(got, expected, "{mode:?} {cgroup:?} {token:?}");
    };

    check(Transparent, Some("both"), None, Ok(("both", Factors::CGROUP)));
    check(Transparent, Some("token"), None, Ok(("token", Factors::CGROUP)));
    check(Transparent, Some("nobody"), None, Err(Code::AgentUnknown));
    check(Transparent, None, None, Err(Code::FlowUnknown));
    check(Explicit, None, None, Err(Code::ProxyAuthRequired));
    check(Explicit, None, Some(3), Ok(("token", Factors::TOKEN)));
    check(Explicit, None, Some(33), Ok(("token", Factors::TOKEN)));
    check(Explicit, None, Some(99), Err(Code::TokenUnknown));
    check(Explicit, None, Some(1), Err(Code::FactorMissing));
    check(Explicit, None, Some(2), Err(Code::FactorMissing));
    check(Explicit, Some("both"), Some(1), Ok(("both", Factors::BOTH)));
    check(Explicit, Some("both"), None, Err(Code::ProxyAuthRequired));
    check(Explicit, Some("cgroup"), None, Ok(("cgroup", Factors::CGROUP)));
    check(Explicit, Some("cgroup"), Some(1), Err(Code::TokenForeign));
    check(Explicit, Some("nobody"), Some(3), Err(Code::AgentUnknown));
}

#[test]
fn an_expired_session_token_is_unknown() {
    let world = world();
    let late = NOW + jiff::SignedDuration::from_secs(60);
    let got = world.identify(&evidence(CaptureMode::Explicit, None, Some(33)), late);
    assert_eq!(got.unwrap_err().code, Code::TokenUnknown);
}

/// The record of a refusal names the agent that the evidence points to, even if it was not identified.
#[test]
fn refusal_record_names_the_likely_agent() {
    let world = world();
    let check = |cgroup, token, expected: Option<&str>| {
        let got = world
            .likely_agent(&evidence(CaptureMode::Explicit, cgroup, token))
            .map(|agent| agent.name.as_str());
        assert_eq!(got, expected, "{cgroup:?} {token:?}");
    };
    check(None, None, None);
    check(Some("cgroup"), None, Some("cgroup"));
    check(Some("cgroup"), Some(1), Some("cgroup"));
    check(None, Some(1), Some("both"));
    check(None, Some(33), Some("token"));
    check(None, Some(99), None);
    check(Some("nobody"), None, None);
    check(Some("nobody"), Some(3), Some("token"));
}

struct Ask<'a> {
    client: (CaptureMode, Option<&'a str>, Option<u8>),
    target: &'a str,
    path: &'a str,
    placeholders: &'a [Placeholder],
}

fn ask(world: &Snapshot, ask: &Ask<'_>) -> Result<Vec<String>, Code> {
    let (mode, cgroup, token) = ask.client;
    let identity = world.identify(&evidence(mode, cgroup, token), NOW).unwrap();
    let path = CanonicalPath::parse(ask.path).unwrap();
    let facts = RequestFacts {
        method: &Method::GET,
        authority: &Authority::parse(ask.target, Some(443)).unwrap(),
        path: PathReadings::new(&path),
        tls: true,
        named: &[],
        placeholders: ask.placeholders,
        body: &[],
        operations: &Operations::default(),
        sessions: &[],
    };
    match world.decide(&identity, &facts).decision {
        Decision::Inject(grants) => Ok(grants.iter().map(|g| g.secret().name.to_string()).collect()),
        Decision::Forward => Ok(Vec::new()),
        Decision::Deny(refusal) => Err(refusal.code),
    }
}

#[test]
fn decision_table() {
    let world = world();
    let check = |client, target, path, placeholders: &[Placeholder], expected: Result<&[&str], Code>| {
        let got = ask(&world, &Ask { client, target, path, placeholders });
        let expected = expected.map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(got, expected, "{client:?} {target} {path} {placeholders:?}");
    };
    let both = (CaptureMode::Transparent, Some("both"), None);
    let cgroup = (CaptureMode::Transparent, Some("cgroup"), None);
    let token = (CaptureMode::Explicit, None, Some(3));
    let open = (CaptureMode::Transparent, Some("open"), None);

    // Factors: the placeholder replaces the token on transparent connections.
    check(both, "api.test", "/v1/x", &[placeholder(1, 1)], Ok(&["api"]));
    check(both, "api.test", "/v1/x", &[], Err(Code::PlaceholderMissing));
    check(cgroup, "api.test", "/v1/x", &[], Ok(&["api"]));
    check(token, "api.test", "/v1/x", &[], Ok(&["api"]));
    check(token, "api.test", "/v1/x", &[placeholder(3, 1)], Ok(&["api"]));
    check(
        (CaptureMode::Transparent, Some("token"), None),
        "api.test",
        "/v1/x",
        &[],
        Err(Code::PlaceholderMissing),
    );
    check(
        (CaptureMode::Transparent, Some("token"), None),
        "api.test",
        "/v1/x",
        &[placeholder(3, 1)],
        Ok(&["api"]),
    );

    // Another agent's placeholder, an unknown one, and one at the wrong host.
    check(both, "api.test", "/v1/x", &[placeholder(2, 1)], Err(Code::PlaceholderForeign));
    check(token, "api.test", "/v1/x", &[placeholder(9, 9)], Err(Code::PlaceholderForeign));
    check(token, "other.test", "/", &[placeholder(3, 1)], Err(Code::PlaceholderMisplaced));
    check(open, "evil.test", "/", &[placeholder(4, 1)], Err(Code::PlaceholderMisplaced));
    check(open, "api.test:8443", "/v1/x", &[placeholder(4, 1)], Err(Code::PlaceholderMisplaced));

    // The most specific secret wins its slot; a placeholder selects one; two slots are both filled.
    check(cgroup, "api.test", "/v1/admin/x", &[], Ok(&["admin"]));
    check(cgroup, "api.test", "/v1/admin/x", &[placeholder(2, 1)], Ok(&["api"]));
    check(cgroup, "api.test", "/v1/extra/x", &[], Ok(&["extra", "api"]));
    check(both, "api.test", "/v1/extra/x", &[placeholder(1, 3)], Ok(&["extra"]));

    // No grant matches it.
    check(cgroup, "api.test", "/v2", &[], Err(Code::EgressDenied));
    check(cgroup, "evil.test", "/", &[], Err(Code::EgressDenied));
    check(cgroup, "api.test:8443", "/v1/x", &[], Err(Code::EgressDenied));
    check(open, "evil.test", "/", &[], Ok(&[]));
    check(open, "api.test", "/v2", &[], Ok(&[]));
    check(open, "api.test", "/v2", &[placeholder(4, 1)], Err(Code::EgressDenied));
    check(cgroup, "api.test", "/v1/%2e%2e/admin", &[], Err(Code::PathAmbiguous));
    check(cgroup, "api.test", "/v1/%25%32e%25%32e/admin", &[], Err(Code::PathAmbiguous));
    check(open, "api.test", "/v1/../v2", &[], Err(Code::PathAmbiguous));
    check(cgroup, "other.test", "//a;b", &[], Ok(&["other"]));
}

/// A request over TLS, without body, placeholders and sessions.
struct PlainRequest {
    method: Method,
    authority: Authority,
    path: CanonicalPath,
    operations: Operations,
}

impl PlainRequest {
    /// Builds it for `HOST/PATH`, or `HOST:PORT/PATH`.
    fn new(method: &str, target: &str) -> PlainRequest {
        let (authority, path) = target.split_at(target.find('/').unwrap());
        PlainRequest {
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            authority: Authority::parse(authority, Some(443)).unwrap(),
            path: CanonicalPath::parse(path).unwrap(),
            operations: Operations::default(),
        }
    }

    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: &self.method,
            authority: &self.authority,
            path: PathReadings::new(&self.path),
            tls: true,
            named: &[],
            placeholders: &[],
            body: &[],
            operations: &self.operations,
            sessions: &[],
        }
    }
}

#[test]
fn plain_http_gets_no_credential() {
    let world = world();
    let identity = world.identify(&evidence(CaptureMode::Transparent, Some("cgroup"), None), NOW).unwrap();
    let request = PlainRequest::new("GET", "api.test/v1/x");
    let facts = RequestFacts { tls: false, ..request.facts() };
    match world.decide(&identity, &facts).decision {
        Decision::Deny(refusal) => assert_eq!(refusal.code, Code::PlaintextRefused),
        other => panic!("{other:?}"),
    }
}

/// A running response depends on agent, session, decision and every secret that was used. A value that the agent
/// stored at an upstream outlives its grant.
#[test]
fn values_of_former_grants_are_scrubbed() {
    let ids = (AgentId(Uuid::from_u128(3)), SecretId(Uuid::from_u128(1)));
    let compile = |egress: Egress, enabled: bool, granted: bool, former: bool| {
        let mut api = secret(1, "api", "api.test", "/v1/**", Placement::bearer());
        api.enabled = enabled;
        let other = secret(2, "other", "api.test", "/v1/**", Placement::bearer());
        let list = |is: bool| if is { vec![ids] } else { Vec::new() };
        let input = SnapshotInput {
            agents: vec![agent(3, "token", Factors::TOKEN, egress)],
            secrets: vec![api, other],
            grants: list(granted),
            former_grants: list(former),
            ..SnapshotInput::default()
        };
        Snapshot::compile(input, &stand_in)
    };
    let check = |world: &Snapshot, watched: usize, route: &str| {
        let identity = world.identify(&evidence(CaptureMode::Explicit, None, Some(3)), NOW).unwrap();
        let authority = Authority::parse("api.test", Some(443)).unwrap();
        assert_eq!(world.values_to_scrub(&identity, authority.host()).len(), watched, "{route}");
        assert!(world.values_to_scrub(&identity, &"else.test".parse().unwrap()).is_empty());
        let got = format!("{:?}", world.route(&identity, &authority));
        assert!(got.starts_with(route), "{got}");
    };
    check(&compile(Egress::Allow, true, true, false), 1, "Inspect");
    check(&compile(Egress::Allow, true, false, true), 1, "Inspect");
    check(&compile(Egress::Allow, true, true, true), 1, "Inspect");
    check(&compile(Egress::Allow, false, true, false), 1, "Inspect");
    // A value that another agent stored there must not come back unread, either.
    check(&compile(Egress::Allow, true, false, false), 0, "Inspect");
    // The revoked grant allows nothing.
    check(&compile(Egress::Deny, true, false, true), 1, "Deny");
}

#[test]
fn revoked_grants_end_running_requests() {
    let id = |n: u8| SecretId(Uuid::from_u128(u128::from(n)));
    let agent_id = |n: u8| AgentId(Uuid::from_u128(u128::from(n)));
    let compile = |enabled: bool, egress: Egress, grants: &[u8]| {
        let mut input = agent(3, "token", Factors::TOKEN, egress);
        input.agent.enabled = enabled;
        let secrets = vec![
            secret(1, "api", "api.test", "/v1/**", Placement::bearer()),
            secret(3, "extra", "api.test", "/v1/**", Placement::header("x-extra: {secret}").unwrap()),
        ];
        let sessions = vec![TokenInput {
            agent: agent_id(3),
            token: TokenHash([33; 32]),
            expires: NOW + jiff::SignedDuration::from_secs(60),
            launched_by: None,
        }];
        let grants = grants.iter().map(|n| (agent_id(3), id(*n))).collect();
        Snapshot::compile(
            SnapshotInput { agents: vec![input], sessions, secrets, grants, ..SnapshotInput::default() },
            &stand_in,
        )
    };
    let request = PlainRequest::new("GET", "api.test/v1/x");
    let facts = request.facts();
    let own = evidence(CaptureMode::Explicit, None, Some(3));
    let session = evidence(CaptureMode::Explicit, None, Some(33));
    let late = NOW + jiff::SignedDuration::from_secs(60);
    let allows = |world: &Snapshot, evidence: &ClientEvidence, now, used: &[SecretId]| {
        world.still_allows(evidence, now, agent_id(3), &facts, used).is_some()
    };

    let both = compile(true, Egress::Allow, &[1, 3]);
    assert!(allows(&both, &own, NOW, &[id(1), id(3)]));
    assert!(allows(&both, &own, late, &[id(1)]));
    assert!(allows(&both, &session, NOW, &[id(1)]));
    assert!(!allows(&both, &session, late, &[id(1)]), "the session has ended");
    assert_eq!((both.session_end(&session), both.session_end(&own)), (Some(late), None));
    assert!(
        both.still_allows(&own, NOW, agent_id(4), &facts, &[]).is_none(),
        "the evidence belongs to another agent now"
    );

    // With egress `allow` the request itself would still be forwarded, without the credential.
    for grants in [&[3][..], &[]] {
        let world = compile(true, Egress::Allow, grants);
        assert!(!allows(&world, &own, NOW, &[id(1)]), "{grants:?}");
        assert!(allows(&world, &own, NOW, &[]), "nothing was used: {grants:?}");
    }
    assert!(!allows(&compile(true, Egress::Deny, &[]), &own, NOW, &[]));
    assert!(!allows(&compile(false, Egress::Allow, &[1, 3]), &own, NOW, &[]));
}

#[test]
fn routes() {
    let world = world();
    let route = |client: &str, target: &str| {
        let identity = world.identify(&evidence(CaptureMode::Transparent, Some(client), None), NOW).unwrap();
        world.route(&identity, &Authority::parse(target, Some(443)).unwrap())
    };
    assert_eq!(route("cgroup", "api.test"), Route::Inspect);
    assert_eq!(route("cgroup", "api.test:8443"), Route::Inspect);
    assert!(matches!(route("cgroup", "evil.test"), Route::Deny(r) if r.code == Code::EgressDenied));
    let tunnel =
        Route::Tunnel { address_scope: AddressScope::open(), reason: DecisionReason::Default(Egress::Allow) };
    assert_eq!(route("open", "evil.test"), tunnel);
    assert_eq!(route("open", "api.test"), Route::Inspect);
}

/// A placeholder in the body counts only for the secret of that field.
#[test]
fn body_placeholder_counts_for_its_own_field() {
    let agents = vec![agent(1, "both", Factors::BOTH, Egress::Deny)];
    let replace = |at: &str| Placement::replace(at).unwrap();
    let secrets = vec![
        secret(1, "field", "api.test", "/**", replace("json:/key")),
        secret(2, "plain", "api.test", "/**", Placement::header("x-key: {secret}").unwrap()),
        secret(3, "basic", "basic.test", "/**", replace("basic")),
    ];
    let id = |n: u128| (AgentId(Uuid::from_u128(1)), SecretId(Uuid::from_u128(n)));
    let grants = vec![id(1), id(2), id(3)];
    let world =
        Snapshot::compile(SnapshotInput { agents, secrets, grants, ..SnapshotInput::default() }, &stand_in);
    let check = |target: &str,
                 head: &[Placeholder],
                 body: &[(&str, Placeholder)],
                 expected: Result<&[&str], Code>| {
        let identity = world.identify(&evidence(CaptureMode::Transparent, Some("both"), None), NOW).unwrap();
        let target_of = |at: &str| replace(&format!("json:{at}")).injection_target();
        let body: Vec<_> = body.iter().map(|(at, own)| (target_of(at), own.clone())).collect();
        let path = CanonicalPath::parse("/x").unwrap();
        let facts = RequestFacts {
            method: &Method::POST,
            authority: &Authority::parse(target, Some(443)).unwrap(),
            path: PathReadings::new(&path),
            tls: true,
            named: &[],
            placeholders: head,
            body: &body,
            operations: &Operations::default(),
            sessions: &[],
        };
        let got = match world.decide(&identity, &facts).decision {
            Decision::Inject(grants) => Ok(grants.iter().map(|g| g.secret().name.to_string()).collect()),
            Decision::Forward => Ok(Vec::new()),
            Decision::Deny(refusal) => Err(refusal.code),
        };
        let expected = expected.map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(got, expected, "{target} {head:?} {body:?}");
        world.body_fields(&identity, &facts).len()
    };
    let missing = Err(Code::PlaceholderMissing);
    assert_eq!(check("api.test", &[], &[("/key", placeholder(1, 1))], Ok(&["field"])), 1);
    check("api.test", &[], &[("/other", placeholder(1, 1))], missing);
    check("api.test", &[], &[("/key", placeholder(1, 2))], missing);
    check("api.test", &[], &[("/key", placeholder(9, 9))], missing);
    check("api.test", &[placeholder(1, 1)], &[], missing);
    check("api.test", &[placeholder(1, 2)], &[], Ok(&["plain"]));
    check("api.test", &[placeholder(1, 2)], &[("/key", placeholder(1, 1))], Ok(&["field", "plain"]));
    assert_eq!(check("basic.test", &[], &[("/key", placeholder(1, 3))], missing), 0);
    check("basic.test", &[placeholder(1, 3)], &[], Ok(&["basic"]));
}
