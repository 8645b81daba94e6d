//! The contract of every store, whatever its database. [`contract_tests!`] runs all of it against one kind.

use jiff::Timestamp;
use onecli_model::{
    Action, Agent, AgentId, Egress, Factors, LogId, Placement, RequestId, Rule, RuleSpec, RuleText, Sealed,
    Secret, SecretId, TokenHash, ValueClass,
};
use uuid::Uuid;

use super::testing::{agent, secret};
use super::{AgentChange, AuditQuery, AuditRow, GrantRow, LeaseRow, Store, StoreError};

mod replaced_versions;
mod uses;

pub(crate) use replaced_versions::{
    one_replaced_version_is_kept, replaced_version, replaced_versions_are_erased_in_time,
};
pub(crate) use uses::uses_of_secrets_are_remembered;

/// Makes a test of each function here. `$make` is an async function that returns a store and a value that must live
/// as long.
macro_rules! contract_tests {
    ($make:path) => {
        $crate::contract::contract_tests!($make:
            agents_round_trip, what_agents_must_not_share, tokens_rotate, sessions_expire, removal_takes_what_hangs_on_it,
            runners_come_and_go, agents_change, audit_rows_of_a_runner, secrets_round_trip, versions_follow_each_other,
            one_replaced_version_is_kept, replaced_versions_are_erased_in_time, grants, rules, subscribers_receive_each_change, audit_rows_are_kept_once,
            audit_rows_of_several_logs, audit_rows_are_found, uses_of_secrets_are_remembered, facts, leases);
    };
    ($make:path: $($name:ident),*) => {
        $(
            #[tokio::test]
            async fn $name() {
                let (store, _alive) = $make().await;
                $crate::contract::$name(&store).await;
            }
        )*
    };
}
pub(crate) use contract_tests;

mod runners;

pub(crate) use runners::{agents_change, audit_rows_of_a_runner, runners_come_and_go};

/// The same secret in another version, with another sealed value.
pub(crate) fn version(secret: &Secret, version: u32, sealed: u8) -> Secret {
    Secret { version, sealed: Sealed(vec![sealed]), ..secret.clone() }
}

fn hash(byte: u8) -> TokenHash {
    TokenHash([byte; 32])
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) async fn agents_round_trip(store: &dyn Store) {
    assert!(store.is_empty().await.unwrap());
    let one = agent(1, "one");
    let two = Agent {
        user: Some("builder".to_owned()),
        egress: Egress::Allow,
        factors: Factors::TOKEN,
        enabled: false,
        allow_git_config: true,
        ..agent(2, "a-two")
    };
    store.add_agent(&one, &hash(1)).await.unwrap();
    store.add_agent(&two, &hash(2)).await.unwrap();
    assert!(!store.is_empty().await.unwrap());

    let state = store.load().await.unwrap();
    let found: Vec<_> = state.agents.iter().map(|stored| (&stored.agent, stored.token_hash)).collect();
    assert_eq!(found, [(&two, hash(2)), (&one, hash(1))], "ordered by name");

    store.set_agent_enabled(two.id, true).await.unwrap();
    assert!(store.load().await.unwrap().agents[0].agent.enabled);
    let missing = store.set_agent_enabled(AgentId(Uuid::from_u128(9)), true).await;
    assert!(matches!(missing, Err(StoreError::NotFound { what: "agent", .. })));
    for (id, allow) in [(one.id, true), (two.id, false)] {
        store.change_agent(id, &git_config(allow)).await.unwrap();
    }
    let allowed = |state: crate::StoreContents| {
        state.agents.iter().map(|stored| stored.agent.allow_git_config).collect::<Vec<_>>()
    };
    assert_eq!(allowed(store.load().await.unwrap()), [false, true], "a-two, one");
    let missing = store.change_agent(AgentId(Uuid::from_u128(9)), &git_config(true)).await;
    assert!(matches!(missing, Err(StoreError::NotFound { what: "agent", .. })));
}

