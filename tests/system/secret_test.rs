//! `secret test`: one request by root, in the same way as agents' requests.

use std::time::Duration;

use onecli_tests::client::Outcome;
use onecli_tests::daemon::Daemon;
use onecli_tests::upstream::Upstream;

use crate::scene::{API, VALUE};

const OPENAI: &str = "api.openai.com";
const KEY: &str = "sk-proj-3q7x0f3A9Zq7x0f3A9Zq7x0f3A9Z";

struct World {
    daemon: Daemon,
    upstream: Upstream,
}

impl World {
    /// The upstream is also the template's service. One name points to a service with a certificate of an unknown
    /// authority.
    fn new(stranger: &Upstream) -> World {
        let models = r#"{"data":[{"id":"a-model"}]}"#;
        let upstream =
            Upstream::builder(&[API, OPENAI]).page("/v1/models", "application/json", models).start();
        let builder = Daemon::builder().no_ebpf().upstream(&upstream).host("stranger.test", &["127.0.0.1"]);
        let world = World { daemon: builder.start(), upstream };
        let (port, other) = (world.upstream.https_addr().port(), stranger.https_addr().port());
        let add = |name: &str, value: &str, options: &[&str]| world.daemon.add_secret(name, value, options);
        add("openai", KEY, &["--template", "openai", "--host", &format!("{OPENAI}:{port}")]);
        add("own", VALUE, &["--bearer", "--host", &format!("{API}:{port}"), "--path", "/**"]);
        add("narrow", VALUE, &["--bearer", "--host", &format!("{API}:{port}"), "--path", "/v1/**"]);
        add("chat", KEY, &["--template", "openai:chat", "--host", &format!("{OPENAI}:{port}")]);
        add("password", VALUE, &["--replace", "basic", "--host", &format!("{API}:{port}")]);
        add("down", VALUE, &["--bearer", "--host", &format!("{API}:1")]);
        add("stranger", VALUE, &["--bearer", "--host", &format!("stranger.test:{other}")]);
        world
    }

    fn test(&self, args: &[&str]) -> Outcome {
        let outcome = self.daemon.onecli(&[&["--json", "secret", "test"], args].concat());
        assert!(!outcome.out().contains(VALUE) && !outcome.err().contains(VALUE), "{outcome:?}");
        assert!(outcome.took < Duration::from_secs(4), "the command must not wait: {args:?}: {outcome:?}");
        outcome
    }

    fn refused(&self, args: &[&str], words: &[&str]) {
        self.upstream.clear();
        let outcome = self.test(args);
        assert_eq!(outcome.code(), Some(1), "{args:?}: {outcome:?}");
        for word in words {
            let printed = outcome.err() + &outcome.out();
            assert!(printed.contains(word), "{args:?}: {word:?} in {printed}");
        }
        assert_eq!(self.upstream.request_count(), 0, "{args:?}");
    }
}

#[test]
fn secret_test_uses_the_same_path_as_agents() {
    let stranger = Upstream::start(&["stranger.test"]);
    let mut world = World::new(&stranger);
    the_template_names_the_request(&world);
    the_service_decides(&world);
    nothing_leaves_outside_of_the_scope(&world);
    world.daemon.assert_healthy();
}

fn the_template_names_the_request(world: &World) {
    let tested = world.test(&["openai"]).json("secret test");
    assert_eq!((&tested["verdict"], &tested["status"]), (&"accepted".into(), &200.into()), "{tested}");
    assert!(tested["request"].as_str().unwrap().contains("/v1/models"), "{tested}");
    assert!(tested["excerpt"].as_str().unwrap().contains("a-model"), "{tested}");
    let seen = world.upstream.only_request();
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    let id = tested["request_id"].as_str().unwrap();
    let record = world
        .daemon
        .audit_until("the outcome", |record| record["request_id"] == *id && record["event"] == "outcome");
    assert_eq!(record["mode"], "daemon", "{record}");
    assert_eq!(record["status"], 200, "{record}");
    assert_eq!(record["rule"], "secret test by uid 0", "{record}");
    let people = world.daemon.onecli(&["secret", "test", "openai"]).ok("for people");
    for word in ["accepted", "200", "a-model", "onecli audit list --request"] {
        assert!(people.contains(word), "{word}: {people}");
    }
}

