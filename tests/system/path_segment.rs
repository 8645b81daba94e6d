//! Credentials in a segment of the URL path, as in Telegram's Bot API.

use onecli_tests::client;
use onecli_tests::daemon::Daemon;
use onecli_tests::upstream::Upstream;

use crate::scene::{API, KEY, Scene, in_shell, ways};

const VALUE: &str = "110201543:AAHcanary-4jkWU_f";

fn scene() -> Scene {
    let upstream = Upstream::start(&[API]);
    let daemon = Daemon::builder().upstream(&upstream).start();
    let inside = daemon.add_agent("inside", &["--factors", "token,cgroup", "--user", "nobody"]);
    let outside = daemon.add_agent("outside", &["--factors", "token"]);
    let host = format!("{API}:{}", upstream.https_addr().port());
    let options = ["--host", &host, "--env", KEY, "--segment", "bot{secret}", "--prefix", "1000000000:"];
    daemon.add_secret("api", VALUE, &options);
    let (inside_grant, outside_grant) = (daemon.grant(&inside, "api"), daemon.grant(&outside, "api"));
    Scene { daemon, upstream, inside, outside, inside_grant, outside_grant }
}

/// curl for a path in which `$API_KEY` is the agent's placeholder.
fn curl(scene: &Scene, path: &str, arguments: &str) -> client::Run {
    // The URL comes last, from the script.
    let run = client::curl("--path-as-is");
    in_shell(&run, &format!(r#"exec "$@" {arguments} "{}""#, scene.url(path)))
}

#[test]
fn credential_replaces_one_path_segment() {
    let scene = scene();
    for way in ways() {
        let key = format!("${{{KEY}}}");
        for flag in ["--http1.1", "--http2"] {
            let path = format!("/echo/bot{key}/sendMessage?chat_id=1");
            let arguments = format!(r#"{flag} -d text=hello -e "{}""#, scene.url(&format!("/bot{key}/x")));
            let out = scene.run(way, curl(&scene, &path, &arguments)).ok(&format!("curl {flag}, {way:?}"));
            let seen = scene.upstream.only_request();
            scene.upstream.clear();
            assert_eq!(seen.path, format!("/echo/bot{VALUE}/sendMessage?chat_id=1"), "{way:?} {flag}");
            assert_eq!(seen.header("referer"), None, "{seen:#?}");
            // The upstream echoes the path in its response.
            assert!(!out.contains("canary") && out.contains("/echo/bot****"), "{out}");
            // The record shows the path with the placeholder.
            let path = format!("/echo/bot{}/sendMessage", scene.placeholder(way));
            let _ = scene.daemon.audit_until("the request", |record| record["path"] == path.as_str());
        }
    }
    let records = serde_json::to_string(&scene.daemon.audit()).unwrap();
    assert!(!records.contains("canary"), "{records}");
}

/// The path with the value must be the path that policy judged, but for one segment.
#[test]
fn ambiguous_paths_are_refused() {
    let scene = scene();
    let key = format!("${{{KEY}}}");
    for way in ways() {
        let (missing, ambiguous) = ("placeholder_missing", "path_ambiguous");
        for (path, status, code) in [
            ("/echo/getMe".to_owned(), 401, missing),
            (format!("/echo/{key}/getMe"), 401, missing),
            (format!("/echo/bot{key}x/getMe"), 401, missing),
            (format!("/echo?bot{key}"), 401, missing),
            (format!("/echo/bot{key}/bot{key}"), 400, "bad_request"),
            (format!("/echo/bot{key}/../x"), 403, ambiguous),
            (format!("/echo/%2e%2e/bot{key}/x"), 403, ambiguous),
            (format!("/echo/bot{key}%2Fx"), 403, ambiguous),
            (format!("/echo//bot{key}/x"), 403, ambiguous),
            (format!("/echo/bot{key};x/y"), 403, ambiguous),
            (format!("/echo/bot{key}/x%3Fy"), 403, ambiguous),
        ] {
            let reply = scene.run(way, curl(&scene, &path, "--http1.1")).reply();
            assert_eq!(
                (reply.status, reply.header("x-onecli-error")),
                (status, Some(code)),
                "{way:?} {path}: {reply:?}"
            );
        }
        assert_eq!(scene.upstream.request_count(), 0, "nothing was sent");
    }
}

/// Servers redirect to URLs below the path that they received.
#[test]
fn value_in_response_fields_is_masked() {
    let scene = scene();
    let key = format!("${{{KEY}}}");
    for way in ways() {
        for spelling in [VALUE.to_owned(), VALUE.replace(':', "%253A")] {
            let path = format!("/redirect/bot{key}/x?to=https://{API}/file/bot{spelling}/y");
            let reply = scene.run(way, curl(&scene, &path, "")).reply();
            assert!((300..400).contains(&reply.status), "{reply:?}");
            let location = reply.header("location").unwrap();
            assert!(location.contains("/file/bot***") && location.ends_with("/y"), "{location}");
            assert!(!format!("{reply:?}").contains("canary"), "{reply:?}");
            scene.upstream.clear();
        }
        // The echo returns each field of the request as a field of the response.
        let fields = ["Link: </bot", "Content-Location: /bot", "Refresh: 0; url=/bot"];
        let fields = fields.map(|field| format!(" -H '{field}{VALUE}/y'")).concat();
        let reply = scene.run(way, curl(&scene, &format!("/echo/bot{key}/x"), &fields)).reply();
        let masked = ["x-echo-link", "x-echo-content-location", "x-echo-refresh"];
        assert!(
            masked.iter().all(|name| reply.header(name).is_some_and(|text| text.contains("bot***"))),
            "{reply:?}"
        );
        assert!(!format!("{reply:?}").contains("canary"), "{reply:?}");
        scene.upstream.clear();
    }
}

#[test]
fn unsuitable_values_are_refused_and_a_test_names_the_segment() {
    let scene = scene();
    let host = format!("{API}:{}", scene.upstream.https_addr().port());
    for value in ["canary/with/slash", "canary%2Fescaped", "canary?query", "canary;parameter"] {
        let options = [
            "secret",
            "add",
            "other",
            "--host",
            &host,
            "--segment",
            "bot{secret}",
            "--force",
            "--value-stdin",
        ];
        let refused = scene.daemon.home().cli(&options).stdin(value).outcome();
        assert_eq!(refused.code(), Some(1), "{}", refused.err());
        assert!(refused.err().contains("cannot be in a segment of a URL path"), "{}", refused.err());
        assert!(!refused.err().contains("canary"), "{}", refused.err());
    }
    let tested = scene.daemon.onecli_json(&["secret", "test", "api", "--path", "/echo/bot{secret}/getMe"]);
    assert_eq!(tested["status"], 200, "{tested}");
    assert!(!tested.to_string().contains("canary"), "{tested}");
    assert_eq!(scene.upstream.only_request().path, format!("/echo/bot{VALUE}/getMe"));
    let run = scene.daemon.onecli(&["secret", "test", "api", "--path", "/echo/getMe"]);
    assert_ne!(run.code(), Some(0), "the path names no segment");
}