fn git_config(allow: bool) -> AgentChange {
    AgentChange { allow_git_config: Some(allow), ..AgentChange::default() }
}

pub(crate) async fn what_agents_must_not_share(store: &dyn Store) {
    let holder = Agent { user: Some("builder".to_owned()), ..agent(1, "one") };
    store.add_agent(&holder, &hash(1)).await.unwrap();
    let check = async |offered: Agent, message: &str| {
        let error = store.add_agent(&offered, &hash(2)).await.unwrap_err();
        assert_eq!(error.to_string(), message);
    };
    check(agent(2, "one"), "the agent name 'one' is already taken by the agent 'one'").await;
    let cgroup = Agent { cgroup: holder.cgroup.clone(), ..agent(2, "two") };
    check(cgroup, "the cgroup 'onecli-agents-one.slice' is already taken by the agent 'one'").await;
    let user = Agent { user: holder.user.clone(), ..agent(2, "two") };
    check(user, "the user 'builder' is already taken by the agent 'one'").await;

    store.add_agent(&agent(2, "two"), &hash(2)).await.unwrap();
    store.add_agent(&agent(3, "three"), &hash(3)).await.unwrap();
    assert_eq!(store.load().await.unwrap().agents.len(), 3, "agents without a user share nothing");
}

pub(crate) async fn tokens_rotate(store: &dyn Store) {
    let one = agent(1, "one");
    store.add_agent(&one, &hash(1)).await.unwrap();
    store.add_session(one.id, &hash(7), at(100), None).await.unwrap();
    store.set_token(one.id, &hash(2), 2).await.unwrap();

    let state = store.load().await.unwrap();
    assert_eq!((state.agents[0].agent.generation, state.agents[0].token_hash), (2, hash(2)));
    assert_eq!(state.sessions, [], "sessions end with the token they came from");

    let again = store.set_token(one.id, &hash(3), 2).await;
    assert!(matches!(again, Err(StoreError::Conflict { stored: 2, offered: 2, .. })));
    let missing = store.set_token(AgentId(Uuid::from_u128(9)), &hash(3), 1).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
    assert_eq!(store.load().await.unwrap().agents[0].token_hash, hash(2));
}

pub(crate) async fn sessions_expire(store: &dyn Store) {
    let one = agent(1, "one");
    store.add_agent(&one, &hash(1)).await.unwrap();
    for second in [10, 20, 30] {
        store.add_session(one.id, &hash(u8::try_from(second).unwrap()), at(second), None).await.unwrap();
    }
    assert_eq!(store.prune_sessions(at(20)).await.unwrap(), 2);
    assert_eq!(store.prune_sessions(at(20)).await.unwrap(), 0);
    let sessions = store.load().await.unwrap().sessions;
    assert_eq!(sessions.len(), 1);
    assert_eq!((sessions[0].agent, sessions[0].token_hash, sessions[0].expires), (one.id, hash(30), at(30)));
    let missing = store.add_session(AgentId(Uuid::from_u128(9)), &hash(9), at(1), None).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
}

pub(crate) async fn removal_takes_what_hangs_on_it(store: &dyn Store) {
    let (one, two, key) = (agent(1, "one"), agent(2, "two"), secret(1, "key"));
    store.add_agent(&one, &hash(1)).await.unwrap();
    store.add_agent(&two, &hash(2)).await.unwrap();
    store.add_secret(&key).await.unwrap();
    store.add_session(one.id, &hash(7), at(100), None).await.unwrap();
    store.grant(one.id, key.id).await.unwrap();
    store.grant(two.id, key.id).await.unwrap();
    store.insert_audit(&[audit_row(1, "one")]).await.unwrap();

    store.remove_agent(one.id).await.unwrap();
    let state = store.load().await.unwrap();
    assert_eq!((state.agents.len(), state.sessions.len()), (1, 0));
    assert_eq!(state.grants, [GrantRow { agent: two.id, secret: key.id }]);
    assert_eq!(store.list_audit(&AuditQuery::default()).await.unwrap().len(), 1, "audit rows stay");
    assert!(matches!(store.remove_agent(one.id).await, Err(StoreError::NotFound { .. })));

    store.remove_secret(key.id).await.unwrap();
    let state = store.load().await.unwrap();
    assert_eq!((state.secrets.len(), state.grants.len()), (0, 0));
    assert!(matches!(store.remove_secret(key.id).await, Err(StoreError::NotFound { .. })));

    store.add_agent(&agent(3, "one"), &hash(1)).await.unwrap();
    store.add_secret(&secret(2, "key")).await.unwrap();
}

