//! `secret edit`: which changes preserve the value, which take effect, and what a later rollback may do.

use onecli_tests::bins;
use onecli_tests::client::{Outcome, Run, curl};
use onecli_tests::daemon::Daemon;
use onecli_tests::upstream::Upstream;
use serde_json::Value;

use crate::scene::{API, API_V6, Scene, VALUE, Way, curl_with_key};

const SECOND: &str = "sk-live/second+value=8871";

fn secret(scene: &Scene, args: &[&str], value: &str) -> Outcome {
    scene.daemon.home().cli(&[&["secret"], args].concat()).stdin(value).outcome()
}

fn status(scene: &Scene, host: &str, path: &str, args: &[&str]) -> u16 {
    let url = scene.upstream.https_url(host, path);
    scene.run(Way::Explicit, curl_with_key(&url, &[]).args(args)).reply().verdict()
}

fn serves(scene: &Scene, host: &str, path: &str, value: &str) {
    assert_eq!(status(scene, host, path, &[]), 200, "{host}{path}");
    scene.injected_once(&format!("Bearer {value}"));
}

fn shown(scene: &Scene) -> Value {
    scene.daemon.onecli_json(&["secret", "show", "api"])
}

#[test]
fn edit_applies_from_the_next_request_and_preserves_the_value() {
    let scene = Scene::new();
    serves(&scene, API, "/echo", VALUE);
    let edited =
        secret(&scene, &["edit", "api", "--path", "/echo/**", "--method", "GET", "--env", "OTHER_KEY"], "");
    let printed = edited.ok("edit");
    for text in ["paths", "/**", "/echo/**", "methods", "GET", "variable", "API_KEY", "OTHER_KEY", "version"]
    {
        assert!(printed.contains(text), "{text}: {printed}");
    }
    assert!(!printed.contains("placement"), "unchanged fields are listed: {printed}");
    assert_eq!(shown(&scene)["version"], 2);
    assert_eq!(status(&scene, API, "/echo", &[]), 403);
    assert_eq!(status(&scene, API, "/echo/1", &["-X", "POST"]), 403);
    assert!(scene.upstream.requests().is_empty());
    serves(&scene, API, "/echo/1", VALUE);
    // An edit without a difference creates no new version.
    let again = secret(&scene, &["edit", "api", "--method", "get"], "");
    assert!(again.ok("edit").contains("nothing was changed"), "{again:?}");
    assert_eq!(shown(&scene)["version"], 2);
}

/// Root may send a value to another host. Responses of the previous host are still searched for it.
#[test]
fn root_may_move_a_value_to_another_host() {
    let scene = Scene::new();
    assert_eq!(status(&scene, API, "/echo", &[]), 200, "the service stores the value");
    let open = scene.daemon.add_agent("open", &["--factors", "token", "--egress", "allow"]);
    let host = format!("{API_V6}:{}", scene.upstream.https_addr().port());
    secret(&scene, &["edit", "api", "--host", &host], "").ok("edit");
    assert_eq!(status(&scene, API, "/echo", &[]), 403);
    let stored = curl(&scene.url("/stored")).args(["--include"]);
    let text = scene.daemon.explicit(&open.token, stored).outcome().ok("/stored");
    assert!(text.contains("Bearer ****") && !text.contains(VALUE), "{text}");
    scene.upstream.clear();
    serves(&scene, API_V6, "/echo", VALUE);
    let back = secret(&scene, &["rollback", "api"], "");
    assert!(!back.status.success() && back.err().contains("hosts changed"), "{back:?}");
}

/// The new location of a moved secret is checked against its own stored value.
#[test]
fn edit_to_another_host_erases_a_previous_value_only_with_consent() {
    let scene = Scene::new();
    secret(&scene, &["rotate", "api", "--value-stdin"], SECOND).ok("rotate");
    let host = format!("{API_V6}:{}", scene.upstream.https_addr().port());
    let with_value = ["edit", "api", "--host", &host, "--value-stdin"];
    let moves: [&[&str]; 3] =
        [&["edit", "api", "--host", &host], &["edit", "api", "--header", "x-key: {secret}"], &with_value];
    for args in moves {
        let refused = secret(&scene, args, SECOND);
        assert_eq!(refused.code(), Some(2), "{args:?}: {refused:?}");
        for word in ["version 1 of secret 'api'", "retained until", "onecli secret rollback api", "--force"] {
            assert!(refused.err().contains(word), "{args:?}: {word}: {refused:?}");
        }
    }
    assert_eq!(shown(&scene)["version"], 2, "nothing was changed");
    // For programs that use the admin socket.
    let socket = scene.daemon.home().socket();
    let change = r#"{"version": 2, "host": "six.test"}"#;
    let ask = Run::new("curl").args(["--silent", "--unix-socket"]).arg(&socket).args(["--data", change]);
    let response = ask.arg("http://admin/v1/secrets/api/edit").outcome().ok("edit");
    let response: Value = serde_json::from_str(&response).unwrap();
    assert_eq!(response["error"]["code"], "drops_kept_value", "{response}");
    // As the hint suggests.
    secret(&scene, &["rollback", "api"], "").ok("rollback");
    serves(&scene, API, "/echo", VALUE);
    secret(&scene, &[moves[0], &["--force"]].concat(), "").ok("with --force");
    serves(&scene, API_V6, "/echo", VALUE);
    // Back at the old host, the stored value is the current one and is not lost.
    let home = format!("{API}:{}", scene.upstream.https_addr().port());
    secret(&scene, &["edit", "api", "--host", &home], "").ok("back");
    serves(&scene, API, "/echo", VALUE);
}

