//! Tests of peer rights and the wire protocol, and a server for command tests.

mod answers;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use onecli_api::{AuditFilter, AuditQuery, EnvName, WireValue};
use onecli_audit::{Event, Verdict};

use crate::access::peer::{Peer, Rights};
use crate::server::{SocketError, bind};
use crate::testing::{FakeDaemon, Served, root};

const ROOT: &str = "onecli.slice/onecli-agents.slice";

fn peer(uid: u32, groups: &[&'static str], cgroup: &str) -> Peer {
    Peer {
        uid,
        gid: uid,
        pid: 1,
        is_owner: false,
        groups: groups.to_vec(),
        cgroup: Ok(Some(cgroup.to_owned())),
    }
}

#[test]
fn rights_follow_uid_and_groups() {
    let check = |peer: Peer, expected: Option<Rights>| {
        assert_eq!(peer.rights(ROOT).ok(), expected, "{peer:?}");
    };
    check(peer(0, &[], "/"), Some(Rights::Root));
    check(peer(0, &[], "/user.slice/x"), Some(Rights::Root));
    check(peer(1000, &["onecli"], "/user.slice/x"), Some(Rights::Write));
    check(peer(1000, &["onecli", "onecli-audit"], "/"), Some(Rights::Write));
    check(peer(1000, &["onecli-audit"], "/"), Some(Rights::Audit));
    check(peer(1000, &[], "/"), None);
    check(Peer { cgroup: Ok(None), ..peer(0, &[], "") }, Some(Rights::Root));
    check(Peer { is_owner: true, ..peer(1000, &[], "") }, Some(Rights::Root));
}

/// An agent must not administer its own confinement, whatever its uid.
#[test]
fn peers_inside_the_agents_root_are_always_refused() {
    for cgroup in [
        "/onecli.slice/onecli-agents.slice",
        "/onecli.slice/onecli-agents.slice/onecli-agents-a.slice",
        "/onecli.slice/onecli-agents.slice/a.slice/deep/er",
        "/onecli.slice/onecli-agents.slice/gone (deleted)",
        // Outside the daemon's cgroup namespace: the daemon cannot determine the cgroup.
        "/../onecli.slice/onecli-agents.slice/a",
        "/..",
    ] {
        for groups in [&[][..], &["onecli"], &["onecli-audit"]] {
            for uid in [0, 1000] {
                assert!(peer(uid, groups, cgroup).rights(ROOT).is_err(), "{uid} {groups:?} {cgroup}");
            }
        }
    }
    let unknown = Peer { cgroup: Err("gone".to_owned()), ..peer(0, &[], "") };
    assert!(unknown.rights(ROOT).is_err());
    for cgroup in
        ["/onecli.slice", "/onecli.slice/onecli-agents.slice-not", "/x/onecli.slice/onecli-agents.slice"]
    {
        assert!(peer(0, &[], cgroup).rights(ROOT).is_ok(), "{cgroup}");
    }
}

#[test]
fn peer_credentials_come_from_the_kernel() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let peer = Peer::of(&ours).unwrap();
    assert_eq!(peer.uid, nix::unistd::getuid().as_raw());
    assert_eq!(peer.pid, nix::unistd::getpid().as_raw());
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    assert!(own.contains(peer.cgroup.unwrap().unwrap_or_default().as_str()));
}

#[test]
fn environment_variable_names_are_checked() {
    for good in ["A", "OPENAI_API_KEY", "_X9", "HTTPS_PROXY_TOKEN"] {
        assert!(good.parse::<EnvName>().is_ok(), "{good}");
    }
    for bad in ["", "a", "9A", "A-B", "A=B", "A B", "Ä", &"A".repeat(129)] {
        assert!(bad.parse::<EnvName>().is_err(), "{bad:?}");
    }
    for reserved in ["PATH", "HOME", "LD_PRELOAD", "SSL_CERT_FILE", "HTTPS_PROXY"] {
        let error = reserved.parse::<EnvName>().unwrap_err().to_string();
        assert!(error.contains("cannot hold a credential"), "{error}");
    }
}

#[test]
fn errors_about_a_value_do_not_contain_it() {
    for json in [
        "31415926",
        "314159.26",
        "-31415926",
        "true",
        "[31415926]",
        "{\"a\":31415926}",
        "\"31415926\"",
        "null",
    ] {
        let error = serde_json::from_str::<WireValue>(json).unwrap_err().to_string();
        assert!(!error.contains("31415") && !error.contains("true"), "{json}: {error}");
    }
    let value: WireValue = serde_json::from_str("\"c2stMTIzNDU2Nzg=\"").unwrap();
    assert_eq!(value.0.expose(), b"sk-12345678");
    assert_eq!(serde_json::to_string(&value).unwrap(), "\"c2stMTIzNDU2Nzg=\"");
}

#[test]
fn audit_queries_round_trip() {
    let filter = AuditFilter {
        agent: Some("a.b-c".parse().unwrap()),
        host: Some("[::1]&limit=9".to_owned()),
        verdict: Some(Verdict::Inject),
        event: Some(Event::Alert),
        code: Some("a b%".to_owned()),
        request: Some("0198c5a2-0000-7000-8000-000000000001".parse().unwrap()),
        since: Some("2026-01-02T03:04:05.678901Z".parse().unwrap()),
        until: Some("2027-01-02T03:04:05Z".parse().unwrap()),
    };
    let query = AuditQuery { filter, limit: 7, all: true, follow: true, every_run: true };
    assert_eq!(AuditQuery::from_query(&query.to_query()), Ok(query));
    assert_eq!(AuditQuery::from_query(""), Ok(AuditQuery { limit: 100, ..AuditQuery::default() }));
    for bad in ["limit=x", "limit=10001", "follow=1", "agent=A", "other=1", "limit", "verdict=no", "host=%ff"]
    {
        assert!(AuditQuery::from_query(bad).is_err(), "{bad}");
    }
}

