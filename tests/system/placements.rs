//! Placeholders that are replaced at their location: headers, Basic, query, JSON bodies.

use data_encoding::BASE64;
use onecli_tests::client;
use onecli_tests::upstream::Upstream;

use crate::scene::{API, KEY, Scene, VALUE, Way, in_shell, ways};

fn scene(site: &str) -> Scene {
    Scene::with(Upstream::start(&[API]), &["--replace", site, "--prefix", "sk-"])
}

/// curl whose last arguments come from a shell script, in which `$API_KEY` is the agent's placeholder.
fn curl(scene: &Scene, path: &str, script: &str) -> client::Run {
    in_shell(&client::curl(&scene.url(path)), script)
}

#[test]
fn placeholder_in_a_header_is_replaced_at_any_position() {
    let scene = scene("header:x-auth");
    for way in ways() {
        assert!(scene.placeholder(way).starts_with("sk-onecli_ph_"));
        let script =
            format!(r#"exec "$@" -H "X-Auth: id=7, key=${KEY}" -H "X_Auth: ${KEY}" -H "X-Other: $OTHER""#);
        let run = curl(&scene, "/echo", &script);
        scene.run(way, run).ok(&format!("curl, {way:?}"));
        let seen = scene.upstream.only_request();
        scene.upstream.clear();
        assert_eq!(seen.header("x-auth"), Some(format!("id=7, key={VALUE}").as_str()), "{seen:#?}");
        assert_eq!(seen.header("x_auth"), None, "{seen:#?}");
        // At another location it is not replaced, and the request is not sent.
        let script = format!(r#"exec "$@" -H "Authorization: Bearer ${KEY}""#);
        let reply = scene.run(way, curl(&scene, "/echo", &script)).reply();
        assert_eq!(
            (reply.status, reply.header("x-onecli-error")),
            (401, Some("placeholder_missing")),
            "{reply:?}"
        );
        // Without a placeholder nothing is replaced, even if the identity is proven otherwise.
        let reply = scene.run(way, curl(&scene, "/echo", r#"exec "$@""#)).reply();
        assert_eq!(
            (reply.status, reply.header("x-onecli-error")),
            (401, Some("placeholder_missing")),
            "{reply:?}"
        );
        let script = format!(r#"exec "$@" -H "X-Auth: ${KEY}" -H "X-Auth: 2""#);
        assert_eq!(scene.run(way, curl(&scene, "/echo", &script)).reply().status, 400);
        assert_eq!(scene.upstream.request_count(), 0);
    }
}

#[test]
fn placeholder_in_basic_credentials_is_replaced() {
    let scene = scene("basic");
    for way in ways() {
        for (pair, expected) in [
            (format!("me@x.test:${KEY}"), format!("me@x.test:{VALUE}")),
            (format!("${KEY}:"), format!("{VALUE}:")),
        ] {
            scene.run(way, curl(&scene, "/echo", &format!(r#"exec "$@" -u "{pair}""#))).ok("curl");
            let seen = scene.upstream.only_request();
            scene.upstream.clear();
            let expected = format!("Basic {}", BASE64.encode(expected.as_ref()));
            assert_eq!(seen.header("authorization"), Some(expected.as_str()), "{way:?}: {seen:#?}");
        }
        let reply = scene.run(way, curl(&scene, "/echo", r#"exec "$@""#)).reply();
        assert_eq!(
            reply.header("www-authenticate"),
            Some("Basic realm=\"OneCLI\""),
            "git repeats the request: {reply:?}"
        );
    }
}

#[test]
fn placeholder_in_a_query_parameter_is_replaced() {
    let scene = scene("query:api_key");
    for way in ways() {
        let script = format!(r#"u=$1; for u; do :; done; exec "$@" -G -d q=1 -d "api_key=${KEY}" -d z=2"#);
        let out = scene.run(way, curl(&scene, "/echo", &script)).ok("curl");
        let seen = scene.upstream.only_request();
        scene.upstream.clear();
        let expected = "/echo?q=1&api_key=sk-live%2Fcanary%2B0f3A~%3D9%25Zq%267%22x&z=2";
        assert_eq!(seen.path, expected, "{way:?}");
        assert!(!out.contains("canary"), "scrubbed: {out}");
    }
}

#[test]
fn placeholder_in_a_json_body_is_replaced() {
    let scene = scene("json:/auth/0/api~1key");
    for way in ways() {
        for flag in ["--http1.1", "--http2"] {
            let body = format!(r#"{{ "n": 1.50, "auth": [{{"api/key": "${KEY}"}}], "q": "\u00e9\n" }}"#);
            let script = format!(
                r#"exec "$@" {flag} -H 'Content-Type: application/json; charset=utf-8' -H 'Content-MD5: x' -d "{}""#,
                body.replace('\\', "\\\\").replace('"', "\\\"")
            );
            scene.run(way, curl(&scene, "/upload", &script)).ok(&format!("curl {flag}, {way:?}"));
            let seen = scene.upstream.only_request();
            scene.upstream.clear();
            let escaped = VALUE.replace('"', "\\\"");
            let expected = body.replace(&format!("${KEY}"), &escaped);
            assert_eq!(String::from_utf8_lossy(&seen.body), expected, "{way:?} {flag}");
            assert_eq!(seen.header("content-length"), Some(expected.len().to_string().as_str()));
            assert_eq!(seen.header("content-md5"), None, "the length is that of another body");
        }
    }
}

/// The type of the body must be unambiguous and its size bounded. A body proves nothing for another secret.
#[test]
fn unsuitable_json_bodies_are_refused() {
    let scene = scene("json:/key");
    let large = scene.daemon.home().dir().join("large");
    std::fs::write(&large, format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20))).unwrap();
    let large = large.display().to_string();
    let json = "-H 'Content-Type: application/json'";
    for way in ways() {
        let missing = Some("placeholder_missing");
        for (arguments, status, code) in [
            (format!(r#"{json} -d "{{\"key\":\"${KEY}\",\"key\":\"2\"}}""#), 401, missing),
            (format!(r#"{json} -d "{{\"key\":\"${KEY}\",\"\\u006bey\":\"2\"}}""#), 401, missing),
            (format!(r#"{json} -d "{{\"other\":\"${KEY}\"}}""#), 401, missing),
            (format!(r#"{json} -d "{{\"key\":[\"${KEY}\"]}}""#), 401, missing),
            (format!(r#"{json} -d "[1]{{\"key\":\"${KEY}\"}}""#), 401, missing),
            (format!(r#"-H 'Content-Type: text/plain' -d "{{\"key\":\"${KEY}\"}}""#), 401, missing),
            (format!(r#"{json} -H 'Content-Encoding: gzip' -d "{{\"key\":\"${KEY}\"}}""#), 401, missing),
            (format!(r#"{json} -H "X-Key: ${KEY}" -d "{{\"key\":\"1\"}}""#), 401, missing),
            (format!("{json} --data-binary @{large}"), 413, Some("body_too_large")),
            (
                format!("{json} -H 'Transfer-Encoding: chunked' --data-binary @{large}"),
                413,
                Some("body_too_large"),
            ),
        ] {
            let run = curl(&scene, "/echo", &format!(r#"exec "$@" --http1.1 {arguments}"#));
            let reply = scene.run(way, run).reply();
            assert_eq!(
                (reply.status, reply.header("x-onecli-error")),
                (status, code),
                "{way:?} {arguments}: {reply:?}"
            );
        }
        assert_eq!(scene.upstream.request_count(), 0, "nothing was sent");
    }
}

/// Each location has its own credential.
#[test]
fn placeholders_in_two_headers_of_one_host_are_replaced() {
    let scene = Scene::with(Upstream::start(&[API]), &["--header", "DD-API-KEY: {secret}"]);
    let host = format!("{API}:{}", scene.upstream.https_addr().port());
    let second = "second-credential-0815";
    scene.daemon.add_secret(
        "app",
        second,
        &["--host", &host, "--header", "DD-APPLICATION-KEY: {secret}", "--env", "APP_KEY"],
    );
    for agent in [&scene.inside, &scene.outside] {
        let _ = scene.daemon.grant(agent, "app");
    }
    // The explicit agent's token suffices for both placeholders.
    let run = curl(&scene, "/echo", r#"exec "$@" -H "DD-API-KEY: x""#);
    scene.run(Way::Explicit, run).ok("curl");
    let seen = scene.upstream.only_request();
    assert_eq!(seen.header("dd-api-key"), Some(VALUE));
    assert_eq!(seen.header("dd-application-key"), Some(second));
    scene.upstream.clear();
    if ways().contains(&Way::Transparent) {
        let script = format!(r#"exec "$@" -H "DD-API-KEY: ${KEY}" -H "DD-APPLICATION-KEY: $APP_KEY""#);
        scene.run(Way::Transparent, curl(&scene, "/echo", &script)).ok("curl");
        let seen = scene.upstream.only_request();
        assert_eq!(
            (seen.header("dd-api-key"), seen.header("dd-application-key")),
            (Some(VALUE), Some(second))
        );
    }
}
