//! The message for a refused request: its reason, and a step that helps.

use onecli_tests::client::{Reply, curl};
use onecli_tests::upstream::Upstream;

use crate::scene::{API, KEY, Scene, Way, in_shell};

fn message_and_hint(reply: &Reply) -> (String, String) {
    let error = reply.json();
    let text = |key: &str| error["error"][key].as_str().unwrap_or_default().to_owned();
    (text("message"), text("hint"))
}

#[test]
fn refused_targets_are_reported_by_name() {
    let scene = Scene::new();
    for (target, method, expected) in [
        ("*", "OPTIONS", "'OPTIONS *' asks about the server as a whole"),
        ("/a\"b", "GET", "'\\\"'"),
        ("/a<b", "GET", "'<'"),
    ] {
        let run = curl(&scene.url("/")).args(["--http1.1", "--request", method, "--request-target", target]);
        let reply = scene.run(Way::Explicit, run).reply();
        let (message, hint) = message_and_hint(&reply);
        assert_eq!(reply.verdict(), 400, "{target}: {reply:?}");
        assert!(message.contains(expected), "{target}: {message}");
        assert_eq!(hint.contains("percent-encode"), target != "*", "{target}: {hint}");
    }
}

#[test]
fn refused_content_coding_of_a_body_is_reported() {
    let scene = Scene::with(Upstream::start(&[API]), &["--replace", "json:/key"]);
    let run = curl(&scene.url("/upload"))
        .args(["--header", "Content-Type: application/json", "--header", "Content-Encoding: gzip"])
        .args(["--data-binary", "@-"]);
    let script = format!(r#"printf '{{"key":"%s"}}' "${KEY}" | gzip | "$@""#);
    let reply = scene.run(Way::Explicit, in_shell(&run, &script)).reply();
    assert_eq!(reply.header("x-onecli-error"), Some("placeholder_missing"), "{reply:?}");
    let (_, hint) = message_and_hint(&reply);
    assert!(hint.contains("Content-Encoding"), "{hint}");
}

#[test]
fn url_is_accepted_as_a_host() {
    let scene = Scene::new();
    scene.daemon.add_secret("url", "another-credential-123456", &["--host", "https://b.test/", "--bearer"]);
    let shown = scene.daemon.onecli(&["secret", "show", "url"]).ok("secret show");
    assert!(shown.contains("b.test"), "{shown}");
    let with_path =
        ["secret", "add", "path", "--host", "https://b.test:8443/v1/", "--bearer", "--value-stdin"];
    let refused = scene.daemon.onecli(&with_path);
    assert_ne!(refused.code(), Some(0), "{refused:?}");
    assert!(refused.err().contains("--host b.test:8443, and add --path '/v1/**'"), "{}", refused.err());
}

#[test]
fn backup_does_not_overwrite_a_file() {
    let scene = Scene::new();
    let file = scene.daemon.home().dir().join("backup");
    std::fs::write(&file, "kept").unwrap();
    let refused = scene.daemon.onecli(&["backup", &file.display().to_string()]);
    assert_ne!(refused.code(), Some(0), "{refused:?}");
    assert!(refused.err().contains("the file exists"), "{}", refused.err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
}
