//! Permission to start an agent, as requested by the launcher. The users exist on every Debian system.

use onecli_api::Caller;

use super::*;

const BIN: u32 = 2;
const MAN: (u32, u32) = (6, 12);
const NOBODY: u32 = 65534;

/// Requests a session on behalf of a user that connected to the launcher.
fn session_for(
    client: &Client,
    (uid, gid): (u32, u32),
    user: Option<&str>,
    cgroup: &str,
) -> Result<Session, ClientError> {
    let caller = Some(Caller { uid, gid, cgroup: Some(cgroup.to_owned()) });
    let request = SessionRequest { user: user.map(str::to_owned), caller, recipe: None };
    client.post(&routes::agent_action(&"a".parse().unwrap(), "session"), &request)
}

#[test]
fn agent_is_started_only_by_administrators_and_its_runners() {
    if !root("commands against the admin server") {
        return;
    }
    let served = Served::start(FakeDaemon::redirecting());
    let client = Client::new(served.socket());
    add_agent(&client, "a", |r| {
        r.user = Some("games".to_owned());
        r.runners = vec!["bin".parse().unwrap()];
    })
    .unwrap();
    let check = |caller: (u32, u32), user: Option<&str>, cgroup: &str, expected: Result<&str, &str>| {
        let session = session_for(&client, caller, user, cgroup);
        match (&session, expected) {
            (Ok(session), Ok(user)) => assert_eq!(session.user, user, "{caller:?}"),
            (Err(error @ ClientError::NotPermitted(_)), Err(word)) => {
                let report = error.report();
                assert!(format!("{}\n{}", report.message, report.hint).contains(word), "{report:?}");
            }
            _ => panic!("{caller:?} as {user:?}: {session:?}"),
        }
    };
    check((BIN, BIN), None, "/user.slice", Ok("games"));
    check((BIN, BIN), Some("games"), "/user.slice", Ok("games"));
    // Callers may run as themselves, never as another user.
    check((BIN, BIN), Some("bin"), "/user.slice", Ok("bin"));
    check((BIN, BIN), Some("nobody"), "/user.slice", Err("as user 'nobody'"));
    check((0, 0), Some("nobody"), "/user.slice", Ok("nobody"));
    check((NOBODY, NOBODY), None, "/user.slice", Err("may not run agent 'a'"));
    // An agent cannot be started from inside an agent's cgroup.
    check((BIN, BIN), None, "/onecli.slice/onecli-agents.slice/b.slice", Err("agents may not"));
    check((0, 0), None, "/onecli.slice/onecli-agents.slice/b.slice", Err("agents may not"));

    let runner = |text: &str| routes::runner(&"a".parse().unwrap(), &text.parse().unwrap());
    check(MAN, None, "/", Err("allow-run"));
    let detail: AgentDetail = client.put(&runner("@man")).unwrap();
    assert_eq!(joined_runners(&detail), "@man bin");
    check(MAN, None, "/", Ok("games"));
    let detail: AgentDetail = client.delete(&runner("bin")).unwrap();
    assert_eq!(joined_runners(&detail), "@man");
    check((BIN, BIN), None, "/", Err("may not run"));
    refused(client.delete::<AgentDetail>(&runner("bin")), &["no runner 'bin'"]);
    refused(client.put::<AgentDetail>(&runner("no-such-user-here")), &["no user"]);
    refused(client.put::<AgentDetail>(&runner("@no-such-group-here")), &["no group"]);
}

/// A user who may run no agents must not learn which ones exist.
#[test]
fn missing_agent_gets_the_same_refusal() {
    if !root("commands against the admin server") {
        return;
    }
    let served = Served::start(FakeDaemon::redirecting());
    let client = Client::new(served.socket());
    let missing = session_for(&client, (NOBODY, NOBODY), None, "/").unwrap_err().to_string();
    add_agent(&client, "a", |r| r.user = Some("games".to_owned())).unwrap();
    let there = session_for(&client, (NOBODY, NOBODY), None, "/").unwrap_err().to_string();
    assert_eq!(missing, there);
    refused(session_for(&Client::new(served.socket()), (0, 0), Some("x"), "/"), &["there is no user 'x'"]);
}

fn joined_runners(detail: &AgentDetail) -> String {
    detail.runners.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
