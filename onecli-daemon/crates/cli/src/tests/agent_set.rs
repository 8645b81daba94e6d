//! `agent set`: the same checks as for a new agent, an audit record, and no change to unnamed fields.

use onecli_api::{AgentChanged, AgentSet};
use onecli_model::{Egress, Factors};

use super::*;

fn set(client: &Client, request: &AgentSet) -> Result<AgentChanged, ClientError> {
    client.post(&routes::agent_action(&"a".parse().unwrap(), "set"), request)
}

fn changes(changed: &AgentChanged) -> Vec<String> {
    changed.changes.iter().map(|one| format!("{} {} -> {}", one.field, one.from, one.to)).collect()
}

#[test]
fn named_fields_change_and_are_recorded() {
    if !root("commands against the admin server") {
        return;
    }
    let served = Served::start(FakeDaemon::redirecting());
    let client = Client::new(served.socket());
    add_agent(&client, "a", |_| {}).unwrap();
    let egress = AgentSet { egress: Some(Egress::Allow), ..AgentSet::default() };
    assert_eq!(changes(&set(&client, &egress).unwrap()), ["egress deny -> allow"]);
    let expected = "agent_changed: agent a: egress deny -> allow, by uid 0";
    assert_eq!(served.host().recorded().last().map(String::as_str), Some(expected));

    let several = AgentSet {
        factors: Some(Factors::CGROUP),
        user: Some("games".to_owned()),
        allow_git_config: Some(true),
        ..AgentSet::default()
    };
    let changed = set(&client, &several).unwrap();
    assert_eq!(
        changes(&changed),
        ["factors token+cgroup -> cgroup", "user none -> games", "allow_git_config no -> yes"]
    );
    assert_eq!(changed.agent.egress, Egress::Allow, "an earlier change is retained");
    let records = served.host().recorded().len();
    assert_eq!(changes(&set(&client, &several).unwrap()), [""; 0], "the settings are unchanged");
    assert_eq!(served.host().recorded().len(), records);
    let none = AgentSet { no_user: true, ..AgentSet::default() };
    assert_eq!(changes(&set(&client, &none).unwrap()), ["user games -> none"]);
}

#[test]
fn changes_pass_the_checks_of_a_new_agent() {
    if !root("commands against the admin server") {
        return;
    }
    let served = Served::start(FakeDaemon::redirecting());
    let client = Client::new(served.socket());
    add_agent(&client, "a", |_| {}).unwrap();
    add_agent(&client, "b", |r| r.user = Some("games".to_owned())).unwrap();
    let user = |name: &str| AgentSet { user: Some(name.to_owned()), ..AgentSet::default() };
    let cgroup = |name: &str| AgentSet { cgroup: Some(name.parse().unwrap()), ..AgentSet::default() };
    refused(set(&client, &user("root")), &["never runs as root"]);
    refused(set(&client, &user("games")), &["belongs to agent 'b'"]);
    refused(set(&client, &user("no-such-user-here")), &["no user 'no-such-user-here'"]);
    refused(
        set(&client, &AgentSet { no_user: true, ..user("bin") }),
        &["name a user or remove it, not both"],
    );
    refused(set(&client, &cgroup("onecli-agents-b.slice")), &["belongs to agent 'b'"]);
    served.host().populate("full.slice", false);
    refused(set(&client, &cgroup("full.slice")), &["the cgroup 'full.slice' already contains processes"]);

    // Running processes keep their identity: their cgroup and user must not change.
    served.host().populate("onecli-agents-a.slice", false);
    for request in [user("bin"), cgroup("other.slice")] {
        refused(set(&client, &request), &["processes run as agent 'a'", "cgroup.kill"]);
    }
    let egress = AgentSet { egress: Some(Egress::Allow), ..AgentSet::default() };
    set(&client, &egress).unwrap();
    served.host().populate("elsewhere.slice", false);
    let moved = set(&client, &cgroup("other.slice")).unwrap();
    assert_eq!(moved.agent.cgroup.as_str(), "other.slice");
    let cgroups = served.host().cgroups();
    assert!(!cgroups.contains(&"onecli-agents-a.slice".to_owned()), "the old one is removed: {cgroups:?}");
    assert!(served.host().recorded().iter().all(|event| !event.contains("root") && !event.contains("games")));
}

/// Concurrent administrators each change a different field. No change is lost.
#[test]
fn concurrent_changes_are_all_stored() {
    if !root("commands against the admin server") {
        return;
    }
    let served = Served::start(FakeDaemon::redirecting());
    let client = Client::new(served.socket());
    add_agent(&client, "a", |_| {}).unwrap();
    let requests = [
        AgentSet { egress: Some(Egress::Allow), ..AgentSet::default() },
        AgentSet { factors: Some(Factors::TOKEN), ..AgentSet::default() },
        AgentSet { user: Some("games".to_owned()), ..AgentSet::default() },
        AgentSet { allow_git_config: Some(true), ..AgentSet::default() },
    ];
    std::thread::scope(|scope| {
        for request in &requests {
            let client = Client::new(served.socket());
            scope.spawn(move || set(&client, request).unwrap());
        }
    });
    let detail: AgentDetail = client.get(&routes::agent(&"a".parse().unwrap())).unwrap();
    let agent = detail.agent;
    assert_eq!((agent.egress, agent.factors), (Egress::Allow, Factors::TOKEN));
    assert_eq!((agent.user.as_deref(), agent.allow_git_config), (Some("games"), true));
}
