//! Attempts with more than one actor: a daemon that is down, a reused 4-tuple, floods, names that would nest.

use onecli_tests::client::Run;
use serde_json::{Value, json};

use super::able;
use super::stage::{Attempt, Mode, Stage};

/// A port for reused 4-tuples and for listeners, outside the range of ephemeral ports.
const SOURCE: u16 = 30_303;
/// More than the kernel's table of announced connections holds (32,768), in several processes because of their
/// descriptor limits.
const FLOOD: (usize, usize) = (8, 5_000);

impl Stage {
    /// The agents to which the daemon attributes a row's requests, oldest first.
    fn attributed_agents(&self, row: &str) -> Vec<Value> {
        let host = format!("{}.escape.test", row.replace('_', "-"));
        // Filtered by host: a flood leaves more records than a list shows.
        let list = self.daemon.onecli(&["--json", "audit", "list", "--host", &host]).ok("audit list");
        let mut records: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        records.sort_by_key(|r| r["seq"].as_u64());
        records.into_iter().map(|r| r["agent"].clone()).collect()
    }

    /// The agents that the records name, oldest first.
    fn agents_on_record(&self) -> Vec<Value> {
        let records = self.daemon.audit();
        records.into_iter().map(|r| r["agent"].clone()).filter(|agent| !agent.is_null()).collect()
    }

    /// The first agent binds the daemon's address and the second sends various requests: the first receives none.
    fn squat(&self, squatter: &'static str) {
        let in_place = self.start(squatter, &json!({}), |run| self.wrapped(Mode::Placed, run));
        for victim in ["tcp4", "tcp6", "dns4", "udp4_sendto"] {
            let result = self.one(victim, &json!({}), |run| self.as_other(&self.host, run));
            let refused = ["EPERM", "ECONNREFUSED", "silence"].contains(&result.as_str());
            assert!(refused, "{victim} while {squatter}: {result}");
        }
        assert_eq!(in_place.result(), "silence", "{squatter} received data of another agent");
    }

    /// Checks that no packet reached the target.
    fn nothing_arrived(&self, what: &str) {
        let packets = self.target.packets();
        assert!(packets.is_empty(), "{what}: {packets:#?}");
    }
}

/// `a` and `a-b`: as slices of systemd the second would be inside the first.
#[test]
fn cgroups_of_agents_with_dashed_names_do_not_nest() {
    if !able() {
        return;
    }
    let stage = Stage::new();
    let (one, other) = (&stage.one_cgroup, &stage.other_cgroup);
    assert!(one != other && one.parent() == other.parent(), "{} and {}", one.display(), other.display());
    let as_one = |run: &Run| stage.wrapped(Mode::Placed, run);
    let as_other = |run: &Run| stage.as_other(&stage.host, run);
    for _ in 0..3 {
        assert_eq!(stage.one("tcp4", &json!({}), as_one), "answered HTTP/1.1 403 Forbidden");
        assert_eq!(stage.one("tcp4", &json!({}), as_other), "answered HTTP/1.1 403 Forbidden");
    }
    assert_eq!(stage.attributed_agents("tcp4"), ["a", "a-b", "a", "a-b", "a", "a-b"]);
    // The first agent cannot reach listeners of the second.
    let parameters = || json!({ "source": SOURCE });
    let listener = stage.start("listen_alone", &parameters(), as_other);
    assert_eq!(stage.one("listener_of_another", &parameters(), as_one), "answered HTTP/1.1 403 Forbidden");
    assert_eq!(stage.attributed_agents("listener_of_another"), ["a"]);
    assert_eq!(listener.result(), "silence");
    stage.nothing_arrived("two agents");
}

/// A process outside every agent is not identified as one, and reaches nothing.
#[test]
fn unmanaged_processes_on_the_transparent_port_are_refused() {
    if !able() {
        return;
    }
    let stage = Stage::new();
    let port = stage.daemon.transparent_addr().port();
    for row in ["transparent_port", "transparent_port6"] {
        let answer = stage.one(row, &json!({}), |run| stage.wrapped(Mode::Outside, run));
        assert!(answer.starts_with("answered HTTP/1.1 403"), "{row}: {answer}");
    }
    assert_eq!(stage.agents_on_record(), Vec::<Value>::new());
    // Connections to another machine are refused too.
    for address in ["198.51.100.1", "2001:db8:e5c::1", "127.0.0.1", "::1"] {
        let got = stage.target.ask(&json!({ "op": "connect", "address": address, "port": port }));
        assert_eq!(got["got"], "", "{address}");
    }
}

