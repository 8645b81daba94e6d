//! Rules on real connections: what they allow, refuse, count, hold and end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use onecli_tests::client::{Reply, Run, Running, curl};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::socket::Socket;
use onecli_tests::upstream::Upstream;
use onecli_tests::{need, wait_for};
use serde_json::Value;

use crate::approvals::assert_no_pending_approval;
use crate::scene::{API, Scene, read_head};

/// A stream ends within a second of the response to the command.
const SOON: Duration = Duration::from_secs(1);

/// An upstream, and a daemon with one agent without permissions, identified by its token.
struct Bare {
    daemon: Daemon,
    upstream: Upstream,
    agent: Agent,
}

impl Bare {
    fn new() -> Self {
        Self::with("")
    }

    fn with(config: &str) -> Self {
        let upstream = Upstream::start(&[API]);
        let daemon = Daemon::builder().upstream(&upstream).config(config).start();
        let agent = daemon.add_agent("coder", &["--factors", "token"]);
        Self { daemon, upstream, agent }
    }

    fn rule(&self, words: &[&str]) -> u64 {
        let added = self.daemon.onecli_json(&[&["rule", "add"], words].concat());
        added["id"].as_u64().unwrap()
    }

    fn port(&self) -> String {
        self.upstream.https_addr().port().to_string()
    }

    fn curl(&self, path: &str, args: &[&str]) -> Run {
        self.daemon.explicit(&self.agent.token, curl(&self.upstream.https_url(API, path)).args(args))
    }

    fn get(&self, path: &str) -> Reply {
        self.curl(path, &[]).outcome().reply()
    }

    fn check(&self, what: &str, path: &str, args: &[&str], expected: (u16, Option<&str>)) {
        // A tunnel shows the upstream's own certificate.
        let trusted = self.upstream.ca_file().display().to_string();
        let tunnelled = expected == (200, Some("tunnel"));
        let args = if tunnelled { [&["--cacert", &trusted], args].concat() } else { args.to_vec() };
        let run = if tunnelled {
            curl(&self.upstream.https_url(API, path))
                .args(["--proxy", &self.daemon.proxy_url(&self.agent.token)])
                .args(&args)
        } else {
            self.curl(path, &args)
        };
        let reply = run.outcome().reply();
        let expected = if tunnelled { (200, None) } else { expected };
        assert_eq!((reply.verdict(), reply.header("x-onecli-error")), expected, "{what}: {reply:?}");
    }
}

#[test]
fn rules_are_added_listed_and_removed() {
    let bare = Bare::new();
    let words = ["allow", "--agent", "coder", "--host", API, "--method", "get", "--path", "/v1/**"];
    let id = bare.rule(&words);
    let listed = bare.daemon.onecli_json(&["rule", "list"]);
    let expected = serde_json::json!([{
        "id": id, "agent": "coder", "action": "allow", "host": API, "port": 443,
        "methods": ["GET"], "paths": ["/v1/**"], "address": null, "rate": null,
    }]);
    assert_eq!(listed, expected);
    let again = bare.daemon.onecli(&[&["rule", "add"], &words[..]].concat());
    assert!(again.code() == Some(1) && again.err().contains("already"), "{again:?}");
    for (bad, says) in [
        (&["allow", "--host", "**.com"][..], "public suffix"),
        (&["limit", "--host", API], "--rate"),
        (&["allow"], "--host"),
        (&["allow", "--host", API, "--path", "/a/../b"], "segment"),
    ] {
        let refused = bare.daemon.onecli(&[&["rule", "add"], bad].concat());
        assert!(refused.code() == Some(2) && refused.err().contains(says), "{bad:?}: {refused:?}");
    }
    let nobody = bare.daemon.onecli(&["rule", "add", "deny", "--agent", "nobody"]);
    assert!(nobody.code() == Some(1) && nobody.err().contains("no agent"), "{nobody:?}");
    let id = id.to_string();
    bare.daemon.onecli(&["rule", "remove", &id]).ok("remove");
    let gone = bare.daemon.onecli(&["rule", "remove", &id]);
    assert!(gone.code() == Some(1), "{gone:?}");
    assert_eq!(bare.daemon.onecli_json(&["rule", "list"]), serde_json::json!([]));
}

