//! Tokens that the daemon requests: what the token endpoint and the API receive, how often, and the effect of errors.

use std::time::Duration;

use onecli_tests::client::{self, Outcome, Run};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::need;
use onecli_tests::upstream::{Recorded, Upstream};
use serde_json::{Value, json};

const API: &str = "api.test";
const LOGIN: &str = "login.test";
const SECRET: &str = "client-secret/+:0815";

struct World {
    daemon: Daemon,
    upstream: Upstream,
    agent: Agent,
}

impl World {
    /// A secret `s` for [`API`] with these options, in which `{login}` is the token endpoint.
    fn new(value: &str, options: &[&str]) -> World {
        let upstream = Upstream::start(&[API, LOGIN]);
        let daemon = Daemon::for_upstream(&upstream);
        let agent = daemon.add_agent("agent", &["--factors", "token"]);
        let port = upstream.https_addr().port();
        let login = format!("https://{LOGIN}:{port}");
        let options: Vec<String> = options.iter().map(|option| option.replace("{login}", &login)).collect();
        let host = format!("{API}:{port}");
        let mut all = vec!["--host", &host];
        all.extend(options.iter().map(String::as_str));
        daemon.add_secret("s", value, &all);
        let _ = daemon.grant(&agent, "s");
        World { daemon, upstream, agent }
    }

    fn run(&self, path: &str, args: &[&str]) -> Run {
        self.daemon.explicit(&self.agent.token, client::curl(&self.upstream.https_url(API, path)).args(args))
    }

    fn ask(&self, path: &str, args: &[&str]) -> Outcome {
        self.run(path, args).outcome()
    }

    /// The token requests so far.
    fn bought(&self) -> Vec<Recorded> {
        let is_for_token =
            |seen: &Recorded| seen.path.starts_with("/token/") || seen.path.starts_with("/app/");
        self.upstream.requests().into_iter().filter(is_for_token).collect()
    }

    /// The last `Authorization` that the API received.
    fn authorization(&self) -> Option<String> {
        let seen = self.upstream.requests().into_iter().rfind(|seen| !seen.path.starts_with("/token/"))?;
        seen.header("authorization").map(str::to_owned)
    }
}

fn form(seen: &Recorded) -> String {
    String::from_utf8(seen.body.clone()).unwrap()
}

#[test]
fn token_for_client_credentials_is_requested_once() {
    let world = World::new(
        SECRET,
        &[
            "--oauth2-client",
            "{login}/token/3600",
            "--client-id",
            "me:1",
            "--scope",
            "a b",
            "--audience",
            "https://api/",
        ],
    );
    // All concurrently: the daemon requests one token.
    let running: Vec<_> = (0..8).map(|_| world.run("/echo", &[]).start()).collect();
    for one in running {
        let outcome = one.finish();
        let out = outcome.ok("curl");
        assert!(!out.contains("minted-token-1"), "scrubbed: {out}");
    }
    assert_eq!(world.authorization().as_deref(), Some("Bearer minted-token-1"));
    let bought = world.bought();
    assert_eq!(bought.len(), 1, "{bought:#?}");
    assert_eq!(form(&bought[0]), "grant_type=client_credentials&scope=a%20b&audience=https%3A%2F%2Fapi%2F");
    // Form-encoded, then base64: me%3A1:client-secret%2F%2B%3A0815
    let basic = "Basic bWUlM0ExOmNsaWVudC1zZWNyZXQlMkYlMkIlM0EwODE1";
    assert_eq!(bought[0].header("authorization"), Some(basic));
    assert_eq!(bought[0].sni.as_deref(), Some(LOGIN));
    let record = world.daemon.audit_until("the injection", |r| r["verdict"] == "inject");
    assert_eq!(record["secret"], "s", "{record}");
    let log = world.daemon.home().log();
    assert!(!log.contains("minted-token") && !log.contains(SECRET), "{log}");
    // A new value causes a new token request.
    let _ = world
        .daemon
        .home()
        .cli(&["secret", "rotate", "s", "--value-stdin"])
        .stdin("another-secret")
        .outcome()
        .ok("rotate");
    world.ask("/echo", &[]).ok("curl");
    assert_eq!((world.bought().len(), world.authorization().as_deref()), (2, Some("Bearer minted-token-2")));
}