pub(crate) async fn secrets_round_trip(store: &dyn Store) {
    let placements =
        [Placement::bearer(), Placement::basic("x-access-token").unwrap(), Placement::query("key").unwrap()];
    let mut all = vec![Secret { env: None, enabled: false, ..secret(1, "a") }];
    for (number, placement) in (2..).zip(placements) {
        all.push(Secret { placement, ..secret(number, &format!("b{number}")) });
    }
    for secret in &all {
        store.add_secret(secret).await.unwrap();
    }
    assert_eq!(store.load().await.unwrap().secrets, all);
    assert!(!store.is_empty().await.unwrap());

    let taken = store.add_secret(&secret(9, "a")).await.unwrap_err();
    assert!(matches!(taken, StoreError::Taken { what: "secret name", .. }), "{taken}");
    store.set_secret_enabled(all[0].id, true).await.unwrap();
    assert!(store.load().await.unwrap().secrets[0].enabled);
    let missing = store.set_secret_enabled(SecretId(Uuid::from_u128(9)), true).await;
    assert!(matches!(missing, Err(StoreError::NotFound { what: "secret", .. })));
}

pub(crate) async fn versions_follow_each_other(store: &dyn Store) {
    let key = secret(1, "key");
    store.add_secret(&key).await.unwrap();
    let class = Some(ValueClass::ISSUED);
    let next = Secret { class, ..version(&key, 2, 9) };
    store.add_version(&next, Some(&replaced_version(&key, 7, at(100)))).await.unwrap();
    let stored = &store.load().await.unwrap().secrets[0];
    assert_eq!((stored.version, stored.class, &stored.sealed), (2, class, &Sealed(vec![9])));

    for offered in [1, 2, 4] {
        let offered = version(&key, offered, 8);
        let error = store.add_version(&offered, None).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { stored: 2, .. }), "{error}");
    }
    let gone = version(&secret(9, "gone"), 1, 8);
    let missing = store.add_version(&gone, None).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
}

pub(crate) async fn grants(store: &dyn Store) {
    let (one, key) = (agent(1, "one"), secret(1, "key"));
    store.add_agent(&one, &hash(1)).await.unwrap();
    store.add_secret(&key).await.unwrap();
    store.grant(one.id, key.id).await.unwrap();
    store.grant(one.id, key.id).await.unwrap();
    assert_eq!(store.load().await.unwrap().grants, [GrantRow { agent: one.id, secret: key.id }]);

    let nobody = AgentId(Uuid::from_u128(9));
    let nothing = SecretId(Uuid::from_u128(9));
    assert!(matches!(store.grant(nobody, key.id).await, Err(StoreError::NotFound { what: "agent", .. })));
    assert!(matches!(store.grant(one.id, nothing).await, Err(StoreError::NotFound { what: "secret", .. })));
    assert!(!store.ungrant(one.id, nothing).await.unwrap());
    assert_eq!(store.load().await.unwrap().former_grants, []);
    let row = GrantRow { agent: one.id, secret: key.id };
    for _ in 0..2 {
        assert!(store.ungrant(one.id, key.id).await.unwrap());
        assert!(!store.ungrant(one.id, key.id).await.unwrap());
        let state = store.load().await.unwrap();
        assert_eq!((state.grants, state.former_grants), (Vec::new(), vec![row]));
        store.grant(one.id, key.id).await.unwrap();
        let state = store.load().await.unwrap();
        assert_eq!((state.grants, state.former_grants), (vec![row], Vec::new()));
    }
    assert!(store.ungrant(one.id, key.id).await.unwrap());
    store.remove_secret(key.id).await.unwrap();
    assert_eq!(store.load().await.unwrap().former_grants, []);
}