#[test]
fn rules_allow_and_deny_requests() {
    let bare = Bare::new();
    let port = bare.port();
    let on = ["--agent", "coder", "--host", API, "--port", &port];
    // Refused at CONNECT, whose response curl does not print.
    bare.check("nothing yet", "/echo", &[], (403, None));

    let whole = bare.rule(&[&["allow"], &on[..]].concat());
    bare.check("allowed as a whole", "/echo", &[], (200, Some("tunnel")));
    let tunnel = bare.daemon.audit_until("the tunnel", |r| r["verdict"] == "tunnel");
    assert_eq!(tunnel["rule"], format!("allow {whole}"), "{tunnel}");

    // A rule with a path requires inspection of requests.
    let deny = bare.rule(&["deny", "--host", API, "--path", "/admin/**"]);
    bare.check("another path", "/echo", &[], (200, None));
    bare.check("the denied path", "/admin/x", &[], (403, Some("rule_denied")));
    let denied = bare.daemon.audit_until("the denial", |r| r["code"] == "rule_denied");
    assert_eq!((&denied["rule"], &denied["verdict"]), (&format!("deny {deny}").into(), &"deny".into()));
    for odd in [
        "/ADMIN/x",
        "/admin",
        "/%61dmin/x",
        "/x/%2e%2e/admin/x",
        "//admin/x",
        "/admin;a/x",
        "/x/..%2fadmin/x",
    ] {
        let reply = bare.curl(odd, &["--path-as-is"]).outcome().reply();
        let code = reply.header("x-onecli-error").map(str::to_owned);
        assert!(reply.verdict() == 403, "{odd}: {reply:?}");
        assert!(matches!(code.as_deref(), Some("rule_denied" | "path_ambiguous")), "{odd}: {reply:?}");
    }
    bare.upstream.clear();
    bare.check("an override", "/echo", &["--header", "X-HTTP-Method-Override: DELETE"], (200, None));
    assert_eq!(bare.upstream.only_request().header("x-http-method-override"), None);

    // A host that is denied as a whole is refused before anything is read, on every port.
    let deny = bare.rule(&["deny", "--agent", "coder", "--host", "**.test"]);
    bare.check("a denied host", "/echo", &[], (403, None));
    bare.daemon.onecli(&["rule", "remove", &deny.to_string()]).ok("remove");
    bare.check("after the rule's removal", "/echo", &[], (200, None));
}

/// The same connection, another policy: the next request on it is judged by the new policy.
#[test]
fn rules_apply_to_open_connections_too() {
    let bare = Bare::new();
    bare.rule(&["allow", "--host", API, "--port", "*"]);
    let mut socket = Socket::connect(bare.daemon.explicit_addr()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let host = format!("{API}:{}", bare.upstream.http_addr().port());
    let mut ask = || {
        let token = &bare.agent.token;
        write!(
            socket,
            "HEAD http://{host}/echo HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Bearer {token}\r\n\r\n"
        )
        .unwrap();
        read_head(&mut socket)
    };
    assert!(ask().starts_with("HTTP/1.1 200"));
    let id = bare.rule(&["deny", "--host", API]);
    let refused = ask();
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("rule_denied"), "{refused}");
    bare.daemon.onecli(&["rule", "remove", &id.to_string()]).ok("remove");
    assert!(ask().starts_with("HTTP/1.1 200"));
}