#[test]
fn refresh_tokens_are_replaced_and_survive_a_restart() {
    let value = json!({"refresh_token": "refresh-token-0", "client_secret": SECRET}).to_string();
    let mut world = World::new(&value, &["--oauth2-refresh", "{login}/token/1", "--client-id", "me"]);
    let refreshed = |world: &World, number: usize| {
        world.ask("/echo", &[]).ok("curl");
        let bought = world.bought();
        assert_eq!(bought.len(), number, "{bought:#?}");
        let expected = format!("grant_type=refresh_token&refresh_token=refresh-token-{}", number - 1);
        assert_eq!(form(&bought[number - 1]), expected);
        assert_eq!(world.authorization(), Some(format!("Bearer minted-token-{number}")));
    };
    refreshed(&world, 1);
    std::thread::sleep(Duration::from_millis(1100));
    refreshed(&world, 2);
    world.daemon.restart();
    refreshed(&world, 3);
    assert_eq!(world.daemon.onecli_json(&["secret", "show", "s"])["version"], 4);
}

#[test]
fn refused_token_is_requested_again_once() {
    let world = World::new(SECRET, &["--oauth2-client", "{login}/token/3600", "--client-id", "me"]);
    assert_eq!(world.ask("/accept/2", &[]).reply().status, 200);
    assert_eq!(world.bought().len(), 2);
    let decided = |mode: &str| {
        let records = world.daemon.audit();
        records.iter().filter(|r| r["event"] == "decision" && r["mode"] == mode).count()
    };
    assert_eq!((decided("explicit"), decided("daemon")), (2, 2), "one token request for each attempt");
    // Once a minute: an agent that makes an upstream respond 401 must not cause unlimited token requests, nor the loss
    // of older tokens.
    for _ in 0..5 {
        assert_eq!(world.ask("/accept/9", &[]).reply().status, 401);
        assert_eq!(world.ask("/accept/9", &["--data", "x"]).reply().status, 401);
    }
    assert_eq!(world.bought().len(), 2);
}

/// The long-lived credential for token requests is a secret, too: it is not sent without a record (invariants 2, 3 and
/// 10).
#[test]
fn token_requests_are_recorded() {
    let world = World::new(SECRET, &["--oauth2-client", "{login}/token/1?q=1", "--client-id", "me"]);
    let own = |event: &str| -> Vec<Value> {
        let records = world.daemon.audit().into_iter();
        records.filter(|r| r["mode"] == "daemon" && r["event"] == event).collect()
    };
    for number in 1..=2 {
        world.ask("/echo", &[]).ok("curl");
        assert_eq!(world.bought().len(), number);
        let (decisions, outcomes) = (own("decision"), own("outcome"));
        assert_eq!((decisions.len(), outcomes.len()), (number, number), "{decisions:#?} {outcomes:#?}");
        let (decision, outcome) = (&decisions[number - 1], &outcomes[number - 1]);
        for record in [decision, outcome] {
            let shown =
                ["agent", "method", "host", "path", "secret", "verdict"].map(|field| record[field].as_str());
            let expected = ["agent", "POST", LOGIN, "/token/1", "s", "inject"].map(Some);
            assert_eq!(shown, expected, "{record}");
            assert_eq!(record["secret_version"], 1, "{record}");
            assert!(record["address"].is_string() && record["tls"].is_string(), "{record}");
        }
        assert_eq!(decision["request_id"], outcome["request_id"]);
        assert_eq!((&decision["status"], &outcome["status"]), (&Value::Null, &200.into()));
        assert!(
            outcome["bytes_in"].as_u64() > Some(0) && outcome["bytes_out"].as_u64() > Some(0),
            "{outcome}"
        );
        // The agent's own decision is recorded before the token request, and the token is requested before the agent's
        // request is sent.
        let of_agent =
            world.daemon.audit().into_iter().rfind(|r| r["event"] == "decision" && r["mode"] == "explicit");
        let seq = |record: &Value| record["seq"].as_u64().unwrap();
        assert!(seq(&of_agent.unwrap()) < seq(decision), "{decision}");
        std::thread::sleep(Duration::from_millis(1100));
    }
    // A port without a server.
    let port = world.upstream.https_addr().port();
    let (url, host) = (format!("https://nowhere.test:{port}/token/1"), format!("{API}:{port}"));
    let options = ["--host", &host, "--path", "/other", "--oauth2-client", &url, "--client-id", "me"];
    world.daemon.add_secret("other", SECRET, &options);
    let _ = world.daemon.grant(&world.agent, "other");
    assert_eq!(world.ask("/other", &[]).reply().status, 502);
    let decisions = own("decision");
    assert_eq!(decisions.len(), 3, "{decisions:#?}");
    assert_eq!((&decisions[2]["verdict"], &decisions[2]["host"]), (&"deny".into(), &"nowhere.test".into()));
    assert_eq!(own("outcome").len(), 2);
}