/// Invariant 11: what an operator changes reaches the snapshot.
pub(crate) async fn rules(store: &dyn Store) {
    let one = agent(1, "one");
    store.add_agent(&one, &hash(1)).await.unwrap();
    let text = |action, host: Option<&str>| RuleText {
        action,
        host: host.map(str::to_owned),
        port: None,
        methods: vec!["get".to_owned()],
        paths: vec!["/v1/**".to_owned(), "/v2".to_owned()],
        address: None,
        rate: (action == Action::Limit).then(|| "10/m".to_owned()),
        tunnel: false,
    };
    let tunnel = RuleText {
        methods: Vec::new(),
        paths: Vec::new(),
        tunnel: true,
        ..text(Action::Allow, Some("pinned.test"))
    };
    let address = RuleText { address: Some("10.1.2.3/8".to_owned()), ..text(Action::Allow, None) };
    let texts = [
        text(Action::Deny, Some("**.com")),
        text(Action::Limit, Some("*")),
        text(Action::Allow, Some("*.x.test")),
        address,
        text(Action::Allow, Some("last.test")),
        tunnel,
    ];
    let mut expected = Vec::new();
    for (at, text) in texts.into_iter().enumerate() {
        let terms = RuleSpec::try_from(text).unwrap();
        let agent = (at % 2 == 0).then_some(one.id);
        let id = store.add_rule(agent, &terms).await.unwrap();
        expected.push(Rule { id, agent, terms });
    }
    assert_eq!(store.load().await.unwrap().rules, expected);

    let last = expected.pop().unwrap();
    store.remove_rule(last.id).await.unwrap();
    let again = store.remove_rule(last.id).await;
    assert!(matches!(again, Err(StoreError::NotFound { what: "rule", .. })), "{again:?}");
    let id = store.add_rule(None, &last.terms).await.unwrap();
    assert!(id > last.id, "a number is never reused");
    let nobody = store.add_rule(Some(AgentId(Uuid::from_u128(9))), &last.terms).await;
    assert!(matches!(nobody, Err(StoreError::NotFound { what: "agent", .. })), "{nobody:?}");

    store.remove_agent(one.id).await.unwrap();
    let left: Vec<_> = store.load().await.unwrap().rules.iter().map(|rule| rule.agent).collect();
    assert_eq!(left, [None; 3], "an agent's rules go with it");
}

