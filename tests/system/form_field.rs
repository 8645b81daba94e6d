//! Credentials in a field of a form body.

use onecli_tests::client;
use onecli_tests::upstream::Upstream;

use crate::scene::{API, KEY, Scene, Way, in_shell, ways};

/// The value of the scene in a form.
const ENCODED: &str = "sk-live%2Fcanary%2B0f3A%7E%3D9%25Zq%267%22x";

fn scene() -> Scene {
    Scene::with(Upstream::start(&[API]), &["--form", "api_key", "--prefix", "sk-"])
}

/// curl whose last arguments come from a shell script, in which `$API_KEY` is the agent's placeholder.
fn curl(scene: &Scene, path: &str, arguments: &str) -> client::Run {
    in_shell(&client::curl(&scene.url(path)), &format!(r#"exec "$@" {arguments}"#))
}

#[test]
fn credential_replaces_the_value_of_a_form_field() {
    let scene = scene();
    for way in ways() {
        for flags in ["--http1.1", "--http2", "--http1.1 -H 'Transfer-Encoding: chunked'"] {
            let arguments = format!(
                r#"{flags} -H 'Content-MD5: x' -d q=a+b -d "api_key=${KEY}" --data-urlencode 'z=;&'"#
            );
            let reply =
                scene.run(way, curl(&scene, "/echo", &arguments)).ok(&format!("curl {flags}, {way:?}"));
            let seen = scene.upstream.only_request();
            scene.upstream.clear();
            let expected = format!("q=a+b&api_key={ENCODED}&z=%3B%26");
            assert_eq!(String::from_utf8_lossy(&seen.body), expected, "{way:?} {flags}");
            assert_eq!(seen.header("content-length"), Some(expected.len().to_string().as_str()));
            assert_eq!(seen.header("content-md5"), None, "the digest is that of another body");
            // The upstream echoes the body in its response. No spelling of the value comes back.
            assert!(!reply.contains("canary") && reply.contains("api_key=****"), "{reply}");
        }
    }
    let json: serde_json::Value = scene.daemon.onecli_json(&["secret", "show", "api"]);
    assert_eq!(json["placement"], serde_json::json!({"kind": "form", "name": "api_key"}));
}

/// Servers disagree about such bodies, so none is sent.
#[test]
fn unsuitable_forms_are_refused() {
    let scene = scene();
    let large = scene.daemon.home().dir().join("large");
    std::fs::write(&large, "x".repeat(1 << 20)).unwrap();
    let large = large.display().to_string();
    for way in ways() {
        let (missing, repeated) = (Some("placeholder_missing"), Some("bad_request"));
        let key = format!(r#"-d "api_key=${KEY}""#);
        for (arguments, status, code) in [
            ("-d a=1".to_owned(), 401, missing),
            (format!(r#"-d "other=${KEY}""#), 401, missing),
            ("-G -d a=1".to_owned(), 401, missing),
            (format!("{key} {key}"), 400, repeated),
            (format!("{key} -d api_key=2"), 400, repeated),
            (format!("{key} -d 'api_key[]=2'"), 400, repeated),
            (format!("{key} -d API.KEY=2"), 400, repeated),
            (format!(r#"-d "a=1;api_key=${KEY}""#), 400, repeated),
            (format!("{key} --url-query api_key=2"), 400, repeated),
            (format!(r#"-d "api_key=x${KEY}""#), 401, missing),
            (format!("{key} -H 'Content-Encoding: gzip'"), 401, missing),
            (format!("{key} -H 'Content-Type: text/plain'"), 401, missing),
            (format!("{key} -H 'Content-Type: application/json'"), 401, missing),
            (
                format!("{key} -H 'Content-Type: application/x-www-form-urlencoded; charset=utf-16'"),
                401,
                missing,
            ),
            (format!(r#"-F "api_key=${KEY}""#), 401, missing),
            (format!("{key} --data-binary @{large}"), 413, Some("body_too_large")),
            (
                format!("{key} -H 'Transfer-Encoding: chunked' --data-binary @{large}"),
                413,
                Some("body_too_large"),
            ),
        ] {
            let reply = scene.run(way, curl(&scene, "/echo", &format!("--http1.1 {arguments}"))).reply();
            assert_eq!(
                (reply.status, reply.header("x-onecli-error")),
                (status, code),
                "{way:?} {arguments}: {reply:?}"
            );
        }
        assert_eq!(scene.upstream.request_count(), 0, "nothing was sent");
    }
    // The placeholder of another agent proves nothing.
    let arguments = format!("-d api_key={}", scene.inside_grant.placeholder);
    let reply = scene.run(Way::Explicit, curl(&scene, "/echo", &arguments)).reply();
    assert_eq!(reply.header("x-onecli-error"), Some("placeholder_missing"), "{reply:?}");
    assert_eq!(scene.upstream.request_count(), 0);
}

/// A redirect to a URL with the value does not show it to the agent.
#[test]
fn value_in_a_redirect_is_masked() {
    let scene = scene();
    for way in ways() {
        for spelling in [ENCODED, "sk-live/canary%2b0f3A~=9%25Zq%267%22x"] {
            let path = format!("/redirect?to={}", spelling.replace('%', "%25").replace('&', "%26"));
            let reply = scene.run(way, curl(&scene, &path, &format!(r#"-d "api_key=${KEY}""#))).reply();
            assert!((300..400).contains(&reply.status), "{reply:?}");
            assert!(!format!("{reply:?}").contains("canary"), "{reply:?}");
            scene.upstream.clear();
        }
    }
}
