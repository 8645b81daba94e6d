//! The table of identity factors: which processes may use a credential, and how others are refused.

use std::io::{Read, Write};
use std::time::Duration;

use onecli_tests::client::{Reply, curl};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::need;
use onecli_tests::socket::Socket;
use onecli_tests::upstream::Upstream;

use crate::scene::{API, VALUE};

/// The location of the client.
#[derive(Clone, Copy, Debug)]
enum From<'a> {
    Outside,
    Inside(&'a Agent),
}

/// The proof that the client presents.
#[derive(Clone, Copy, Debug, Default)]
struct Shows<'a> {
    /// Token in `Proxy-Authorization`; with one the client uses the explicit proxy.
    token: Option<&'a str>,
    /// Placeholder in `Authorization`.
    key: Option<&'a str>,
}

/// The expected result.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// The upstream receives the credential.
    Injected,
    /// The client receives one of these statuses, the upstream receives no credential, and a record has `deny`.
    Refused(&'static [u16]),
    /// As `Refused`, and an alert.
    Alert(&'static [u16]),
}

struct Stage {
    daemon: Daemon,
    upstream: Upstream,
}

impl Stage {
    fn new() -> Self {
        let upstream = Upstream::start(&[API]);
        let daemon = Daemon::for_upstream(&upstream);
        let host = format!("{API}:{}", upstream.https_addr().port());
        daemon.add_secret("api", VALUE, &["--host", &host, "--bearer", "--env", "API_KEY"]);
        Self { daemon, upstream }
    }

    fn request(&self, from: From<'_>, shows: Shows<'_>) -> Reply {
        let mut run = curl(&self.upstream.https_url(API, "/echo"));
        if let Some(token) = shows.token {
            run = run.args(["--proxy", &self.daemon.proxy_url(token)]);
        }
        if let Some(key) = shows.key {
            run = run.args(["--header", &format!("Authorization: Bearer {key}")]);
        }
        let run = match from {
            From::Outside => run.trusting(&self.daemon.ca_file()),
            From::Inside(agent) => self.daemon.managed(agent, &run),
        };
        run.outcome().reply()
    }

    fn check(&self, what: &str, from: From<'_>, shows: Shows<'_>, then: Then) {
        self.upstream.clear();
        let before = self.daemon.audit().len();
        let reply = self.request(from, shows);
        let injected: usize = self.upstream.requests().iter().map(|r| r.count(VALUE)).sum();
        match then {
            Then::Injected => {
                assert_eq!((reply.verdict(), injected), (200, 1), "{what}: {reply:?}");
            }
            Then::Refused(statuses) | Then::Alert(statuses) => {
                assert_eq!(injected, 0, "{what}: the credential was sent: {reply:?}");
                assert!(statuses.contains(&reply.verdict()), "{what}: {statuses:?}: {reply:?}");
                let new = |r: &serde_json::Value| r["seq"].as_u64().is_some_and(|s| s >= before as u64);
                let _ = self.daemon.audit_until(what, |r| new(r) && r["verdict"] == "deny");
                if let Then::Alert(_) = then {
                    let _ = self.daemon.audit_until(what, |r| new(r) && r["event"] == "alert");
                }
            }
        }
    }
}

#[test]
fn token_from_outside_follows_the_factor_table() {
    let stage = Stage::new();
    let alice = stage.daemon.add_agent("alice", &["--factors", "token"]);
    let bob = stage.daemon.add_agent("bob", &["--factors", "token"]);
    let both = stage.daemon.add_agent("both", &["--factors", "token,cgroup", "--user", "nobody"]);
    let key = stage.daemon.grant(&alice, "api").placeholder;
    let other_key = stage.daemon.grant(&bob, "api").placeholder;
    let _ = stage.daemon.grant(&both, "api");
    assert_ne!(key, other_key, "a placeholder is unique per agent");

    let unknown = "A".repeat(alice.token.len());
    let token = Some(alice.token.as_str());
    let cases = [
        ("token alone", Shows { token, key: None }, Then::Injected),
        ("token and placeholder", Shows { token, key: Some(&key) }, Then::Injected),
        ("another agent's placeholder", Shows { token, key: Some(&other_key) }, Then::Alert(&[403])),
        ("an unknown token", Shows { token: Some(&unknown), key: None }, Then::Refused(&[407])),
        ("a cut token", Shows { token: Some(&alice.token[1..]), key: None }, Then::Refused(&[407])),
        ("an empty token", Shows { token: Some(""), key: None }, Then::Refused(&[407])),
        (
            "a token whose agent needs its cgroup too",
            Shows { token: Some(&both.token), key: None },
            Then::Refused(&[403, 407]),
        ),
    ];
    for (what, shows, then) in cases {
        stage.check(what, From::Outside, shows, then);
    }
}

#[test]
fn missing_proxy_authorization_gets_407_with_a_challenge() {
    let stage = Stage::new();
    let run = curl(&stage.upstream.https_url(API, "/echo"))
        .args(["--proxy", &format!("http://{}", stage.daemon.explicit_addr()), "--verbose"])
        .trusting(&stage.daemon.ca_file());
    let outcome = run.outcome();
    assert_eq!(outcome.reply().connect, 407);
    let head = outcome.err().to_lowercase();
    assert!(head.contains("proxy-authenticate: basic"), "{outcome:?}");
    assert!(head.contains("x-onecli-error"), "{outcome:?}");
    assert_eq!(stage.upstream.connection_count(), 0);
}

#[test]
fn bearer_and_basic_are_both_accepted() {
    let stage = Stage::new();
    let alice = stage.daemon.add_agent("alice", &["--factors", "token"]);
    let _ = stage.daemon.grant(&alice, "api");
    let proxy = format!("http://{}", stage.daemon.explicit_addr());
    let bearer = format!("Proxy-Authorization: Bearer {}", alice.token);
    let user = format!("any-name:{}", alice.token);
    for args in [["--proxy-header", &bearer], ["--proxy-user", &user]] {
        let run = curl(&stage.upstream.https_url(API, "/echo")).args(["--proxy", &proxy]).args(args);
        let reply = run.trusting(&stage.daemon.ca_file()).outcome().reply();
        assert_eq!(reply.verdict(), 200, "{args:?}: {reply:?}");
    }
}

#[test]
fn managed_agents_follow_the_factor_table() {
    if !need::bpf("everything") {
        return;
    }
    let stage = Stage::new();
    // Two agents never share a user. These users exist on every Debian.
    let alice = stage.daemon.add_agent("alice", &["--factors", "token,cgroup", "--user", "nobody"]);
    let bob = stage.daemon.add_agent("bob", &["--factors", "token,cgroup", "--user", "games"]);
    let cgroup = stage.daemon.add_agent("by-cgroup", &["--factors", "cgroup", "--user", "lp"]);
    let bare = stage.daemon.add_agent("ungranted", &["--factors", "token,cgroup", "--user", "news"]);
    let key = stage.daemon.grant(&alice, "api").placeholder;
    let other = stage.daemon.grant(&bob, "api").placeholder;
    let _ = stage.daemon.grant(&cgroup, "api");

    let (token, other_token) = (Some(alice.token.as_str()), Some(bob.token.as_str()));
    let (key, other) = (Some(key.as_str()), Some(other.as_str()));
    let show = |token, key| Shows { token, key };
    let cases = [
        ("transparent, placeholder", &alice, show(None, key), Then::Injected),
        ("transparent, no placeholder", &alice, show(None, None), Then::Refused(&[401])),
        (
            "transparent, an invented placeholder",
            &alice,
            show(None, Some("sk-made-up")),
            Then::Refused(&[401, 403]),
        ),
        ("transparent, another agent's placeholder", &alice, show(None, other), Then::Alert(&[403])),
        ("explicit, own token", &alice, show(token, None), Then::Injected),
        ("explicit, own token and placeholder", &alice, show(token, key), Then::Injected),
        ("explicit, another agent's token", &alice, show(other_token, None), Then::Alert(&[403, 407])),
        ("explicit, own token, another agent's placeholder", &alice, show(token, other), Then::Alert(&[403])),
        ("the cgroup alone", &cgroup, show(None, None), Then::Injected),
        ("no grant", &bare, show(None, None), Then::Refused(&[401, 403])),
        ("no grant, another agent's placeholder", &bare, show(None, key), Then::Alert(&[403])),
    ];
    for (what, agent, shows, then) in cases {
        stage.check(what, From::Inside(agent), shows, then);
    }
}

/// The records of one agent include its refusals.
#[test]
fn refusals_name_the_agent() {
    let stage = Stage::new();
    let bob = stage.daemon.add_agent("bob", &["--factors", "token"]);
    let mut expected = vec![("bob", "agent_disabled")];
    if need::bpf("the token of another agent") {
        let alice = stage.daemon.add_agent("alice", &["--factors", "token,cgroup", "--user", "nobody"]);
        let shows = Shows { token: Some(&bob.token), key: None };
        stage.check("another agent's token", From::Inside(&alice), shows, Then::Alert(&[403]));
        expected.push(("alice", "token_foreign"));
    }
    stage.daemon.onecli(&["agent", "disable", "bob"]).ok("disable");
    let shows = Shows { token: Some(&bob.token), key: None };
    stage.check("a disabled agent", From::Outside, shows, Then::Refused(&[403]));
    for (agent, code) in expected {
        let _ = stage.daemon.audit_until(code, |r| r["code"] == code && r["agent"] == agent);
        let listed = stage.daemon.onecli(&["--json", "audit", "list", "--agent", agent]).ok("audit list");
        assert!(listed.contains(code), "{agent}: {listed}");
    }
}

#[test]
fn missing_placeholder_is_reported() {
    if !need::bpf("everything") {
        return;
    }
    let stage = Stage::new();
    let alice = stage.daemon.add_agent("alice", &["--factors", "token,cgroup", "--user", "nobody"]);
    let _ = stage.daemon.grant(&alice, "api");
    let reply = stage.request(From::Inside(&alice), Shows::default());
    assert_eq!(reply.header("x-onecli-error"), Some("placeholder_missing"), "{reply:?}");
    let error = &reply.json()["error"];
    assert_eq!(error["code"], "placeholder_missing");
    for field in ["message", "hint", "request_id"] {
        assert!(error[field].as_str().is_some_and(|t| !t.is_empty()), "{field}: {error}");
    }
}

#[test]
fn revoking_takes_effect_on_the_next_request() {
    let stage = Stage::new();
    let alice = stage.daemon.add_agent("alice", &["--factors", "token"]);
    let _ = stage.daemon.grant(&alice, "api");
    let shows = Shows { token: Some(&alice.token), key: None };
    let steps: &[(&[&str], Then)] = &[
        (&["status"], Then::Injected),
        (&["ungrant", "alice", "api"], Then::Refused(&[403])),
        (&["grant", "alice", "api"], Then::Injected),
        (&["secret", "disable", "api"], Then::Refused(&[403, 502])),
        (&["secret", "enable", "api"], Then::Injected),
        (&["agent", "disable", "alice"], Then::Refused(&[403, 407])),
        (&["agent", "enable", "alice"], Then::Injected),
        (&["agent", "rotate", "alice"], Then::Refused(&[407])),
        (&["agent", "remove", "alice"], Then::Refused(&[407])),
    ];
    for (command, then) in steps {
        let _ = stage.daemon.onecli(command).ok(&command.join(" "));
        stage.check(&format!("after {}", command.join(" ")), From::Outside, shows, *then);
    }
}

#[test]
fn unmanaged_process_on_the_transparent_port_is_refused() {
    if !need::bpf("everything") {
        return;
    }
    let stage = Stage::new();
    let mut stream = Socket::connect(stage.daemon.transparent_addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: {API}\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // A reset after the response is equivalent to an end.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(answer.starts_with("http/1.1 403") && answer.contains("x-onecli-error"), "{answer:?}");
    assert_eq!(stage.upstream.connection_count(), 0);
    let record = stage.daemon.audit_until("the unmanaged process", |r| r["verdict"] == "deny");
    assert!(record["agent"].is_null() || record["agent"] == "", "{record}");
    assert_eq!(record["mode"], "transparent", "{record}");
}
