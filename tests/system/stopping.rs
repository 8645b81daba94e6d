//! Every request has a recorded outcome (invariant 10), even if the daemon ends before the request does.

use std::time::Duration;

use onecli_tests::wait_for;
use serde_json::Value;

use crate::scene::{Scene, Way, curl_with_key, ways};

/// A response that takes a minute, of which the client has received the beginning.
fn start_long_response(scene: &Scene, way: Way) -> onecli_tests::client::Running {
    let run = curl_with_key(&scene.url("/sse?n=600&ms=100"), &["--max-time", "60"]);
    let running = match way {
        Way::Transparent => scene.daemon.managed(&scene.inside, &run).start(),
        Way::Explicit => {
            let run = run.env(crate::scene::KEY, scene.placeholder(way));
            scene.daemon.explicit(&scene.outside.token, run).start()
        }
    };
    let seen = wait_for(Duration::from_secs(20), || (scene.upstream.request_count() > 0).then_some(()));
    assert!(seen.is_some(), "the request does not arrive");
    std::thread::sleep(Duration::from_millis(300));
    scene.upstream.clear();
    running
}

/// The records of the single allowed request, as (event, code).
fn let_through(scene: &Scene) -> Vec<(String, Option<String>)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let _ = scene.daemon.audit_until("the outcome", |record| record["code"] == "interrupted");
    let records = scene.daemon.audit();
    let injected = records.iter().filter(|record| record["verdict"] == "inject");
    injected.map(|record| (text(&record["event"]).unwrap(), text(&record["code"]))).collect()
}

fn check(end: impl Fn(&mut Scene)) {
    for way in ways() {
        let mut scene = Scene::new();
        let client = start_long_response(&scene, way);
        end(&mut scene);
        let log = scene.daemon.home().log();
        assert!(!log.contains("missing from the audit log"), "{log}");
        let _ = client.finish();
        scene.daemon.restart();
        let interrupted = ("outcome".to_owned(), Some("interrupted".to_owned()));
        assert_eq!(let_through(&scene), [("decision".to_owned(), None), interrupted], "{way:?}");
    }
}

#[test]
fn response_that_exceeds_the_drain_time_has_an_outcome() {
    check(|scene| assert!(scene.daemon.terminate().success()));
}

#[test]
fn response_cut_off_by_a_kill_has_an_outcome_after_the_restart() {
    check(|scene| {
        scene.daemon.kill();
    });
}
