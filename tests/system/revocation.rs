//! A revocation takes effect at once, also for running streams and requests in progress (invariant 11).

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use onecli_tests::client::{Run, curl};
use onecli_tests::{need, wait_for};
use serde_json::Value;

use crate::scene::{API, Scene, VALUE, in_shell, plain_websocket};

/// A stream ends within a second of the response to the command that revokes its permission.
const SOON: Duration = Duration::from_secs(1);

#[test]
fn a_stream_ends_with_its_agent_its_grant_or_its_secret() {
    let scene = Scene::new();
    let daemon = &scene.daemon;
    let steps: [(&[&str], &[&str]); 4] = [
        (&["agent", "disable", "outside"], &["agent", "enable", "outside"]),
        (&["ungrant", "outside", "api"], &["grant", "outside", "api"]),
        (&["secret", "disable", "api"], &["secret", "enable", "api"]),
        (&["secret", "edit", "api", "--path", "/other"], &["secret", "edit", "api", "--path", "/**"]),
    ];
    for (take, give) in steps {
        for version in ["--http1.1", "--http2"] {
            let what = format!("{} {version}", take.join(" "));
            scene.upstream.clear();
            let seen = daemon.audit().len();
            let run = curl(&scene.url("/sse?n=1000&ms=50")).args(["--no-buffer", version]);
            let stream = daemon.explicit(&scene.outside.token, run).start();
            let began =
                wait_for(Duration::from_secs(10), || (scene.upstream.request_count() == 1).then_some(()));
            assert!(began.is_some(), "{what}: the stream began");
            std::thread::sleep(Duration::from_millis(200));
            daemon.onecli(take).ok(&what);
            let taken = Instant::now();
            let outcome = stream.finish();
            assert!(taken.elapsed() < SOON, "{what}: it continued for {:?}", taken.elapsed());
            // The agent sees that the body is truncated, not complete.
            assert!(outcome.code() != Some(0) && !outcome.timed_out, "{what}: {outcome:?}");
            assert!(outcome.out().contains("data: event 0"), "{what}: {outcome:?}");
            let ended = daemon.audit_until(&what, |record| {
                record["seq"].as_u64().is_some_and(|seq| seq > seen as u64) && record["event"] == "outcome"
            });
            assert_eq!(
                (&ended["code"], &ended["status"]),
                (&"revoked".into(), &200.into()),
                "{what}: {ended}"
            );
            daemon.onecli(give).ok("give it back");
        }
    }
}

/// A client cannot prevent it: the upstream connection of a client that reads nothing ends as soon as that of others.
#[test]
fn unread_stream_ends_too() {
    let scene = Scene::new();
    let daemon = &scene.daemon;
    for version in ["--http1.1", "--http2"] {
        scene.upstream.clear();
        let seen = daemon.audit().len();
        let fetch = curl(&scene.url("/bytes/50000000")).arg(version);
        let run = Run::new("sh").args(["-c", r#""$@" | sleep 30"#, "sh"]);
        let run = run.arg(fetch.program()).args(fetch.arguments());
        let stalled = daemon.explicit(&scene.outside.token, run).start();
        let began = wait_for(Duration::from_secs(10), || (scene.upstream.request_count() == 1).then_some(()));
        assert!(began.is_some(), "{version}: the stream began");
        // Until every buffer is full.
        std::thread::sleep(Duration::from_millis(500));
        daemon.onecli(&["ungrant", "outside", "api"]).ok("ungrant");
        let ended = wait_for(SOON, || {
            let is_its = |r: &&Value| r["seq"].as_u64() > Some(seen as u64) && r["event"] == "outcome";
            daemon.audit().iter().find(is_its).cloned()
        });
        let ended = ended.unwrap_or_else(|| panic!("{version}: the stream continues"));
        assert_eq!(
            (&ended["code"], &ended["status"]),
            (&"revoked".into(), &200.into()),
            "{version}: {ended}"
        );
        drop(stalled);
        daemon.onecli(&["grant", "outside", "api"]).ok("grant");
    }
}

/// The agent may still reach the host without the credential. A connection opened with it ends nevertheless.
#[test]
fn a_websocket_ends_with_the_grant_it_was_opened_with() {
    let scene = Scene::new();
    let daemon = &scene.daemon;
    let address = scene.upstream.http_addr();
    let open = daemon.add_agent("open", &["--factors", "token", "--egress", "allow"]);
    let host = format!("{API}:{}", address.port());
    daemon.add_secret("plain", VALUE, &["--host", &host, "--bearer", "--allow-plaintext"]);
    let _ = daemon.grant(&open, "plain");

    let mut socket = plain_websocket(daemon, &open.token, &host);
    scene.injected_once(&format!("Bearer {VALUE}"));
    // A masked text frame; the reply is unmasked (RFC 6455 section 5.2).
    socket.write_all(b"\x81\x82\0\0\0\0hi").unwrap();
    let mut echo = [0; 4];
    socket.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"\x81\x02hi");

    daemon.onecli(&["ungrant", "open", "plain"]).ok("ungrant");
    let taken = Instant::now();
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    assert!(taken.elapsed() < SOON, "it continued for {:?}", taken.elapsed());
    let ended = daemon.audit_until("the end", |r| r["event"] == "outcome" && r["agent"] == "open");
    assert_eq!(ended["code"], "revoked", "{ended}");
}

/// The cgroup of a process is its identity: a process that outlives its agent must not become the next agent.
#[test]
fn processes_of_a_removed_agent_have_no_identity() {
    if !need::bpf("everything") {
        return;
    }
    let scene = Scene::new();
    let daemon = &scene.daemon;
    let sleeper = daemon.managed(&scene.inside, &in_shell(&Run::new("sleep").arg("60"), r#"exec "$@""#));
    let running = sleeper.start();
    let cgroup = daemon.onecli_json(&["agent", "show", "inside"])["cgroup"].as_str().unwrap().to_owned();
    until_populated(&daemon.home().agent_cgroup(&cgroup));
    let removed = daemon.onecli(&["agent", "remove", "inside"]);
    assert!(removed.code() == Some(1) && removed.err().contains("--kill"), "{removed:?}");

    daemon.onecli(&["agent", "remove", "inside", "--kill"]).ok("remove --kill");
    let outcome = running.finish();
    assert!(!outcome.status.success() && !outcome.timed_out, "the process was killed: {outcome:?}");
    let added = daemon.onecli(&["agent", "add", "other", "--user", "games", "--cgroup", &cgroup]);
    added.ok("the cgroup is free again");

    // An unrelated process in the cgroup of a future agent.
    let directory = daemon.home().agent_cgroup("lurk.slice");
    std::fs::create_dir(&directory).unwrap();
    let enter = format!("echo $$ > {}/cgroup.procs; exec sleep 60", directory.display());
    let stranger = Run::new("sh").args(["-c", &enter]).start();
    until_populated(&directory);
    let add = ["agent", "add", "lurker", "--user", "lp", "--cgroup", "lurk.slice"];
    let added = daemon.onecli(&add);
    assert!(added.code() == Some(1) && added.err().contains("cgroup.kill"), "{added:?}");
    drop(stranger);
    let added = wait_for(Duration::from_secs(5), || {
        let added = daemon.onecli(&add);
        added.status.success().then_some(added)
    });
    assert!(added.is_some(), "the cgroup is empty now");
}

fn until_populated(cgroup: &Path) {
    let entered = wait_for(Duration::from_secs(10), || {
        (!onecli_tests::cgroup::processes(cgroup).is_empty()).then_some(())
    });
    assert!(entered.is_some(), "a process is in {}", cgroup.display());
}