/// Streams, and uninspected tunnels, end within a second of a rule that denies them, or of the removal of the one that
/// allowed them.
#[test]
fn new_rule_ends_requests_in_progress() {
    let scene = Scene::new();
    let daemon = &scene.daemon;
    let stream =
        daemon.explicit(&scene.outside.token, curl(&scene.url("/sse?n=1000&ms=50")).args(["--no-buffer"]));
    let ends = |what: &str, running: Running, command: &[&str]| {
        let began = wait_for(Duration::from_secs(10), || (scene.upstream.request_count() == 1).then_some(()));
        assert!(began.is_some(), "{what}: the stream began");
        std::thread::sleep(Duration::from_millis(200));
        let done = daemon.onecli_json(command);
        let taken = Instant::now();
        let outcome = running.finish();
        assert!(taken.elapsed() < SOON, "{what}: it continued for {:?}", taken.elapsed());
        assert!(outcome.code() != Some(0) && !outcome.timed_out, "{what}: {outcome:?}");
        assert!(outcome.out().contains("data: event 0"), "{what}: {outcome:?}");
        let ended = daemon.audit_until(what, |r| r["event"] == "outcome" && r["code"] == "revoked");
        scene.upstream.clear();
        (done, ended)
    };
    let (rule, _) =
        ends("a stream", stream.start(), &["rule", "add", "deny", "--host", API, "--method", "GET"]);
    daemon.onecli(&["rule", "remove", &rule["id"].to_string()]).ok("remove");

    let bare = daemon.add_agent("bare", &["--factors", "token"]);
    let port = scene.upstream.https_addr().port().to_string();
    // A secret is stored for the host.
    let allow = ["rule", "add", "allow", "--agent", "bare", "--host", API, "--port", &port, "--tunnel"];
    let allow = daemon.onecli_json(&allow);
    let trusted = scene.upstream.ca_file().display().to_string();
    let tunnel = curl(&scene.url("/sse?n=1000&ms=50")).args([
        "--no-buffer",
        "--proxy",
        &daemon.proxy_url(&bare.token),
        "--cacert",
        &trusted,
    ]);
    let (_, ended) = ends("a tunnel", tunnel.start(), &["rule", "remove", &allow["id"].to_string()]);
    assert!(!ended.is_null());
}

#[test]
fn limit_applies_across_connections_and_policies() {
    let scene = Scene::new();
    let daemon = &scene.daemon;
    let id = daemon.onecli_json(&["rule", "add", "limit", "--port", "*", "--rate", "3/h"])["id"].to_string();
    let get = |agent: &Agent| daemon.explicit(&agent.token, curl(&scene.url("/echo"))).outcome().reply();
    for _ in 0..2 {
        assert_eq!(get(&scene.outside).verdict(), 200);
    }
    // A new policy does not reset the count.
    let other = daemon.onecli_json(&["rule", "add", "deny", "--host", "other.test"])["id"].to_string();
    assert_eq!(get(&scene.outside).verdict(), 200);
    let limited = get(&scene.outside);
    assert_eq!(
        (limited.verdict(), limited.header("x-onecli-error")),
        (429, Some("rate_limited")),
        "{limited:?}"
    );
    let wait: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((3000..=3661).contains(&wait), "{wait}");
    let record = daemon.audit_until("the limit", |r| r["code"] == "rate_limited");
    assert_eq!(
        (&record["rule"], &record["status"]),
        (&format!("limit {id}").into(), &429.into()),
        "{record}"
    );
    let _ = daemon.onecli(&["rule", "remove", &other]).ok("remove");
    assert_eq!(get(&scene.outside).verdict(), 429);
    // Each agent has its own count.
    let second = daemon.add_agent("second", &["--factors", "token"]);
    let _ = daemon.grant(&second, "api");
    assert_eq!(get(&second).verdict(), 200);
    daemon.onecli(&["rule", "remove", &id]).ok("remove");
    assert_eq!(get(&scene.outside).verdict(), 200);
}

#[test]
fn approval_times_out_when_unanswered() {
    let bare = Bare::with("[policy]\napproval_timeout = \"1s\"\n");
    bare.rule(&["approve", "--host", API, "--port", &bare.port()]);
    let reply = bare.get("/echo");
    assert_eq!(
        (reply.verdict(), reply.header("x-onecli-error")),
        (403, Some("approval_timeout")),
        "{reply:?}"
    );
    assert_no_pending_approval(&bare.daemon);
    assert_eq!(bare.upstream.request_count(), 0);
}