/// While the daemon is down no process gets out or takes its place, and an impostor receives no connections of others.
#[test]
fn stopped_daemon_lets_no_process_out_or_take_its_place() {
    if !able() {
        return;
    }
    let mut stage = Stage::new();
    // A process that started before the daemon died, in the way the launcher starts it.
    let go = stage.signal("go");
    let rows =
        ["tcp4", "tcp6", "dns4", "dns_over_tcp", "udp4_sendto", "tcp4_bound_device", "bind_transparent4"];
    let rows: Vec<_> = (0..).zip(rows).map(|(index, name)| Attempt { name, index }).collect();
    let python = stage.python(Mode::Launched, &rows, &json!({ "wait": go }));
    let launched = stage.wrapped(Mode::Launched, &python).start();
    let as_one = |stage: &Stage, run: &Run| stage.wrapped(Mode::Placed, run);
    // The daemon must not stop before the interpreter runs and waits for the signal.
    let started = onecli_tests::wait_for(std::time::Duration::from_secs(10), || {
        let procs = onecli_tests::cgroup::processes(&stage.one_cgroup);
        let names = procs.iter().map(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")));
        names.flatten().any(|name| name.starts_with("python3")).then_some(())
    });
    assert!(started.is_some(), "the launched attempts did not start");
    stage.daemon.kill();

    std::fs::write(&go, "").unwrap();
    let outcome = launched.finish();
    let _ = outcome.ok("the launched attempts");
    for report in super::world::reports(&outcome.stdout) {
        let refused = ["EPERM", "ECONNREFUSED", "silence"].contains(&report.result.as_str());
        assert!(refused, "{report:?}");
    }
    for bind in ["bind_transparent4", "bind_transparent_any4", "bind_transparent6", "bind_resolver"] {
        assert_eq!(stage.one(bind, &json!({}), |run| as_one(&stage, run)), "EPERM", "{bind}");
    }
    for squatter in ["squat_tcp4", "squat_tcp6"] {
        stage.squat(squatter);
    }
    stage.nothing_arrived("a daemon that is down");
    stage.daemon.restart();
    let back = stage.one("tcp4", &json!({}), |run| as_one(&stage, run));
    assert_eq!(back, "answered HTTP/1.1 403 Forbidden");
}

/// The identity belongs to the connection, not to its addresses.
#[test]
fn identity_follows_the_connection_when_a_four_tuple_is_reused() {
    if !able() {
        return;
    }
    let stage = Stage::new();
    let parameters = || json!({ "source": SOURCE });
    let as_one = |run: &Run| stage.wrapped(Mode::Placed, run);
    let as_other = |run: &Run| stage.as_other(&stage.host, run);
    let as_nobody = |run: &Run| stage.wrapped(Mode::Outside, run);
    let refusal = "answered HTTP/1.1 403 Forbidden";

    // One after the other.
    for _ in 0..3 {
        assert_eq!(stage.one("tuple_of_agent", &parameters(), as_one), refusal);
        assert_eq!(stage.one("tuple_of_stranger", &parameters(), as_nobody), refusal);
        assert_eq!(stage.one("tuple_of_agent", &parameters(), as_other), refusal);
    }
    assert_eq!(stage.attributed_agents("tuple_of_agent"), ["a", "a-b", "a", "a-b", "a", "a-b"]);
    assert_eq!(stage.agents_on_record().len(), 6, "requests of the other process are attributed to no agent");

    // At the same time, in another network namespace. There either no process listens, or the daemon does, but not for
    // that tuple.
    let held = stage.start("tuple_held", &parameters(), as_one);
    let far = stage.one("tuple_of_agent", &parameters(), |run| stage.as_other(&stage.far, run));
    assert!([refusal, "ECONNREFUSED", "EPERM"].contains(&far.as_str()), "{far}");
    assert_eq!(held.result(), refusal);
    assert_eq!(stage.attributed_agents("tuple_held"), ["a"]);
    let agents = stage.attributed_agents("tuple_of_agent");
    assert!(agents[6..].iter().all(|agent| agent == "a-b"), "{agents:?}");

    // A failed connection neither takes another identity nor provides one.
    assert_eq!(stage.one("tuple_withdrawn", &parameters(), as_one), refusal);
    assert_eq!(stage.attributed_agents("tuple_withdrawn"), ["a"]);
    stage.nothing_arrived("4-tuples");
}

/// One agent opens more connections than the kernel's table holds, half of which never complete. They are never
/// attributed to another agent and block no other agent.
#[test]
fn flood_of_connections_does_not_affect_other_agents() {
    if !able() {
        return;
    }
    let stage = Stage::new();
    let stop = stage.signal("stop");
    let parameters =
        json!({ "stop": stop, "flood_processes": FLOOD.0, "flood_connections": FLOOD.1, "many": 10 });
    let as_other = |run: &Run| stage.as_other(&stage.host, run);
    let before = stage.one("many", &parameters, as_other);
    let flood = stage.start("flood", &parameters, |run| stage.wrapped(Mode::Placed, run));
    let during = stage.one("many", &parameters, as_other);
    std::fs::write(&stop, "").unwrap();
    let after = stage.one("many", &parameters, as_other);
    println!("before the flood: {before}; during it: {during}; when it ends: {after}");
    assert_eq!(flood.result(), "flooded");
    for (when, served) in [("during", &during), ("after", &after)] {
        assert!(served.starts_with("judged 10 nothing 0 "), "{when} the flood: {served}");
    }
    let agents = stage.attributed_agents("many");
    let wrong: Vec<_> = agents.iter().filter(|agent| *agent != "a-b").collect();
    assert!(wrong.is_empty() && agents.len() == 30, "{wrong:?} of {}", agents.len());
    stage.nothing_arrived("a flood");
}

/// While the daemon is down no process receives another agent's queries on the resolver's port. A datagram socket can
/// obtain that port without bind(2).
#[test]
fn stopped_resolver_leaks_no_queries_to_another_agent() {
    if !able() {
        return;
    }
    let mut stage = Stage::new();
    stage.daemon.kill();
    stage.squat("squat_udp4");
    stage.nothing_arrived("a resolver that is down");
}

/// A process puts control sequences in its name. The command line prints its records only with escapes.
#[test]
fn control_sequences_in_process_names_are_escaped() {
    if !able() {
        return;
    }
    /// The names, of at most 15 bytes as prctl(2) accepts them, and their form in the log.
    const NAMES: [(&str, &str); 4] = [
        ("\u{1b}[2Jgone", r"\u{1b}[2Jgone"),
        ("\u{9b}2Jgone", r"\u{9b}2Jgone"),
        ("\u{202e}enog", r"\u{202e}enog"),
        ("a\nb\rc", r"a\u{a}b\u{d}c"),
    ];
    let stage = Stage::new();
    // Separate ports, because the audit log folds similar refusals.
    for (port, (name, _)) in (20_000..).zip(NAMES) {
        let rows = json!({ "rows": [{ "name": "udp4_sendto", "port": port, "comm": name }] });
        let result = stage.one("udp4_sendto", &rows, |run| stage.wrapped(Mode::Launched, run));
        assert_eq!(result, "EPERM");
    }
    for (_, escaped) in NAMES {
        let _ = stage.daemon.audit_until("the name", |record| record["comm"] == escaped);
    }
    for format in ["jsonl", "csv", "ocsf"] {
        let printed = stage.daemon.onecli(&["audit", "export", "--format", format]).ok("audit export");
        let astray =
            |c: char| matches!(c, '\u{202a}'..='\u{202e}') || (c.is_control() && !matches!(c, '\r' | '\n'));
        assert!(!printed.contains(astray), "{format}: {printed:?}");
        assert!(printed.contains("enog"), "{format}: {printed:?}");
    }
}
