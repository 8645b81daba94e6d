//! The answer to each operation, for each kind of peer. `answers.txt` has the expected answers.

use std::fmt::Write;
use std::sync::Arc;

use axum::body::Body;
use http::header::{self, HeaderName};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use jiff::Timestamp;
use onecli_api::{Access, ErrorBody, endpoints};
use zeroize::Zeroizing;

use crate::access::peer::Rights;
use crate::context::{AdminContext, RunnableAgent};
use crate::routing::{self, Caller, Received, Routers};
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
        served
            .block_on(crate::handlers::agents::add(context, add))
            .map_err(|error| error.to_string())
            .unwrap();
    }
    let mut stored = served.state().agents.into_iter().map(|stored| stored.agent);
    let agent = stored.find(|agent| agent.name.as_str() == "mine").unwrap();
    let entries = vec!["root".parse().unwrap()];
    RunnableAgent { id: agent.id, name: agent.name, entries, since: Timestamp::MIN, sees_all: None }
}

fn answer(
    served: &Served,
    routers: &Routers,
    caller: &Caller,
    &(method, path, query, body): &(&str, &str, &str, &str),
) -> String {
    let uri = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let request = Request::builder().method(method).uri(uri).body(()).unwrap();
    let received = Received { path: path.into(), body: Arc::new(Zeroizing::new(body.as_bytes().to_vec())) };
    let answered = routing::answer(routers, caller.clone(), request.into_parts().0, received);
    let response = served.block_on(answered);
    let status = response.status();
    let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    assert_eq!(response.headers().keys().collect::<Vec<_>>(), expected_fields(&response));
    if method == "HEAD" {
        return status.as_u16().to_string();
    }
    if status.is_success() {
        return format!("{} {kind}", status.as_u16());
    }
    let body = served.block_on(response.into_body().collect()).unwrap().to_bytes();
    let error = serde_json::from_slice::<ErrorBody>(&body).unwrap().error;
    format!("{} {} {}", status.as_u16(), error.code, error.message)
}

/// Returns the fields of a response; a body in memory has a length.
fn expected_fields(response: &Response<Body>) -> Vec<HeaderName> {
    let length = response.body().size_hint().exact().map(|_| header::CONTENT_LENGTH);
    [header::CONTENT_TYPE].into_iter().chain(length).collect()
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
        let (routers, caller) = (Routers::new(&context), Caller { uid: 1000, pid: 1, rights, runs });
        for request in REQUESTS {
            let answer = answer(&served, &routers, &caller, request);
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

/// Replaces the parameters of a path by names that exist nowhere.
fn filled(path: &str) -> String {
    let segments = path.split('/').map(|part| if part.starts_with('{') { "0" } else { part });
    segments.collect::<Vec<_>>().join("/")
}

/// Every operation of the table exists, and refuses the peers without the access that the table names.
#[test]
fn each_operation_requires_the_access_of_the_table() {
    if !root("the access of the admin API") {
        return;
    }
    let served = Served::start(FakeDaemon::redirecting());
    let context = Arc::new(AdminContext::new(served.handles()));
    let mine = mine(&served, &context);
    let routers = Routers::new(&context);
    for endpoint in endpoints::ALL {
        for (peer, rights, is_runner) in PEERS {
            let runs: Arc<[RunnableAgent]> = if is_runner { [mine.clone()].into() } else { Arc::default() };
            let caller = Caller { uid: 1000, pid: 1, rights, runs };
            let request = (endpoint.verb.as_str(), &*filled(endpoint.path), "", "");
            let answer = answer(&served, &routers, &caller, &request);
            let permitted = match (endpoint.access, rights) {
                (_, Rights::Root)
                | (Access::Administer | Access::Read, Rights::Write)
                | (Access::Read, Rights::Audit) => true,
                _ => is_runner && endpoint.runners,
            };
            // A runner's request about an unknown agent is refused too, with another reason.
            let refused = ["only root may", "members of group", "is not an administrator"];
            let is_refused = refused.iter().any(|reason| answer.contains(reason));
            assert_eq!(is_refused, !permitted, "{peer}: {endpoint:?}: {answer}");
            assert!(!answer.contains("unknown_operation"), "{peer}: {endpoint:?}: {answer}");
        }
    }
}