#[test]
fn why_and_test_predict_the_decision() {
    let scene = Scene::new();
    let daemon = &scene.daemon;
    daemon.onecli(&["rule", "add", "deny", "--host", API, "--path", "/admin"]).ok("deny");
    daemon.onecli(&["rule", "add", "limit", "--host", API, "--port", "*", "--rate", "100/m"]).ok("limit");
    let why = |agent: &str, method: &str, url: &str| {
        let explained = daemon.onecli_json(&["why", "--agent", agent, method, url]);
        assert_eq!(daemon.onecli_json(&["rule", "test", "--agent", agent, method, url]), explained);
        explained
    };
    let explained = why("outside", "get", &scene.url("/echo"));
    assert_eq!(
        (&explained["decision"], &explained["because"], &explained["limits"]),
        (&"inject".into(), &"grant".into(), &serde_json::json!([2])),
        "{explained}"
    );
    assert_eq!(explained["secrets"], serde_json::json!(["api"]));
    let explained = why("outside", "GET", &scene.url("/Admin"));
    assert_eq!(
        (&explained["decision"], &explained["because"], &explained["code"]),
        (&"deny".into(), &"deny 1".into(), &"rule_denied".into()),
        "{explained}"
    );
    let explained = why("outside", "GET", "https://elsewhere.test/");
    assert_eq!(
        (&explained["decision"], &explained["because"]),
        (&"deny".into(), &"egress deny".into()),
        "{explained}"
    );
    assert!(explained["hint"].as_str().unwrap().contains("onecli rule add allow"), "{explained}");
    let reasons: Vec<&Value> =
        explained["considered"].as_array().unwrap().iter().map(|one| &one["reason"]).collect();
    assert_eq!(reasons.len(), 3, "two rules and a secret: {explained}");
    assert!(reasons.iter().all(|reason| reason.is_string()), "{explained}");
    if need::bpf("the factor of managed agents") {
        let explained = why("inside", "GET", &scene.url("/echo"));
        assert_eq!(
            (&explained["decision"], &explained["otherwise"]),
            (&"inject".into(), &"deny: placeholder_missing".into()),
            "{explained}"
        );
        assert!(explained["needs"][0].as_str().unwrap().contains("API_KEY"), "{explained}");
    }
    assert_eq!(scene.upstream.connection_count(), 0, "nothing was sent");
    let shown = daemon.onecli(&["why", "--agent", "outside", "GET", &scene.url("/admin")]).ok("why");
    assert!(shown.contains("refused") && shown.contains("deny 1"), "{shown}");
}

/// The refusals of an agent are shown as commands which, run unchanged, allow the requests.
#[test]
fn learn_prints_commands_that_allow_refused_requests() {
    let bare = Bare::new();
    for path in ["/echo", "/v1/users/17", "/v1/users/18"] {
        assert_eq!(bare.get(path).verdict(), 403);
    }
    let learned = bare.daemon.onecli_json(&["agent", "learn", "coder"]);
    assert_eq!(learned.as_array().map(Vec::len), Some(1), "{learned}");
    let text = bare.daemon.onecli(&["agent", "learn", "coder"]).ok("learn");
    let command = text.lines().find(|line| line.starts_with("onecli ")).unwrap_or_else(|| panic!("{text}"));
    assert!(!command.contains("/17"), "{command}");
    let socket = bare.daemon.home().socket();
    let cli = bare.daemon.home().cli(&[]);
    let script =
        command.replacen("onecli", &format!("{} --socket {}", cli.program().display(), socket.display()), 1);
    Run::new("sh").args(["-c", &script]).outcome().ok(command);
    // Connections that were refused unread have no path; here each request was read.
    bare.check("learnt", "/echo", &[], (200, None));
}