fn the_service_decides(world: &World) {
    let check = |args: &[&str], code: i32, verdict: &str, word: &str| {
        let outcome = world.test(args);
        assert_eq!(outcome.code(), Some(code), "{args:?}: {outcome:?}");
        assert!(outcome.out().contains(&format!("\"{verdict}\"")), "{args:?}: {outcome:?}");
        assert!(outcome.err().contains(word), "{args:?}: {outcome:?}");
    };
    check(&["own", "--path", "/status/204"], 0, "accepted", "");
    check(&["own", "--path", "/status/401"], 1, "refused", "onecli secret rotate own");
    check(&["own", "--path", "/status/500"], 1, "unknown", "does not show");
    check(&["own", "--path", "/redirect?status=302&to=https://login.test/x?y=1"], 1, "unknown", "login.test");
    check(&["own", "--path", "/say", "--method", "HEAD"], 0, "accepted", "");
    a_request_of_ones_own_shows_less(world);
    // The service returns the value.
    let echoed = world.test(&["own", "--path", "/echo"]).json("echo");
    assert!(echoed["excerpt"].as_str().unwrap().contains("****"), "{echoed}");
    world.upstream.clear();
    check(&["password", "--path", "/say", "--user", "alice"], 0, "accepted", "");
    let pair = data_encoding::BASE64.encode(format!("alice:{VALUE}").as_bytes());
    assert_eq!(world.upstream.only_request().header("authorization"), Some(format!("Basic {pair}").as_str()));
}

/// The path may need no credential.
fn a_request_of_ones_own_shows_less(world: &World) {
    let own = ["own", "--path", "/status/204"];
    assert_eq!(world.test(&own).json("own")["template_request"], false);
    assert_eq!(world.test(&["openai"]).json("openai")["template_request"], true);
    let people = |args: &[&str]| world.daemon.onecli(&[&["secret", "test"], args].concat());
    let answered = people(&own).ok("own");
    assert!(answered.contains("answered (2xx; ") && !answered.contains("accepted"), "{answered}");
    let own_path = people(&["openai", "--path", "/v1/models"]).ok("a path chosen by the caller");
    assert!(own_path.contains("answered (2xx; "), "{own_path}");
    for path in ["/status/401", "/status/500"] {
        let printed = people(&["own", "--path", path]).err();
        assert!(printed.contains("\nhelp: "), "{printed}");
    }
}

/// The test has no client that could disconnect.
#[test]
fn slow_unresponsive_service_is_recorded_as_timed_out() {
    let upstream = Upstream::start(&[API]);
    let daemon = Daemon::builder().no_ebpf().upstream(&upstream).start();
    let host = format!("{API}:{}", upstream.https_addr().port());
    daemon.add_secret("own", VALUE, &["--bearer", "--host", &host]);
    let test = |path: &str| {
        let run = daemon.home().cli(&["--json", "secret", "test", "own", "--path", path]);
        run.timeout(Duration::from_mins(1)).outcome()
    };
    // A body without an end.
    let body = test("/sse?n=2&ms=20000").json("a body");
    let id = body["request_id"].clone();
    let of_body = daemon
        .audit_until("the body's end", |record| record["event"] == "outcome" && record["request_id"] == id);
    assert_eq!(
        (&of_body["code"], &of_body["status"]),
        (&"upstream_timeout".into(), &200.into()),
        "{of_body}"
    );
    // No head arrives.
    let head = test("/slow/50000");
    assert!(head.code() == Some(1) && head.err().contains("30 seconds"), "{head:?}");
    let of_head = daemon
        .audit_until("no answer", |record| record["event"] == "outcome" && record["path"] == "/slow/50000");
    assert_eq!(
        (&of_head["code"], &of_head["status"]),
        (&"upstream_timeout".into(), &504.into()),
        "{of_head}"
    );
}

fn nothing_leaves_outside_of_the_scope(world: &World) {
    world.refused(&["own"], &["--path"]);
    world.refused(&["narrow", "--path", "/v2/x"], &["outside of the secret's scope"]);
    world.refused(&["narrow", "--path", "/v1/../v2/x"], &["outside of the secret's scope"]);
    world.refused(&["narrow", "--path", "/v1/x", "--host", OPENAI], &["outside of the secret's scope"]);
    world.refused(&["chat"], &["outside of the secret's scope", "--path"]);
    world.refused(
        &["openai", "--path", "/v1/organization/admin_api_keys", "--method", "POST"],
        &["new credential"],
    );
    world.refused(&["password", "--path", "/say"], &["--user"]);
    world.refused(&["down", "--path", "/"], &["api.test"]);
    world.refused(&["stranger", "--path", "/"], &["certificate"]);
    world.daemon.onecli(&["secret", "disable", "own"]).ok("disable");
    world.refused(&["own", "--path", "/say"], &["disabled", "secret enable own"]);
    let denied = world.daemon.audit_until("a refusal", |record| {
        record["code"] == "egress_denied" && record["rule"] == "secret test by uid 0"
    });
    assert_eq!(denied["host"], API, "{denied}");
}