pub(crate) async fn subscribers_receive_each_change(store: &dyn Store) {
    let mut changes = store.subscribe();
    let (one, key) = (agent(1, "one"), secret(1, "key"));
    let mut expect_signal = |what: &str, expected: bool| {
        assert_eq!(changes.has_changed().unwrap(), expected, "{what}");
        changes.mark_unchanged();
    };
    expect_signal("nothing", false);
    store.add_agent(&one, &hash(1)).await.unwrap();
    expect_signal("add_agent", true);
    store.add_secret(&key).await.unwrap();
    expect_signal("add_secret", true);
    store.grant(one.id, key.id).await.unwrap();
    expect_signal("grant", true);
    store.set_token(one.id, &hash(2), 2).await.unwrap();
    expect_signal("set_token", true);
    store.add_session(one.id, &hash(7), at(100), None).await.unwrap();
    expect_signal("add_session", true);
    store.prune_sessions(at(100)).await.unwrap();
    expect_signal("prune_sessions", true);
    store.set_agent_enabled(one.id, false).await.unwrap();
    expect_signal("set_agent_enabled", true);
    store.add_version(&version(&key, 2, 2), Some(&replaced_version(&key, 1, at(100)))).await.unwrap();
    expect_signal("add_version", true);
    store.prune_replaced(at(99), at(100)).await.unwrap();
    expect_signal("nothing was pruned", false);
    store.prune_replaced(at(100), at(200)).await.unwrap();
    expect_signal("prune_kept", true);
    store.set_secret_enabled(key.id, false).await.unwrap();
    expect_signal("set_secret_enabled", true);
    store.ungrant(one.id, key.id).await.unwrap();
    expect_signal("ungrant", true);
    store.remove_secret(key.id).await.unwrap();
    expect_signal("remove_secret", true);
    store.remove_agent(one.id).await.unwrap();
    expect_signal("remove_agent", true);

    assert!(store.remove_agent(one.id).await.is_err());
    store.insert_audit(&[audit_row(1, "one")]).await.unwrap();
    store.load().await.unwrap();
    expect_signal("failures, audit rows and reading", false);
}

const LOG: LogId = LogId(Uuid::from_u128(77));