#[test]
fn terminal_prompt_precedes_the_erasure_of_a_previous_value() {
    let daemon = Daemon::builder().no_ebpf();
    let scene = Scene::of(daemon, Upstream::start(&[API, API_V6]), &["--bearer"]);
    secret(&scene, &["rotate", "api", "--value-stdin"], SECOND).ok("rotate");
    let command = format!(
        "{} --socket {} secret edit api --host {API_V6}; echo code $?",
        bins::path("onecli").display(),
        scene.daemon.home().socket().display()
    );
    let answered = |answer: &str| {
        let script = Run::new("script").args(["--quiet", "--command", &command, "/dev/null"]);
        script.stdin(answer).outcome().out()
    };
    let declined = answered("n\n");
    assert!(
        declined.contains("Erase the retained value? [y/N]") && declined.contains("code 1"),
        "{declined}"
    );
    assert_eq!(shown(&scene)["version"], 2);
    let agreed = answered("y\n");
    assert!(agreed.contains("code 0"), "{agreed}");
    assert_eq!(shown(&scene)["version"], 3);
}

/// `show` and the table of an edit announce only what `rollback` does.
#[test]
fn rollback_is_announced_only_if_it_would_succeed() {
    let scene = Scene::new();
    secret(&scene, &["rotate", "api", "--value-stdin"], SECOND).ok("rotate");
    let edited = secret(&scene, &["edit", "api", "--host", &format!("{API}:1")], "").ok("another port");
    assert!(edited.contains("cannot be restored"), "{edited}");
    let response = shown(&scene);
    assert!(response["previous_until"].is_null() && response["masked_until"].is_string(), "{response}");
    let people = secret(&scene, &["show", "api"], "").ok("show");
    assert!(people.contains("cannot be restored") && !people.contains("retained;"), "{people}");
    assert!(!secret(&scene, &["rollback", "api"], "").status.success());
    let home = format!("{API}:{}", scene.upstream.https_addr().port());
    secret(&scene, &["edit", "api", "--host", &home], "").ok("back");
    let response = shown(&scene);
    assert!(response["previous_until"].is_string() && response["masked_until"].is_null(), "{response}");
    secret(&scene, &["rollback", "api"], "").ok("rollback");
    serves(&scene, API, "/echo", VALUE);
}

#[test]
fn host_without_a_port_preserves_the_port() {
    let scene = Scene::new();
    let port = scene.upstream.https_addr().port();
    secret(&scene, &["edit", "api", "--host", API_V6], "").ok("edit");
    assert_eq!(shown(&scene)["port"], port);
    serves(&scene, API_V6, "/echo", VALUE);
    secret(&scene, &["edit", "api", "--host", &format!("https://{API_V6}")], "").ok("a URL");
    assert_eq!(shown(&scene)["port"], 443);
    let mixed = secret(&scene, &["edit", "api", "--host", API, "--host", &format!("{API_V6}:8443")], "");
    assert!(mixed.code() == Some(2) && mixed.err().contains("one port"), "{mixed:?}");
}

#[test]
fn concurrent_edit_is_refused() {
    let scene = Scene::new();
    secret(&scene, &["edit", "api", "--if-version", "1", "--method", "GET"], "").ok("the first");
    let late = secret(&scene, &["edit", "api", "--if-version", "1", "--path", "/echo"], "");
    assert!(!late.status.success() && late.err().contains("changed at the same time"), "{late:?}");
    assert_eq!((&shown(&scene)["version"], &shown(&scene)["paths"][0]), (&2.into(), &"/**".into()));
}

#[test]
fn rollback_is_refused_for_hosts_the_value_was_not_for() {
    let scene = Scene::new();
    secret(&scene, &["rotate", "api", "--value-stdin"], SECOND).ok("rotate");
    // A narrower scope: the previous value is restored for it.
    secret(&scene, &["edit", "api", "--path", "/echo"], "").ok("edit");
    assert!(shown(&scene)["previous_until"].is_string(), "{}", shown(&scene));
    serves(&scene, API, "/echo", SECOND);
    secret(&scene, &["rollback", "api"], "").ok("rollback");
    serves(&scene, API, "/echo", VALUE);
    assert_eq!(status(&scene, API, "/", &[]), 403, "the rollback reverted the edit");
    // Another host, with its own value.
    let host = format!("{API_V6}:{}", scene.upstream.https_addr().port());
    secret(&scene, &["edit", "api", "--host", &host, "--value-stdin", "--force"], SECOND).ok("edit");
    serves(&scene, API_V6, "/echo", SECOND);
    let refused = secret(&scene, &["rollback", "api"], "");
    assert!(!refused.status.success() && refused.err().contains("hosts changed"), "{refused:?}");
    serves(&scene, API_V6, "/echo", SECOND);
}

/// A value that does not fit the new placement is refused before anything changes.
#[test]
fn placement_that_does_not_fit_the_value_is_refused() {
    let daemon = Daemon::builder().no_ebpf();
    let scene = Scene::of(daemon, Upstream::start(&[API, API_V6]), &["--bearer"]);
    let refused = secret(&scene, &["edit", "api", "--sigv4", "*/*"], "");
    assert!(!refused.status.success(), "{refused:?}");
    assert_eq!(shown(&scene)["version"], 1);
    serves(&scene, API, "/echo", VALUE);
    secret(&scene, &["edit", "api", "--header", "x-key: {secret}"], "").ok("edit");
    assert_eq!(status(&scene, API, "/echo", &[]), 200);
    assert_eq!(scene.upstream.only_request().header("x-key"), Some(VALUE));
}
