//! One agent makes a service store its credential and another agent reads it. Values that are returned unexpectedly
//! raise alerts.

use std::time::Duration;

use data_encoding::HEXLOWER;
use onecli_tests::canary::Canary;
use onecli_tests::client::{Outcome, Reply, curl};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::upstream::Upstream;

use crate::scene::{API, API_V6, Scene, VALUE, Way, curl_with_key};

/// The other agent's own credential.
const OTHER: &str = "other-value-0f3A9c4D77e1";

fn host(scene: &Scene) -> String {
    format!("{API}:{}", scene.upstream.https_addr().port())
}

/// An agent without a grant that may reach every host.
fn open(scene: &Scene) -> Agent {
    scene.daemon.add_agent("open", &["--factors", "token", "--egress", "allow"])
}

fn get(scene: &Scene, agent: &Agent, path: &str, args: &[&str]) -> Outcome {
    scene.daemon.explicit(&agent.token, curl(&scene.url(path)).args(args)).outcome()
}

fn store_value(scene: &Scene) {
    scene.run(Way::Explicit, curl_with_key(&scene.url("/echo"), &[])).ok("an injected request");
    assert_eq!(scene.upstream.only_request().header("authorization"), Some(&*format!("Bearer {VALUE}")));
}

fn record_count(scene: &Scene, code: &str) -> usize {
    scene.daemon.audit().iter().filter(|record| record["code"] == code).count()
}

#[test]
fn a_credential_that_another_agent_sent_is_scrubbed() {
    let scene = Scene::new();
    let canary = Canary::new(VALUE);
    store_value(&scene);
    let other = scene.daemon.add_agent("other", &["--factors", "token"]);
    scene.daemon.add_secret("other", OTHER, &["--host", &host(&scene), "--header", "x-other: {secret}"]);
    let granted = scene.daemon.grant(&other, "other");
    let open = open(&scene);
    let header = format!("x-other: {}", granted.placeholder);
    let read = |what: &str| {
        for (agent, args) in [(&other, &["-H", &header][..]), (&open, &[])] {
            let outcome = get(&scene, agent, "/stored", &[args, &["--include"]].concat());
            let out = outcome.ok(what);
            canary.assert_absent(what, &outcome.stdout);
            assert!(out.contains("Bearer ****"), "{what}: {out}");
        }
    };
    read("in use");
    scene.daemon.onecli(&["secret", "disable", "api"]).ok("disable");
    read("disabled");
    // The alert names the returned secret and the agent that received it.
    let alert = scene.daemon.audit_until("the alert", |r| r["event"] == "alert" && r["agent"] == "open");
    assert_eq!((&alert["code"], &alert["secret"]), (&"secret_returned".into(), &"api".into()), "{alert}");
    assert_eq!((&alert["verdict"], &alert["path"]), (&"forward".into(), &"/stored".into()), "{alert}");
}

/// The search takes slightly longer if a text contains the end of a value, so that raises an alert as well.
#[test]
fn end_of_another_agents_credential_raises_an_alert() {
    let scene = Scene::new();
    let open = open(&scene);
    let read = |part: &str| {
        let path = format!("/issue?body={}", HEXLOWER.encode(part.as_bytes()));
        get(&scene, &open, &path, &[]).ok("a part")
    };
    let less = &VALUE[VALUE.len() - 19..];
    assert_eq!(read(less), less);
    assert_eq!(record_count(&scene, "secret_returned"), 0);
    let enough = &VALUE[VALUE.len() - 24..];
    assert_eq!(read(&format!("{enough} {enough}")), format!("{enough} {enough}"));
    let alert = scene.daemon.audit_until("the alert", |r| r["code"] == "secret_returned");
    assert_eq!((&alert["rule"], &alert["agent"]), (&"the end of a value".into(), &"open".into()), "{alert}");
    // An upstream may return the agent's own credential.
    let path = format!("/issue?body={}", HEXLOWER.encode(enough.as_bytes()));
    let before = record_count(&scene, "secret_returned");
    scene.run(Way::Explicit, curl_with_key(&scene.url(&path), &[])).ok("the own");
    assert_eq!(record_count(&scene, "secret_returned"), before);
}

/// An upstream may echo the content of the request itself.
#[test]
fn echo_of_the_own_credential_raises_no_alert() {
    let scene = Scene::new();
    for path in ["/echo", "/echo-as/base64", "/echo-as/hex"] {
        for _ in 0..10 {
            scene.run(Way::Explicit, curl_with_key(&scene.url(path), &[])).ok(path);
        }
    }
    assert_eq!(record_count(&scene, "secret_returned"), 0);
}

