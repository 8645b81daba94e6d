//! Changes of agents, the rights of a runner, and the audit rows that a runner may read.

use onecli_model::{Agent, Egress, Factors, RequestId, Runner, TokenHash};
use uuid::Uuid;

use super::{agent, at, audit_row};
use crate::{AgentChange, AuditQuery, AuditRow, RunnerChange, RunnerRow, Store, StoreError};

pub(crate) async fn runners_come_and_go(store: &impl Store) {
    let (one, other) = (agent(1, "one"), agent(2, "other"));
    store.add_agent(&one, &TokenHash([1; 32])).await.unwrap();
    store.add_agent(&other, &TokenHash([2; 32])).await.unwrap();
    let [alice, devs] = ["alice", "@devs"].map(|text| text.parse::<Runner>().unwrap());
    let change =
        |may| if may { RunnerChange::Allow { since: at(7), sees_all: None } } else { RunnerChange::Deny };
    for (runner, may, changed) in [
        (&alice, true, true),
        (&alice, true, false),
        (&devs, true, true),
        (&alice, false, true),
        (&alice, false, false),
    ] {
        assert_eq!(store.set_runner(one.id, runner, change(may)).await.unwrap(), changed, "{runner} {may}");
    }
    assert_eq!(store.runners(one.id).await.unwrap(), std::slice::from_ref(&devs));
    assert_eq!(store.runners(other.id).await.unwrap(), []);
    let entry = async || {
        let all = store.all_runners().await.unwrap();
        let [RunnerRow { name, runner, sees_all, since, .. }] = all.as_slice() else { panic!("{all:?}") };
        (name.to_string(), runner.to_string(), *sees_all, *since)
    };
    let see = |sees_all| RunnerChange::Allow { since: at(9), sees_all };
    for (sees_all, changed, expected) in [
        (None, false, false),
        (Some(true), true, true),
        (Some(true), false, true),
        (None, false, true),
        (Some(false), true, false),
    ] {
        assert_eq!(store.set_runner(one.id, &devs, see(sees_all)).await.unwrap(), changed, "{sees_all:?}");
        let expected = ("one".to_owned(), "@devs".to_owned(), expected, at(7));
        assert_eq!(entry().await, expected, "an entry retains its time: {sees_all:?}");
    }
    store.remove_agent(one.id).await.unwrap();
    assert_eq!(store.runners(one.id).await.unwrap(), []);
    assert!(!store.set_runner(one.id, &devs, change(true)).await.unwrap(), "a removed agent");
}

pub(crate) async fn audit_rows_of_a_runner(store: &dyn Store) {
    let text = |text: &str| Some(text.to_owned());
    let all = AuditQuery::default;
    let check = async |query: AuditQuery, expected: &[u64]| {
        let found: Vec<_> = store.list_audit(&query).await.unwrap().iter().map(|row| row.seq).collect();
        assert_eq!(found, expected, "{query:?}");
    };
    let by = |seq, uid| AuditRow { launched_by: Some(uid), ..audit_row(seq, "two") };
    store.insert_audit(&[audit_row(4, "two"), by(5, 1000), by(6, 1001), by(7, 1000)]).await.unwrap();
    let own = || AuditQuery { agent: text("two"), launched_by: Some(1000), ..all() };
    check(own(), &[5, 7]).await;
    check(AuditQuery { launched_by: Some(u32::MAX), ..own() }, &[]).await;
    check(AuditQuery { agent: text("one"), ..own() }, &[]).await;
    check(AuditQuery { agent: text("two"), not_by_others: Some(1001), ..all() }, &[4, 6]).await;
    // Only the newest of this user's rows are searched, whatever the conditions.
    check(AuditQuery { max_rows_read: Some(1), ..own() }, &[7]).await;
    let first = Some(RequestId(Uuid::from_u128(5)));
    check(AuditQuery { max_rows_read: Some(1), request_id: first, ..own() }, &[]).await;
    check(AuditQuery { max_rows_read: Some(2), request_id: first, ..own() }, &[5]).await;
    check(AuditQuery { max_rows_read: Some(2), newest_first: true, limit: 1, ..own() }, &[7]).await;
}

/// Two changes of different fields, both based on the same earlier state, are both stored.
pub(crate) async fn agents_change(store: &dyn Store) {
    let (one, other) = (agent(1, "one"), agent(2, "other"));
    store.add_agent(&one, &TokenHash([1; 32])).await.unwrap();
    store.add_agent(&other, &TokenHash([2; 32])).await.unwrap();
    let user = |name: &str| AgentChange { user: Some(Some(name.to_owned())), ..AgentChange::default() };
    let factors = AgentChange { factors: Some(Factors::TOKEN), ..AgentChange::default() };
    let rest = AgentChange {
        cgroup: Some("elsewhere.slice".parse().unwrap()),
        egress: Some(Egress::Allow),
        ..AgentChange::default()
    };
    for change in [&factors, &rest, &user("builder"), &AgentChange::default()] {
        store.change_agent(one.id, change).await.unwrap();
    }
    let expected = Agent {
        factors: Factors::TOKEN,
        cgroup: "elsewhere.slice".parse().unwrap(),
        egress: Egress::Allow,
        user: Some("builder".to_owned()),
        ..one.clone()
    };
    assert_eq!(store.load().await.unwrap().agents[0].agent, expected);
    assert_eq!(store.load().await.unwrap().agents[1].agent, other);
    for change in [user("builder"), AgentChange { egress: None, ..rest }] {
        let taken = store.change_agent(other.id, &change).await;
        assert!(matches!(taken, Err(StoreError::Taken { .. })), "{taken:?}");
    }
    store.change_agent(one.id, &AgentChange { user: Some(None), ..AgentChange::default() }).await.unwrap();
    assert_eq!(store.load().await.unwrap().agents[0].agent.user, None);
}
