//! The parts of the audit log and of the agent that a permitted runner sees: the requests of the runner's own runs.

use onecli_tests::bins;
use onecli_tests::client::{Outcome, Run};
use onecli_tests::daemon::Daemon;
use onecli_tests::need;
use onecli_tests::upstream::Upstream;
use serde_json::Value;

use super::{PERSON, Stage};
use crate::scene::{API, API_V6, Scene};

/// Another user who may run the agent (uid 6), and the uids of this user and of [`PERSON`].
const OTHER: &str = "man";
const UIDS: (u64, u64) = (2, 6);

/// Runs `onecli` as `user`.
fn onecli(stage: &Stage, user: &str, args: &[&str]) -> Outcome {
    let group = nix::unistd::User::from_name(user).unwrap().expect("it exists").gid.to_string();
    Run::new("setpriv")
        .args(["--reuid", user, "--regid", &group, "--clear-groups"])
        .arg(bins::path("onecli"))
        .arg("--socket")
        .arg(stage.scene.daemon.home().socket())
        .args(args)
        .outcome()
}

fn records(stage: &Stage, user: &str, args: &[&str]) -> Vec<Value> {
    let listed = onecli(stage, user, &[&["--json", "audit", "list"], args].concat()).ok("audit list");
    listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Checks that the command is not permitted, with these words.
fn forbidden(stage: &Stage, user: &str, args: &[&str], words: &str) -> String {
    let outcome = onecli(stage, user, args);
    assert_eq!(outcome.code(), Some(4), "{args:?}: {outcome:?}");
    assert!(outcome.err().contains(words), "{args:?}: {outcome:?}");
    assert_eq!(outcome.out(), "", "{args:?}");
    outcome.err()
}

fn hosts(records: &[Value]) -> Vec<&str> {
    let mut hosts: Vec<&str> = records.iter().filter_map(|record| record["host"].as_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// One run of each user, in which a host is refused, and one run of root.
fn run_once_each(stage: &Stage) {
    stage.scene.daemon.onecli(&["agent", "allow-run", "robot", OTHER]).ok("allow-run");
    for (user, host) in [(PERSON, "for-bin.test"), (OTHER, "for-man.test")] {
        let script = format!(
            "curl -s http://{host}/private/{user} >/dev/null; curl -s http://{host}/private/{user} >/dev/null; \
             exec 3<>/dev/udp/192.0.2.9/9999; true"
        );
        stage.run_as(user, &["--no-dir", "-q"], &["bash", "-c", &script]).outcome().ok(user);
    }
    stage.run_as("root", &["--no-dir", "-q"], &["curl", "-s", "http://for-root.test/"]).outcome().ok("root");
    let daemon = &stage.scene.daemon;
    let _ = daemon.audit_until("the last run", |record| record["host"] == "for-root.test");
    let launched = |host: &str| {
        let record = daemon.audit_until(host, |record| record["host"] == host && record["method"] == "GET");
        (record["launched_by"].as_u64(), record["uid"].as_u64())
    };
    // All run as the agent's user, uid 5.
    assert_eq!(launched("for-bin.test"), (Some(UIDS.0), Some(5)));
    assert_eq!(launched("for-man.test"), (Some(UIDS.1), Some(5)));
    assert_eq!(launched("for-root.test"), (Some(0), Some(5)));
}

#[test]
fn runner_sees_only_own_runs() {
    let Some(stage) = Stage::new() else { return };
    run_once_each(&stage);
    let daemon = &stage.scene.daemon;

    let own = records(&stage, PERSON, &["--agent", "robot"]);
    assert_eq!(hosts(&own), ["192.0.2.9", "for-bin.test"], "{own:#?}");
    for record in &own {
        assert_eq!(record["launched_by"], UIDS.0, "{record}");
        let tells_of_others = ["seq", "prev"].iter().any(|field| record.get(field).is_some());
        assert!(!tells_of_others, "sequence numbers reveal records of others: {record}");
    }
    assert_eq!(own, records(&stage, PERSON, &[]), "without a name: all agents of the runner");
    // No filter finds another user's record, and each returns the same as for a record that does not exist.
    let foreign = daemon.audit_until("the other user's record", |record| record["host"] == "for-man.test");
    let id = foreign["request_id"].as_str().unwrap();
    for filter in [
        &["--host", "for-man.test"][..],
        &["--request", id],
        &["--request", "0198c5a2-0000-7000-8000-000000000001"],
        &["--verdict", "inject"],
        &["--code", "no_such_code"],
    ] {
        assert_eq!(records(&stage, PERSON, filter), [] as [Value; 0], "{filter:?}");
    }
    assert_eq!(records(&stage, PERSON, &["--limit", "1"]).len(), 1);

    // `learn` proposes rules only for the runner's own refusals, too.
    let learned = onecli(&stage, PERSON, &["agent", "learn", "robot"]).ok("learn");
    assert!(learned.contains("for-bin.test") && !learned.contains("for-man.test"), "{learned}");
    let why = onecli(&stage, PERSON, &["why", "--agent", "robot", "GET", "http://for-man.test/"]).ok("why");
    assert!(why.contains("egress_denied"), "{why}");

    let shown = onecli(&stage, PERSON, &["--json", "agent", "show", "robot"]).ok("agent show");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["runners"], serde_json::json!([PERSON]), "other runners are hidden: {shown}");
    let placeholder = shown["secrets"][0].get("placeholder");
    assert!(shown["secrets"][0]["secret"] == "api" && placeholder.is_none(), "{shown}");
}

#[test]
fn runner_sees_all_runs_if_an_administrator_allowed_it() {
    let Some(stage) = Stage::new() else { return };
    run_once_each(&stage);
    let daemon = &stage.scene.daemon;
    let other = daemon.add_agent("secretive", &["--factors", "token"]);
    let _ = daemon.explicit(&other.token, onecli_tests::client::curl("http://elsewhere.test/")).outcome();
    let _ = daemon.audit_until("the other agent's", |record| record["host"] == "elsewhere.test");

    for args in [&["audit", "list", "--agent", "robot", "--all"][..], &["agent", "learn", "robot", "--all"]] {
        forbidden(&stage, PERSON, args, "only its own runs of agent 'robot'");
    }
    daemon.onecli(&["agent", "allow-run", "robot", PERSON, "--see-all", "yes"]).ok("see all");
    let record = daemon.audit_until("the change", |record| record["code"] == "runner_changed");
    assert!(record["rule"].as_str().unwrap().contains("runner bin sees every run, by uid 0"), "{record}");
    // Off by default.
    assert!(!hosts(&records(&stage, PERSON, &["--agent", "robot"])).contains(&"for-man.test"));
    let all = records(&stage, PERSON, &["--agent", "robot", "--all"]);
    let seen = hosts(&all);
    assert!(
        ["for-bin.test", "for-man.test", "for-root.test"].iter().all(|host| seen.contains(host)),
        "{seen:?}"
    );
    assert!(all.iter().all(|record| record["agent"] == "robot"), "{all:#?}");
    let learned = onecli(&stage, PERSON, &["agent", "learn", "robot", "--all"]).ok("learn --all");
    assert!(learned.contains("for-man.test"), "{learned}");
    // A plain allow-run preserves the setting. The other user still has none of it.
    daemon.onecli(&["agent", "allow-run", "robot", PERSON]).ok("again");
    assert_eq!(records(&stage, PERSON, &["--all"]), all);
    forbidden(&stage, OTHER, &["audit", "list", "--all"], "own runs");
    daemon.onecli(&["agent", "allow-run", "robot", PERSON, "--see-all", "no"]).ok("no more");
    forbidden(&stage, PERSON, &["audit", "list", "--agent", "robot", "--all"], "own runs");
}

#[test]
fn runner_sees_nothing_else() {
    let Some(stage) = Stage::new() else { return };
    run_once_each(&stage);
    let daemon = &stage.scene.daemon;
    let _ = daemon.add_agent("there", &["--factors", "token"]);
    for command in [
        &["agent", "show", "NAME"][..],
        &["agent", "learn", "NAME"],
        &["agent", "learn", "NAME", "--all"],
        &["audit", "list", "--agent", "NAME"],
        &["audit", "list", "--agent", "NAME", "--all"],
        &["why", "--agent", "NAME", "GET", "https://api.test/"],
    ] {
        // An agent that exists, and one that does not.
        let messages = ["there", "gone"].map(|name| {
            let args: Vec<_> = command.iter().map(|word| if *word == "NAME" { name } else { word }).collect();
            forbidden(&stage, PERSON, &args, "may not see agent").replace(name, "NAME")
        });
        assert_eq!(messages[0], messages[1], "{command:?}");
    }
    let listed = onecli(&stage, PERSON, &["--json", "agent", "list"]).ok("agent list");
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let names: Vec<_> =
        listed.as_array().unwrap().iter().map(|agent| agent["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["robot"], "only the runner's own records");
    for args in [
        &["status"][..],
        &["secret", "list"],
        &["secret", "show", "api"],
        &["rule", "list"],
        &["approval", "list"],
        &["ca", "show"],
        &["agent", "disable", "robot"],
        &["agent", "rotate", "robot"],
        &["agent", "allow-run", "robot", PERSON, "--see-all", "yes"],
        &["agent", "env", "robot"],
        &["grant", "robot", "api"],
        &["rule", "add", "allow", "--agent", "robot", "--host", "for-bin.test"],
    ] {
        forbidden(&stage, PERSON, args, "may only run agents");
    }
    for args in [&["audit", "tail"][..], &["audit", "tail", "-f"], &["audit", "export"]] {
        let outcome = onecli(&stage, PERSON, args);
        let is_list = args == ["audit", "tail"];
        assert_eq!(outcome.code(), Some(if is_list { 0 } else { 4 }), "{args:?}: {outcome:?}");
        assert!(!outcome.out().contains("for-man.test"), "{outcome:?}");
    }
    let many = onecli(&stage, PERSON, &["audit", "list", "--limit", "10000"]);
    assert!(many.code() == Some(1) && many.err().contains("at most 1000"), "{many:?}");
    // A user without a permission gets the same message as before.
    forbidden(&stage, "lp", &["audit", "list"], "may not use the OneCLI daemon");
    // The command itself may not query, regardless of the user who launched it.
    let inside = format!(
        "exec {} --socket {} audit list",
        bins::path("onecli").display(),
        daemon.home().socket().display()
    );
    let inside = stage.run_as(PERSON, &["--scope", "-q"], &["sh", "-c", &inside]).outcome();
    assert!(inside.code() == Some(4) && inside.err().contains("agents may not"), "{inside:?}");
    // A new entry shows no earlier records, because the uid may now belong to another user.
    daemon.onecli(&["agent", "deny-run", "robot", PERSON]).ok("deny-run");
    forbidden(&stage, PERSON, &["audit", "list", "--agent", "robot"], "may not use");
    daemon.onecli(&["agent", "allow-run", "robot", PERSON]).ok("allow-run");
    assert_eq!(records(&stage, PERSON, &["--agent", "robot"]), [] as [Value; 0]);
}

/// Without redirection, the session token identifies the user who launched the command. The agent's own token does not.
#[test]
fn session_token_identifies_the_user_who_launched_the_command() {
    if !need::root("agents of several users") || !need::program("agents", "setpriv", "util-linux") {
        return;
    }
    let upstream = Upstream::start(&[API, API_V6]);
    let stage = Stage::of(Scene::of(Daemon::builder().no_ebpf(), upstream, &["--bearer"]));
    let daemon = &stage.scene.daemon;
    let _ = stage.run_as(PERSON, &["--no-dir", "-q"], &["curl", "-s", "http://for-bin.test/"]).outcome();
    let _ =
        daemon.explicit(&stage.robot.token, onecli_tests::client::curl("http://for-nobody.test/")).outcome();
    let record = daemon.audit_until("the token's", |record| record["host"] == "for-nobody.test");
    assert_eq!(record.get("launched_by"), None, "{record}");
    let record = daemon.audit_until("the session's", |record| record["host"] == "for-bin.test");
    assert_eq!(record["launched_by"], UIDS.0, "{record}");
    assert_eq!(hosts(&records(&stage, PERSON, &[])), ["for-bin.test"]);
}