/// A refresh token is valid once: an agent that disconnects during its use must not lose the next one.
#[test]
fn token_request_outlives_the_client_that_caused_it() {
    let world =
        World::new("refresh-token-0", &["--oauth2-refresh", "{login}/slow-token/1500", "--client-id", "me"]);
    let impatient = world.run("/echo", &["--max-time", "0.5"]).outcome();
    assert!(!impatient.status.success(), "{impatient:?}");
    world.ask("/echo", &[]).ok("curl");
    let bought: Vec<_> =
        world.upstream.requests().iter().filter(|r| r.path.starts_with("/slow-token/")).map(form).collect();
    assert_eq!(bought.len(), 1, "{bought:?}");
    assert_eq!(world.daemon.onecli_json(&["secret", "show", "s"])["version"], 2);
}

/// A token obtained during a response is also masked in that response.
#[test]
fn new_token_is_masked_in_a_stream_that_already_runs() {
    let world = World::new(SECRET, &["--oauth2-client", "{login}/token/1", "--client-id", "me"]);
    for version in ["--http1.1", "--http2"] {
        world.upstream.clear();
        std::thread::sleep(Duration::from_millis(1100));
        let stream = world.run("/watch?n=30&ms=100", &["--no-buffer", version]).start();
        std::thread::sleep(Duration::from_millis(1500));
        world.ask("/echo", &[]).ok("curl");
        assert_eq!(world.bought().len(), 2);
        let out = stream.finish().ok("the stream");
        assert!(!out.contains("minted-token"), "{version}: {out}");
        let masked = format!("Bearer {}", "*".repeat("minted-token-2".len()));
        let last = out.lines().rfind(|line| line.starts_with("data: ")).unwrap();
        assert_eq!(last.matches(&masked).count(), 2, "{version}: {out}");
    }
}

#[test]
fn refusing_token_endpoint_is_not_asked_again_at_once() {
    let world = World::new(SECRET, &["--oauth2-client", "{login}/token/0", "--client-id", "me"]);
    for _ in 0..3 {
        let reply = world.ask("/echo", &[]).reply();
        assert_eq!(
            (reply.status, reply.header("x-onecli-error")),
            (502, Some("secret_unavailable")),
            "{reply:?}"
        );
        assert!(reply.text().contains("invalid_grant"), "{reply:?}");
    }
    assert!(world.bought().len() <= 2, "{:#?}", world.bought());
    assert!(
        !world.upstream.requests().iter().any(|seen| seen.path == "/echo"),
        "no request was sent without its token"
    );
    // The daemon's own requests may go where agents may go, and nowhere else.
    for url in ["https://169.254.169.254/token", "https://nowhere.invalid/token"] {
        let port = world.upstream.https_addr().port();
        let host = format!("{API}:{port}");
        world.daemon.add_secret(
            "other",
            SECRET,
            &["--host", &host, "--oauth2-client", url, "--client-id", "me", "--path", "/other"],
        );
        let _ = world.daemon.grant(&world.agent, "other");
        assert_eq!(world.ask("/other", &[]).reply().status, 502, "{url}");
        let _ = world.daemon.onecli(&["secret", "remove", "other"]).ok("remove");
    }
}

