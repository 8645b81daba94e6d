//! Invariant 1: the credential's value reaches the upstream exactly once, and nothing else.

use onecli_tests::canary::Canary;
use onecli_tests::client::{self, Outcome, Run};
use onecli_tests::need;

use crate::scene::{API, KEY, Scene, VALUE, Way, curl_with_key, ways};

/// Searches all output of a client.
fn assert_clean(canary: &Canary, what: &str, outcome: &Outcome) {
    canary.assert_absent(what, &outcome.stdout);
    canary.assert_absent(what, &outcome.stderr);
}

#[test]
fn echoed_headers_are_scrubbed() {
    let scene = Scene::new();
    let canary = Canary::new(VALUE);
    for way in ways() {
        for flag in ["--http1.1", "--http2"] {
            for path in ["/echo", "/echo?in=query", "/redirect", "/status/500"] {
                let what = format!("{way:?} {flag} {path}");
                // curl's report contains the header fields, so they are searched too.
                let outcome = scene.run(way, curl_with_key(&scene.url(path), &[flag, "--verbose"]));
                outcome.ok(&what);
                assert_clean(&canary, &what, &outcome);
                let seen = scene.injected_once(&format!("Bearer {VALUE}"));
                assert_eq!(seen.count(VALUE), 1, "{what}: {seen:#?}");
            }
        }
    }
    everything_at_rest_is_clean(&scene, &canary);
}

#[test]
fn encoded_echo_of_headers_is_scrubbed() {
    let scene = Scene::new();
    let canary = Canary::new(VALUE);
    for way in ways() {
        for encoding in ["base64", "base32", "hex", "percent"] {
            let what = format!("{way:?} {encoding}");
            let outcome = scene.run(way, curl_with_key(&scene.url(&format!("/echo-as/{encoding}")), &[]));
            outcome.ok(&what);
            assert_clean(&canary, &what, &outcome);
        }
    }
}

/// A base64 or base32 character that encodes bits of both the value and its neighbours is masked with the value.
#[test]
fn characters_shared_by_a_value_and_its_neighbours_are_masked() {
    let scene = Scene::new();
    for (encoding, bits, text) in [
        ("base64", 6, data_encoding::BASE64.encode(format!("Bearer {VALUE}").as_bytes())),
        ("base32", 5, data_encoding::BASE32.encode(format!("Bearer {VALUE}").as_bytes())),
    ] {
        let own = "Bearer ".len() * 8 / bits;
        let expected: String =
            text.char_indices().map(|(at, c)| if at < own || c == '=' { c } else { '*' }).collect();
        for flag in ["--http1.1", "--http2"] {
            let run = curl_with_key(&scene.url(&format!("/echo-as/{encoding}")), &[flag]);
            let out = scene.run(Way::Explicit, run).ok(encoding);
            assert!(
                out.contains(&format!("authorization: {expected} ")),
                "{encoding} {flag}: {expected} in {out}"
            );
        }
    }
}

/// A response that is encoded although `identity` was requested is decoded and scanned. If it cannot be decoded, it is
/// refused.
#[test]
fn compressed_echo_of_headers_is_scrubbed() {
    let scene = Scene::new();
    let canary = Canary::new(VALUE);
    for way in ways() {
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let what = format!("{way:?} {coding}");
            let url = scene.url(&format!("/compressed/{coding}"));
            let outcome = scene.run(way, curl_with_key(&url, &["--include"]));
            let out = outcome.ok(&what);
            assert_clean(&canary, &what, &outcome);
            assert!(out.contains("\"authorization\"") && out.contains("Bearer ***"), "{what}: {out}");
            assert!(!out.to_lowercase().contains("content-encoding"), "{what}: {out}");
            scene.injected_once(&format!("Bearer {VALUE}"));
        }
        let url = scene.url("/compressed/aes128gcm");
        let reply = scene.run(way, curl_with_key(&url, &[])).reply();
        assert_eq!(reply.status, 502, "{way:?}: {reply:?}");
        assert_eq!(reply.headers["x-onecli-error"], ["upstream_protocol"], "{way:?}: {reply:?}");
        scene.injected_once(&format!("Bearer {VALUE}"));
    }
}

/// A value that an upstream stored during the grant is still masked after the grant ends.
#[test]
fn value_stored_by_an_upstream_is_masked_after_the_grant_ends() {
    let scene = Scene::new();
    let canary = Canary::new(VALUE);
    let port = scene.upstream.https_addr().port().to_string();
    scene.daemon.onecli(&["rule", "add", "allow", "--host", API, "--port", &port]).ok("rule");
    let read = |what: &str, injected: bool| {
        for flag in ["--http1.1", "--http2"] {
            let run = client::curl(&scene.url("/stored")).args([flag, "--include"]);
            let outcome = scene.daemon.explicit(&scene.outside.token, run).outcome();
            let out = outcome.ok(what);
            assert_clean(&canary, what, &outcome);
            assert!(out.contains("Bearer ****"), "{what} {flag}: {out}");
            let seen = scene.upstream.requests();
            let sent = seen.last().unwrap().header("authorization").is_some();
            assert_eq!(sent, injected, "{what} {flag}: {seen:#?}");
        }
    };
    read("granted", true);
    for (take, give) in [
        (["ungrant", "outside", "api"], ["grant", "outside", "api"]),
        (["secret", "disable", "api"], ["secret", "enable", "api"]),
    ] {
        scene.daemon.onecli(&take).ok("take it back");
        read(&take.join(" "), false);
        scene.daemon.onecli(&give).ok("give it back");
        read(&give.join(" "), true);
    }
}

