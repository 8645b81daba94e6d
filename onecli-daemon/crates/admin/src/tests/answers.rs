//! The answer to each operation, for each kind of peer. `answers.txt` has the expected answers.

use std::fmt::Write;
use std::sync::Arc;

use http::Method;
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::access::peer::Rights;
use crate::context::{AdminContext, RunnableAgent};
use crate::routing::{AdminRequest, HandlerResponse, route};
use crate::testing::{FakeDaemon, Served, root};

const AGENT: &str = r#"{"name":"mine"}"#;
const EXPLAIN: &str = r#"{"agent":"mine","method":"GET","url":"https://a.test/"}"#;
const EXPLAIN_OTHER: &str = r#"{"agent":"other","method":"GET","url":"https://a.test/"}"#;
const RULE: &str = r#"{"terms":{"action":"deny","host":"a.test"}}"#;
const SINCE: &str = "since=2026-01-01T00:00:00Z&launched_by=0";

/// Method, path, query and body.
const REQUESTS: &[(&str, &str, &str, &str)] = &[
    ("GET", "/v1/status", "", ""),
    ("GET", "/v1/running", "", ""),
    ("GET", "/v1/doctor", "", ""),
    ("GET", "/v1/audit", "", ""),
    ("GET", "/v1/audit", "all=true", ""),
    ("GET", "/v1/audit", "limit=x", ""),
    ("GET", "/v1/audit", "limit=9999", ""),
    ("GET", "/v1/audit", "agent=other", ""),
    ("GET", "/v1/audit", "every_run=true", ""),
    ("GET", "/v1/ca", "", ""),
    ("POST", "/v1/ca/rotate", "", ""),
    ("POST", "/v1/ca/finish", "", ""),
    ("GET", "/v1/key", "", ""),
    ("POST", "/v1/key/slots", "", ""),
    ("DELETE", "/v1/key/slots/x", "", ""),
    ("DELETE", "/v1/key/slots/77", "", ""),
    ("POST", "/v1/key/rotate", "", ""),
    ("GET", "/v1/backup", "", ""),
    ("GET", "/v1/agents", "", ""),
    ("POST", "/v1/agents", "", AGENT),
    ("POST", "/v1/agents", "", "{"),
    ("GET", "/v1/agents/mine", "", ""),
    ("GET", "/v1/agents/other", "", ""),
    ("GET", "/v1/agents/gone", "", ""),
    ("GET", "/v1/agents/A", "", ""),
    ("GET", "/v1/agents/%6dine", "", ""),
    ("GET", "/v1/agents/%ff", "", ""),
    ("POST", "/v1/agents/mine/set", "", "{}"),
    ("POST", "/v1/agents/A/set", "", "{"),
    ("DELETE", "/v1/agents/gone", "", ""),
    ("DELETE", "/v1/agents/gone", "kill=true", ""),
    ("DELETE", "/v1/agents/gone", "kill=maybe", ""),
    ("DELETE", "/v1/agents/A", "kill=maybe", ""),
    ("POST", "/v1/agents/mine/rotate", "", ""),
    ("POST", "/v1/agents/mine/enable", "", ""),
    ("POST", "/v1/agents/mine/disable", "", ""),
    ("POST", "/v1/agents/mine/enable", "", ""),
    ("POST", "/v1/agents/gone/session", "", "{}"),
    ("POST", "/v1/agents/gone/env", "", r#"{"hours":1}"#),
    ("PUT", "/v1/agents/mine/runners/root", "", ""),
    ("PUT", "/v1/agents/mine/runners/root", "see_all=true", ""),
    ("PUT", "/v1/agents/A/runners/root", "see_all=x", ""),
    ("PUT", "/v1/agents/mine/runners/@root", "", ""),
    ("DELETE", "/v1/agents/mine/runners/@root", "", ""),
    ("DELETE", "/v1/agents/mine/runners/%40root", "", ""),
    ("GET", "/v1/agents/mine/learn", "", ""),
    ("GET", "/v1/agents/mine/learn", "every_run=true", ""),
    ("GET", "/v1/agents/mine/learn", "x", ""),
    ("GET", "/v1/agents/other/learn", "", ""),
    ("GET", "/v1/agents/mine/refusals", SINCE, ""),
    ("GET", "/v1/agents/mine/refusals", "", ""),
    ("GET", "/v1/secrets", "", ""),
    ("POST", "/v1/secrets", "", "{}"),
    ("POST", "/v1/secrets-import", "", r#"{"values":[]}"#),
    ("GET", "/v1/vault", "", ""),
    ("POST", "/v1/vault/import", "", r#"{"path":"kv/a"}"#),
    ("GET", "/v1/secrets/gone", "", ""),
    ("DELETE", "/v1/secrets/gone", "", ""),
    ("POST", "/v1/secrets/gone/rotate", "", r#"{"value":"c2stMTIzNDU2Nzg="}"#),
    ("POST", "/v1/secrets/gone/edit", "", r#"{"version":1}"#),
    ("POST", "/v1/secrets/gone/rollback", "", ""),
    ("POST", "/v1/secrets/gone/enable", "", ""),
    ("POST", "/v1/secrets/gone/disable", "", ""),
    ("POST", "/v1/secrets/gone/test", "", "{}"),
    ("PUT", "/v1/grants/mine/gone", "", ""),
    ("DELETE", "/v1/grants/mine/gone", "", ""),
    ("GET", "/v1/rules", "", ""),
    ("POST", "/v1/rules", "", RULE),
    ("DELETE", "/v1/rules/x", "", ""),
    ("DELETE", "/v1/rules/77", "", ""),
    ("POST", "/v1/explain", "", EXPLAIN),
    ("POST", "/v1/explain", "", EXPLAIN_OTHER),
    ("POST", "/v1/explain", "", "{"),
    ("GET", "/v1/approvals-watch", "", ""),
    ("GET", "/v1/approvals", "", ""),
    ("GET", "/v1/approvals/x", "", ""),
    ("POST", "/v1/approvals/x/allow", "", ""),
    ("POST", "/v1/approvals/x/deny", "", ""),
    // No operation, or another method.
    ("HEAD", "/v1/status", "", ""),
    ("POST", "/v1/status", "", ""),
    ("OPTIONS", "/v1/agents", "", ""),
    ("PATCH", "/v1/agents/mine", "", ""),
    ("PUT", "/v1/agents", "", ""),
    ("POST", "/v1/key", "", ""),
    ("PUT", "/v1/key/slots", "", ""),
    ("GET", "/v1/key/slots", "", ""),
    ("DELETE", "/v1/key/none/such", "", ""),
    ("POST", "/v1/backup", "", ""),
    ("GET", "/v1/status/", "", ""),
    ("GET", "/v1/agents/", "", ""),
    ("GET", "/v1/agents//learn", "", ""),
    ("GET", "//v1/status", "", ""),
    ("GET", "//v1/agents/mine", "", ""),
    ("GET", "/v1//status", "", ""),
    ("GET", "/v1", "", ""),
    ("GET", "/v1/", "", ""),
    ("GET", "/v2/status", "", ""),
    ("GET", "/", "", ""),
    ("GET", "/v1/nothing", "", ""),
    ("GET", "/v1/%73tatus", "", ""),
];

/// The peers: administrators, an auditor, an auditor who may run `mine`, and a user who may run it.
const PEERS: [(&str, Rights, bool); 5] = [
    ("root", Rights::Root, false),
    ("group onecli", Rights::Write, false),
    ("group onecli-audit", Rights::Audit, false),
    ("group onecli-audit, runner", Rights::Audit, true),
    ("runner", Rights::Runner, true),
];

/// Creates the agents, and returns the one that runners may run.
fn mine(served: &Served, context: &Arc<AdminContext>) -> RunnableAgent {
    for name in ["mine", "other"] {
        let add = serde_json::from_str(&format!(r#"{{"name":"{name}"}}"#)).unwrap();
        served.block_on(crate::handlers::agents::add(context, add)).map_err(|error| error.to_string()).unwrap();
    }
    let mut stored = served.state().agents.into_iter().map(|stored| stored.agent);
    let agent = stored.find(|agent| agent.name.as_str() == "mine").unwrap();
    let entries = vec!["root".parse().unwrap()];
    RunnableAgent { id: agent.id, name: agent.name, entries, since: Timestamp::MIN, sees_all: None }
}

fn answer(
    served: &Served,
    context: &Arc<AdminContext>,
    (rights, runs): (Rights, Arc<[RunnableAgent]>),
    &(method, path, query, body): &(&str, &str, &str, &str),
) -> String {
    let call = AdminRequest {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        path: path.to_owned(),
        query: query.to_owned(),
        body: Zeroizing::new(body.as_bytes().to_vec()),
        uid: 1000,
        runs,
    };
    match served.block_on(route(Arc::clone(context), rights, call)) {
        Ok(HandlerResponse::Json(status, _)) => format!("{} application/json", status.as_u16()),
        Ok(HandlerResponse::Backup) => "200 application/vnd.sqlite3".to_owned(),
        Ok(_) => "200 application/jsonl".to_owned(),
        Err(error) => {
            let body = error.body().error;
            format!("{} {} {}", error.status().as_u16(), body.code, body.message)
        }
    }
}

#[test]
fn each_peer_gets_the_expected_answers() {
    if !root("the answers of the admin API") {
        return;
    }
    let mut answers = String::new();
    for (peer, rights, is_runner) in PEERS {
        let served = Served::start(FakeDaemon::redirecting());
        let context = Arc::new(AdminContext::new(served.handles()));
        let mine = mine(&served, &context);
        let runs: Arc<[RunnableAgent]> = if is_runner { [mine].into() } else { Arc::default() };
        for request in REQUESTS {
            let answer = answer(&served, &context, (rights, Arc::clone(&runs)), request);
            let (method, path, query, body) = request;
            writeln!(answers, "{peer}: {method} {path}?{query} {body} -> {answer}").unwrap();
        }
    }
    if let Some(file) = std::env::var_os("ONECLI_WRITE_ANSWERS") {
        std::fs::write(file, &answers).unwrap();
    }
    for (answer, expected) in answers.lines().zip(include_str!("answers.txt").lines()) {
        assert_eq!(answer, expected);
    }
    assert_eq!(answers.lines().count(), include_str!("answers.txt").lines().count());
}