fn openssl(args: &[&str]) -> Outcome {
    Run::new("openssl").args(args).outcome()
}

/// The claims of a JWT whose signature `openssl` verifies.
fn confirmed(jwt: &str, pem: &str) -> Value {
    // Not in the daemon's directory, which must not contain a key in plain text.
    let dir = tempfile::tempdir().unwrap();
    let [head, claims, signature] = jwt.split('.').collect::<Vec<_>>().try_into().unwrap();
    let decode = |text: &str| data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let key = file("key.pem", pem.as_bytes());
    let text = file("text", format!("{head}.{claims}").as_bytes());
    let signature = file("signature", &decode(signature));
    let out = openssl(&["dgst", "-sha256", "-prverify", &key, "-signature", &signature, &text]);
    assert_eq!(out.ok("openssl"), "Verified OK\n");
    let head: Value = serde_json::from_slice(&decode(head)).unwrap();
    assert_eq!((&head["alg"], &head["typ"]), (&"RS256".into(), &"JWT".into()));
    serde_json::from_slice(&decode(claims)).unwrap()
}

#[test]
fn github_app_signs_for_its_installation() {
    if !need::program("everything", "openssl", "openssl") {
        return;
    }
    let pem = openssl(&["genrsa", "-traditional", "2048"]).ok("genrsa");
    let world = World::new(&pem, &["--github-app", "Iv1.abc:42", "--github-api", "{login}"]);
    world.ask("/echo", &[]).ok("curl");
    let bought = world.bought();
    assert_eq!((bought.len(), bought[0].path.as_str()), (1, "/app/installations/42/access_tokens"));
    assert_eq!(bought[0].method, "POST");
    let jwt = bought[0].header("authorization").unwrap().strip_prefix("Bearer ").unwrap().to_owned();
    let claims = confirmed(&jwt, &pem);
    assert_eq!(claims["iss"], "Iv1.abc");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
    let seen = world.upstream.requests().into_iter().find(|seen| seen.path == "/echo").unwrap();
    assert_eq!(seen.header("authorization"), Some("Bearer minted-token-1"));
    let bad =
        world.daemon.home().cli(&["secret", "rotate", "s", "--value-stdin"]).stdin("no key at all").outcome();
    assert!(bad.err().contains("private key"), "{bad:?}");
}

#[test]
fn google_service_account_signs_its_assertion() {
    if !need::program("everything", "openssl", "openssl") {
        return;
    }
    let pem = openssl(&["genrsa", "2048"]).ok("genrsa");
    let upstream = Upstream::start(&[API, LOGIN]);
    let daemon = Daemon::for_upstream(&upstream);
    let agent = daemon.add_agent("agent", &["--factors", "token"]);
    let port = upstream.https_addr().port();
    let uri = format!("https://{LOGIN}:{port}/token/3599");
    let key_file = serde_json::to_string_pretty(&json!({
        "type": "service_account", "client_email": "bot@acme.iam.gserviceaccount.com", "private_key_id": "k1",
        "private_key": pem, "token_uri": uri,
    }))
    .unwrap();
    daemon.add_secret("s", &key_file, &["--template", "gcp", "--host", &format!("{API}:{port}")]);
    let _ = daemon.grant(&agent, "s");
    let world = World { daemon, upstream, agent };
    world.ask("/echo", &[]).ok("curl");
    let bought = world.bought();
    assert_eq!(bought.len(), 1, "{bought:#?}");
    let body = form(&bought[0]);
    let jwt = body
        .strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=")
        .unwrap_or_else(|| panic!("{body}"));
    let claims = confirmed(jwt, &pem);
    assert_eq!((&claims["iss"], &claims["aud"]), (&"bot@acme.iam.gserviceaccount.com".into(), &uri.into()));
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/cloud-platform");
    assert_eq!(world.authorization().as_deref(), Some("Bearer minted-token-1"));
}