/// After a 101 without WebSocket, the upstream would read the agent's bytes as requests that policy never saw.
#[test]
fn switch_to_another_protocol_than_websocket_is_refused() {
    let scene = Scene::new();
    for (path, expected) in [("/ws", 101), ("/ws/unaccepted", 502), ("/ws/of-another", 502)] {
        let run = client::curl(&scene.url(path))
            .args(["--http1.1", "--max-time", "2", "--include", "--no-buffer"])
            .args([
                "-H",
                "Connection: Upgrade",
                "-H",
                "Upgrade: websocket",
                "-H",
                "Sec-WebSocket-Version: 13",
                "-H",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            ]);
        let out = scene.daemon.explicit(&scene.outside.token, run).outcome().out();
        assert!(out.contains(&format!("HTTP/1.1 {expected} ")), "{path}: {out}");
    }
}

/// Two unrequested parts could contain half a value each.
#[test]
fn unrequested_partial_response_is_refused() {
    let scene = Scene::new();
    for flag in ["--http1.1", "--http2"] {
        let run = client::curl(&scene.url("/status/206")).args([flag, "--range", "0-9"]);
        let reply = scene.daemon.explicit(&scene.outside.token, run).outcome().reply();
        assert_eq!(
            (reply.status, reply.header("x-onecli-error")),
            (502, Some("upstream_protocol")),
            "{reply:?}"
        );
    }
}

#[test]
fn echo_of_headers_over_a_websocket_is_scrubbed() {
    if !need::python("everything") {
        return;
    }
    let script = r#"
import os, sys
from websockets.sync.client import connect
with connect(sys.argv[1], additional_headers={"Authorization": "Bearer " + os.environ["API_KEY"]}, open_timeout=20) as ws:
    ws.send("headers")
    print(ws.recv(timeout=20))
"#;
    let scene = Scene::new();
    for way in ways() {
        let url = scene.url("/ws").replace("https://", "wss://");
        let run = Run::new(client::python().unwrap()).args(["-c", script, &url]);
        let outcome = scene.run(way, run);
        outcome.ok("websockets");
        assert_clean(&Canary::new(VALUE), &format!("{way:?}"), &outcome);
        scene.injected_once(&format!("Bearer {VALUE}"));
    }
}

/// Invariant 7: every copy of the injected header is removed before the single real value is set.
#[test]
fn copies_of_the_injected_header_are_removed() {
    let scene = Scene::new();
    for way in ways() {
        for flag in ["--http1.1", "--http2"] {
            for copy in ["Authorization: Bearer other", "authorization: Basic eDp5", "AUTHORIZATION:"] {
                let args = [flag, "-H", copy, "-H", "Connection: close"];
                let outcome = scene.run(way, curl_with_key(&scene.url("/echo"), &args));
                outcome.ok(copy);
                let seen = scene.injected_once(&format!("Bearer {VALUE}"));
                assert!(seen.header("proxy-authorization").is_none(), "{seen:#?}");
            }
        }
    }
}

#[test]
fn values_are_absent_from_everything_an_agent_can_read() {
    if !need::bpf("everything") {
        return;
    }
    let scene = Scene::new();
    let canary = Canary::new(VALUE);
    let environment = scene.run(Way::Transparent, Run::new("env"));
    let environment_text = environment.ok("env");
    assert_clean(&canary, "the agent's environment", &environment);
    let key = format!("{KEY}={}\n", scene.placeholder(Way::Transparent));
    assert!(environment_text.contains(&key), "{environment_text}");
    let home = scene.daemon.home();
    for (what, path) in [
        ("the data directory", home.data_dir()),
        ("the admin socket", home.socket()),
        ("the daemon's memory", format!("/proc/{}/mem", scene.daemon.pid()).into()),
        ("the daemon's environment", format!("/proc/{}/environ", scene.daemon.pid()).into()),
    ] {
        let read = Run::new("sh").args(["-c", r#"ls "$1"/* || head -c 1 "$1""#, "sh"]).arg(&path);
        let outcome = scene.run(Way::Transparent, read);
        assert!(!outcome.status.success(), "the agent reads {what}: {outcome:?}");
    }
}

/// Files of the daemon, and all output of the CLI for an administrator.
fn everything_at_rest_is_clean(scene: &Scene, canary: &Canary) {
    let commands: &[&[&str]] = &[
        &["status"],
        &["secret", "list"],
        &["secret", "show", "api"],
        &["agent", "list"],
        &["agent", "show", "outside"],
        &["audit", "list"],
    ];
    for command in commands {
        for json in [false, true] {
            let args = [if json { &["--json"][..] } else { &[] }, command].concat();
            let outcome = scene.daemon.onecli(&args);
            outcome.ok(&args.join(" "));
            assert_clean(canary, &args.join(" "), &outcome);
        }
    }
    canary.assert_absent("the daemon's log", scene.daemon.home().log());
    canary.assert_absent_in_dir(scene.daemon.home().dir());
}

#[test]
fn rotation_leaves_neither_value_behind() {
    const NEXT: &str = "sk-live/second+value=8871~\"y";
    let scene = Scene::new();
    let rotate = scene.daemon.home().cli(&["secret", "rotate", "api", "--value-stdin"]).stdin(NEXT).outcome();
    rotate.ok("secret rotate");
    let outcome = scene.run(Way::Explicit, curl_with_key(&scene.url("/echo"), &[]));
    outcome.ok("after the rotation");
    scene.injected_once(&format!("Bearer {NEXT}"));
    for value in [VALUE, NEXT] {
        let canary = Canary::new(value);
        assert_clean(&canary, "the client", &outcome);
        assert_clean(&canary, "secret rotate", &rotate);
        everything_at_rest_is_clean(&scene, &canary);
    }
}