#[test]
fn responses_are_cut_off_after_twenty_unexpected_matches() {
    let folding = Daemon::builder().config("[audit]\nfold_refusals = true\n");
    let scene = Scene::of(folding, Upstream::start(&[API, API_V6]), &["--bearer"]);
    store_value(&scene);
    let open = open(&scene);
    let read = || get(&scene, &open, "/stored", &["--include", "--http1.1"]);
    for n in 0..20 {
        assert!(read().ok("masked").contains("Bearer ****"), "{n}");
    }
    let cut = read();
    assert_ne!(cut.code(), Some(0), "{cut:?}");
    assert!(!cut.out().contains("****"), "{cut:?}");
    let _ = scene.daemon.audit_until("the outcome", |r| {
        r["event"] == "outcome" && r["agent"] == "open" && r["code"] == "response_withheld"
    });
    // Responses without matches pass, and so do those of other agents.
    get(&scene, &open, "/bytes/1000", &[]).ok("without a match");
    let other = scene.daemon.add_agent("other", &["--factors", "token", "--egress", "allow"]);
    assert!(get(&scene, &other, "/stored", &[]).ok("another agent").contains("Bearer ****"));
    // Alerts are folded, as refusals are.
    assert!(record_count(&scene, "secret_returned") < 10);
}

#[test]
fn tunnel_rule_passes_bytes_unread_with_a_warning() {
    let scene = Scene::new();
    let open = open(&scene);
    let port = scene.upstream.https_addr().port().to_string();
    let trusted = scene.upstream.ca_file().display().to_string();
    // The upstream's own certificate: TLS is not intercepted.
    let pinned = |agent: &Agent| -> Reply {
        let args = ["--proxy", &scene.daemon.proxy_url(&agent.token), "--cacert", &trusted];
        curl(&scene.url("/echo")).args(args).outcome().reply()
    };
    assert_eq!(pinned(&open).status, 0, "inspected");
    let rule = ["rule", "add", "allow", "--agent", "open", "--host", API, "--port", &port, "--tunnel"];
    let added = scene.daemon.onecli(&rule);
    added.ok("rule add");
    assert!(added.err().contains("warning: ") && added.err().contains("unscrubbed"), "{added:?}");
    assert!(added.err().contains("api"), "the warning must name the secret: {added:?}");
    assert_eq!(pinned(&open).verdict(), 200);
    let tunnel = scene.daemon.audit_until("the tunnel", |r| r["verdict"] == "tunnel");
    assert!(tunnel["rule"].as_str().unwrap().starts_with("allow "), "{tunnel}");
    let plain = scene.daemon.onecli(&["rule", "add", "allow", "--host", "else.test"]);
    assert!(!plain.err().contains("warning"), "{plain:?}");
}

/// A running stream does not end because an administrator stores another secret for its host.
#[test]
fn new_secret_of_another_agent_ends_no_stream() {
    let scene = Scene::new();
    let open = open(&scene);
    let stream = scene.daemon.explicit(&open.token, curl(&scene.url("/sse?n=20&ms=100"))).start();
    std::thread::sleep(Duration::from_millis(700));
    scene.daemon.add_secret("late", OTHER, &["--host", &host(&scene), "--header", "x-late: {secret}"]);
    let outcome = stream.finish();
    assert_eq!(outcome.ok("the stream").matches("data:").count(), 20, "{outcome:?}");
}

/// Values in external stores: nothing is fetched for agents without a grant, and their requests do not fail.
#[test]
fn external_value_of_another_agent_is_searched_while_in_memory() {
    let scene = Scene::new();
    let canary = Canary::new(OTHER);
    let file = scene.daemon.home().dir().join("external");
    std::fs::write(&file, OTHER).unwrap();
    let (host, path) = (host(&scene), file.display().to_string());
    let add = ["secret", "add", "external", "--host", &host, "--bearer", "--file", &path, "--path", "/echo"];
    scene.daemon.onecli(&add).ok("secret add");
    let user = scene.daemon.add_agent("user", &["--factors", "token"]);
    let _ = scene.daemon.grant(&user, "external");
    let open = open(&scene);
    get(&scene, &user, "/echo", &[]).ok("the agent that may use it");
    std::fs::remove_file(&file).unwrap();
    let outcome = get(&scene, &open, "/stored", &[]);
    assert!(outcome.ok("the value is in memory").contains("Bearer ****"), "{outcome:?}");
    canary.assert_absent("the response", &outcome.stdout);
    assert_eq!(get(&scene, &user, "/echo", &[]).reply().verdict(), 502, "its own request fails");
}

#[test]
fn weak_values_are_stored_with_a_warning() {
    let scene = Scene::new();
    let file = scene.daemon.home().dir().join("value");
    std::fs::write(&file, "password123").unwrap();
    let path = file.display().to_string();
    let value = ["--value-file", &path];
    let add = ["secret", "add", "weak", "--host", "weak.test", "--bearer"];
    let added = scene.daemon.onecli(&[&add[..], &value].concat());
    added.ok("secret add");
    assert!(added.err().contains("warning: ") && added.err().contains("entropy"), "{added:?}");
    std::fs::write(&file, "password124").unwrap();
    let rotated = scene.daemon.onecli(&[&["secret", "rotate", "weak"][..], &value].concat());
    rotated.ok("secret rotate");
    assert!(rotated.err().contains("entropy"), "{rotated:?}");
    std::fs::write(&file, "6e0b3f9c52d44a819e7b1c2d8f5a7e60").unwrap();
    let rotated = scene.daemon.onecli(&[&["secret", "rotate", "weak"][..], &value].concat());
    rotated.ok("secret rotate");
    assert!(!rotated.err().contains("warning"), "{rotated:?}");
}