/// A protocol in which the server speaks first, at an address that only a rule makes reachable.
#[test]
fn unreadable_protocol_passes_if_a_rule_allows_it() {
    let bare = Bare::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.write_all(b"220 ready\r\n");
            let mut word = [0; 4];
            let _ = stream.read_exact(&mut word).and_then(|()| stream.write_all(&word));
        }
    });
    let greeted = |target: &str| -> Option<String> {
        let mut socket = Socket::connect(bare.daemon.explicit_addr()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        let token = &bare.agent.token;
        write!(
            socket,
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Bearer {token}\r\n\r\n"
        )
        .unwrap();
        if !read_head(&mut socket).starts_with("HTTP/1.1 200") {
            return None;
        }
        let mut line = [0; 11];
        socket.read_exact(&mut line).ok()?;
        socket.write_all(b"\x00abc").unwrap();
        let mut echo = [0; 4];
        socket.read_exact(&mut echo).ok()?;
        Some(String::from_utf8_lossy(&[&line[..], &echo[..]].concat()).into_owned())
    };
    let expected = Some("220 ready\r\n\0abc".to_owned());
    let (by_name, by_address) = (format!("{API}:{}", address.port()), address.to_string());
    let port = address.port().to_string();
    assert_eq!((greeted(&by_name), greeted(&by_address)), (None, None));
    let name = bare.rule(&["allow", "--agent", "coder", "--host", API, "--port", &port]);
    assert_eq!((greeted(&by_name), greeted(&by_address)), (expected.clone(), None));
    bare.daemon.onecli(&["rule", "remove", &name.to_string()]).ok("remove");
    bare.rule(&["allow", "--agent", "coder", "--address", "127.0.0.1/32", "--port", &port]);
    assert_eq!((greeted(&by_name), greeted(&by_address)), (None, expected.clone()));
    bare.rule(&["deny", "--address", "127.0.0.0/8"]);
    assert_eq!((greeted(&by_name), greeted(&by_address)), (None, None));
    let tunnel = bare.daemon.audit_until("a tunnel", |r| r["verdict"] == "tunnel" && r["event"] == "outcome");
    assert_eq!(tunnel["rule"], format!("allow {name}"), "{tunnel}");
}

/// From a managed cgroup, where the kernel knows only the address: the name in a rule counts if it has that address.
#[test]
fn unreadable_protocol_is_matched_by_its_address() {
    if !need::bpf("everything") {
        return;
    }
    let scene = Scene::new();
    let daemon = &scene.daemon;
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = server.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let _ = stream.unwrap().write_all(b"220 ready\r\n");
        }
    });
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{} && head -c 9 <&3", address.port());
    let greeted = || {
        let run = Run::new("bash").args(["-c", &script]).timeout(Duration::from_secs(20));
        daemon.managed(&scene.inside, &run).outcome().out().contains("220 ready")
    };
    let port = address.port().to_string();
    daemon.onecli(&["rule", "add", "allow", "--host", "elsewhere.test", "--port", &port]).ok("another name");
    assert!(!greeted());
    daemon
        .onecli(&["rule", "add", "allow", "--agent", "inside", "--host", API, "--port", &port])
        .ok("the name");
    assert!(!greeted(), "the host has a secret, so its requests are inspected");
    daemon.onecli(&["ungrant", "inside", "api"]).ok("ungrant");
    assert!(greeted());
    let tunnel = daemon.audit_until("the tunnel", |r| r["verdict"] == "tunnel");
    assert_eq!((&tunnel["host"], &tunnel["mode"]), (&API.into(), &"transparent".into()), "{tunnel}");
}

/// A private address is reachable only if a rule names it, for that host and agent alone.
#[test]
fn blocked_address_requires_a_specific_rule() {
    let bare = Bare::with("[egress]\nallow_addresses = []\n");
    let port = bare.port();
    bare.rule(&["allow", "--host", API, "--port", &port, "--method", "GET"]);
    bare.check("loopback", "/echo", &[], (403, Some("address_blocked")));
    let rule = bare.rule(&[
        "allow",
        "--agent",
        "coder",
        "--host",
        API,
        "--port",
        &port,
        "--method",
        "GET",
        "--address",
        "127.0.0.0/8",
    ]);
    bare.check("named", "/echo", &[], (200, None));
    // The pool retains no connection that the next policy would not open.
    let deny = bare.rule(&["deny", "--address", "127.0.0.1"]);
    bare.check("closed", "/echo", &[], (403, Some("address_blocked")));
    bare.daemon.onecli(&["rule", "remove", &deny.to_string()]).ok("remove");
    bare.check("open again", "/echo", &[], (200, None));
    bare.daemon.onecli(&["rule", "remove", &rule.to_string()]).ok("remove");
    bare.check("blocked again", "/echo", &[], (403, Some("address_blocked")));
}