fn audit_row(seq: u64, agent: &str) -> AuditRow {
    AuditRow {
        id: 0,
        log: LOG,
        seq,
        time: at(1000 + i64::try_from(seq).unwrap()),
        request_id: Some(RequestId(Uuid::from_u128(seq.into()))),
        event: "decision".to_owned(),
        agent: Some(agent.to_owned()),
        host: Some("api.example.com".to_owned()),
        verdict: Some("inject".to_owned()),
        code: None,
        launched_by: None,
        json: format!(r#"{{"seq":{seq}}}"#),
    }
}

pub(crate) async fn audit_rows_are_kept_once(store: &dyn Store) {
    assert_eq!(store.last_audit_seq(LOG).await.unwrap(), 0);
    store.insert_audit(&[]).await.unwrap();
    let rows: Vec<_> = (1..=1200).map(|seq| audit_row(seq, "one")).collect();
    store.insert_audit(&rows[..700]).await.unwrap();
    store.insert_audit(&rows[300..]).await.unwrap();
    store.insert_audit(&[AuditRow { json: "other".to_owned(), ..audit_row(1200, "two") }]).await.unwrap();
    assert_eq!(store.last_audit_seq(LOG).await.unwrap(), 1200);
    assert_eq!(store.last_audit_line(LOG).await.unwrap(), Some((1200, r#"{"seq":1200}"#.to_owned())));
    let all = store.list_audit(&AuditQuery { limit: 5000, ..AuditQuery::default() }).await.unwrap();
    assert!(all.is_sorted_by(|one, other| one.id < other.id), "in the order of arrival");
    assert_eq!(all.last().unwrap().id, store.last_audit_id().await.unwrap());
    let unnumbered: Vec<_> = all.into_iter().map(|row| AuditRow { id: 0, ..row }).collect();
    assert!(unnumbered == rows);
}

pub(crate) async fn audit_rows_of_several_logs(store: &dyn Store) {
    let other = LogId(Uuid::from_u128(78));
    let elsewhere = |seq| AuditRow { log: other, ..audit_row(seq, "two") };
    store
        .insert_audit(&[audit_row(1, "one"), elsewhere(1), elsewhere(2), audit_row(2, "one")])
        .await
        .unwrap();
    assert_eq!(store.last_audit_seq(LOG).await.unwrap(), 2);
    assert_eq!(store.last_audit_seq(LogId(Uuid::nil())).await.unwrap(), 0);
    assert_eq!(store.last_audit_line(LogId(Uuid::nil())).await.unwrap(), None);
    store.prune_audit(other, 1).await.unwrap();
    let left = store.list_audit(&AuditQuery::default()).await.unwrap();
    let left: Vec<_> = left.iter().map(|row| (row.log, row.seq)).collect();
    assert_eq!(left, [(LOG, 1), (other, 2), (LOG, 2)]);
    store.prune_audit(LOG, 2).await.unwrap();
    store.insert_audit(&[audit_row(3, "one")]).await.unwrap();
    assert_eq!(store.last_audit_id().await.unwrap(), 5, "an id is never reused");
}

pub(crate) async fn audit_rows_are_found(store: &dyn Store) {
    let alert = AuditRow {
        request_id: None,
        agent: None,
        host: None,
        verdict: None,
        event: "alert".to_owned(),
        code: Some("audit_torn".to_owned()),
        ..audit_row(3, "")
    };
    let denied = AuditRow {
        verdict: Some("deny".to_owned()),
        code: Some("egress_denied".to_owned()),
        host: Some("evil.example".to_owned()),
        ..audit_row(4, "two")
    };
    store.insert_audit(&[audit_row(1, "one"), audit_row(2, "two"), alert.clone(), denied]).await.unwrap();

    let text = |text: &str| Some(text.to_owned());
    let check = async |query: AuditQuery, expected: &[u64]| {
        let found: Vec<_> = store.list_audit(&query).await.unwrap().iter().map(|row| row.seq).collect();
        assert_eq!(found, expected, "{query:?}");
    };
    let all = AuditQuery::default;
    check(all(), &[1, 2, 3, 4]).await;
    check(AuditQuery { agent: text("two"), ..all() }, &[2, 4]).await;
    check(AuditQuery { agent: text("two"), host: text("evil.example"), ..all() }, &[4]).await;
    check(AuditQuery { verdict: text("inject"), ..all() }, &[1, 2]).await;
    check(AuditQuery { code: text("egress_denied"), ..all() }, &[4]).await;
    check(AuditQuery { event: text("alert"), ..all() }, &[3]).await;
    check(AuditQuery { request_id: Some(RequestId(Uuid::from_u128(2))), ..all() }, &[2]).await;
    check(AuditQuery { after_id: Some(2), ..all() }, &[3, 4]).await;
    check(AuditQuery { after_id: Some(u64::MAX), ..all() }, &[]).await;
    check(AuditQuery { since: Some(at(1002)), until: Some(at(1004)), ..all() }, &[2, 3]).await;
    check(AuditQuery { limit: 2, ..all() }, &[1, 2]).await;
    check(AuditQuery { limit: 2, newest_first: true, ..all() }, &[4, 3]).await;
    check(AuditQuery { agent: text("' OR 1=1 --"), ..all() }, &[]).await;
    let third = store.list_audit(&AuditQuery { after_id: Some(2), limit: 1, ..all() }).await.unwrap();
    assert_eq!(third, [AuditRow { id: 3, ..alert }]);
}

pub(crate) async fn facts(store: &dyn Store) {
    assert_eq!(store.get_meta("a").await.unwrap(), None);
    store.set_meta(&[("a", "1"), ("b", "2")]).await.unwrap();
    store.set_meta(&[("b", "3")]).await.unwrap();
    assert_eq!(store.get_meta("a").await.unwrap().as_deref(), Some("1"));
    assert_eq!(store.get_meta("b").await.unwrap().as_deref(), Some("3"));
    assert!(store.is_empty().await.unwrap(), "facts do not count as content");
}

pub(crate) async fn leases(store: &impl Store) {
    let lease = |id: &str| LeaseRow {
        id: id.to_owned(),
        agent: AgentId(Uuid::from_u128(7)),
        path: "database/creds/ro".to_owned(),
    };
    for id in ["b", "a", "b"] {
        store.add_lease(&lease(id)).await.unwrap();
    }
    assert_eq!(store.list_leases().await.unwrap(), [lease("a"), lease("b")]);
    store.remove_lease("a").await.unwrap();
    store.remove_lease("none").await.unwrap();
    assert_eq!(store.list_leases().await.unwrap(), [lease("b")]);
}