#[test]
fn socket_replaces_only_a_stale_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/admin.sock");
    drop(bind(&path).unwrap());
    assert!(path.exists());
    let listener = bind(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert!([0o600, 0o660, 0o666].contains(&mode), "{mode:o}");
    assert!(matches!(bind(&path), Err(SocketError::InUse(_))));
    drop(listener);

    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(bind(&file), Err(SocketError::NotASocket(_))));
    assert!(file.exists());
    assert!(matches!(bind(Path::new("/proc/none/x.sock")), Err(SocketError::File { .. })));
}

/// Sends bytes; returns the status and the whole response.
fn exchange(served: &Served, request: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(served.socket()).unwrap();
    // The server may respond before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, answer)
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn bad_requests_are_refused_and_store_nothing() {
    if !root("the admin server") {
        return;
    }
    let served = Served::start(FakeDaemon::redirecting());
    let check = |request: Vec<u8>, expected: u16, word: &str| {
        let (status, answer) = exchange(&served, &request);
        assert!(
            status == expected && answer.contains(word),
            "{}: {answer}",
            String::from_utf8_lossy(&request)
        );
    };
    check(b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 404, "unknown_operation");
    check(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 404, "unknown_operation");
    check(b"GET /v1/agents/a HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 404, "there is no agent 'a'");
    check(b"GET /v1/agents/A HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 400, "not a valid name");
    check(b"PATCH /v1/agents/a HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 404, "unknown_operation");
    check(b"GET /v1/audit?limit=x HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 400, "limit");
    check(b"garbage\r\n\r\n".to_vec(), 400, "");
    check(post("/v1/agents", ""), 400, "invalid");
    check(post("/v1/agents", "{"), 400, "invalid");
    check(post("/v1/agents", r#"{"name":"a","nope":1}"#), 400, "unknown field `nope`");
    check(post("/v1/agents", r#"{"name":"a","factors":"none"}"#), 400, "not a list of factors");
    check(post("/v1/agents", r#"{"name":"a","cgroup":"../x"}"#), 400, "not a cgroup name");
    let secret = |rest: &str| format!(r#"{{"name":"s","value":"c2stMTIzNDU2Nzg=",{rest}}}"#);
    let bearer = r#""placement":{"kind":"header","name":"authorization","template":"Bearer {secret}"}"#;
    for (rest, word) in [
        (r#""host":"*.com""#, "public suffix"),
        (r#""host":"a.b","port":0"#, "from 1 to 65535"),
        (r#""host":"a.b","paths":["x"]"#, "bad path pattern"),
        (r#""host":"a.b","methods":["TRACE"]"#, "bad method"),
        (r#""host":"a.b","env":"path""#, "not a valid environment variable"),
    ] {
        check(post("/v1/secrets", &secret(&format!("{rest},{bearer}"))), 400, word);
    }
    check(post("/v1/secrets", &secret(r#""host":"a.b","placement":{"kind":"basic"}"#)), 400, "user");
    check(post("/v1/secrets", &"x".repeat(200_000)), 413, "too_large");
    let (_, answer) = exchange(&served, &post("/v1/secrets", r#"{"name":"s","value":12345678}"#));
    assert!(!answer.contains("12345678"), "{answer}");

    assert_eq!(served.host().reloads(), 0);
    assert!(served.state().agents.is_empty() && served.state().secrets.is_empty());
}

#[test]
fn refused_peer_receives_the_reason() {
    if !root("the admin server") {
        return;
    }
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own =
        own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").trim_matches('/').to_owned();
    let served = Served::with_agents_root(FakeDaemon::redirecting(), &own);
    let (status, answer) = exchange(&served, b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(status, 403, "{answer}");
    assert!(answer.contains("agents may not administer OneCLI"), "{answer}");
    let (status, _) = exchange(&served, &post("/v1/agents", r#"{"name":"a"}"#));
    assert_eq!(status, 403);
    assert!(served.state().agents.is_empty());
}

fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within five seconds");
}

/// A change is active before the response is sent, even if the client disconnects before it.
#[test]
fn changes_become_active_even_if_the_client_disconnects() {
    if !root("the admin server") {
        return;
    }
    let served = Served::start(FakeDaemon::redirecting());
    served.host().slow_reload(Duration::from_millis(300));
    let mut stream = UnixStream::connect(served.socket()).unwrap();
    stream.write_all(&post("/v1/agents", r#"{"name":"a"}"#)).unwrap();
    wait_until(|| served.state().agents.len() == 1);
    assert_eq!(served.host().reloads(), 0, "a client that disconnects before its change is active");
    drop(stream);
    wait_until(|| served.host().reloads() == 1);

    served.host().fail_reload("the store is gone");
    let (status, answer) = exchange(&served, &post("/v1/agents", r#"{"name":"b"}"#));
    assert!(
        status == 500 && answer.contains("not_in_force") && answer.contains("the store is gone"),
        "{answer}"
    );
}

/// Silent connections must not delay others until the 10 s timeout.
#[test]
fn silent_connections_do_not_delay_others() {
    if !root("many connections to the admin socket") {
        return;
    }
    let served = Served::start(FakeDaemon::redirecting());
    let _silent: Vec<UnixStream> = (0..64).map(|_| UnixStream::connect(served.socket()).unwrap()).collect();
    let mut stream = UnixStream::connect(served.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(9))).unwrap();
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
