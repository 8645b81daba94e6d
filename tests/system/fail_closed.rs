//! Invariant 3: without the daemon a managed process reaches nothing, and other processes are unaffected.

use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use onecli_tests::client::{Run, curl};
use onecli_tests::{need, wait_for};

use crate::scene::{API, Scene, VALUE, Way, curl_with_key};

/// Waits for `go1` and then `go2` in its directory. After each it tries every way out and prints the result.
const PROBE: &str = r#"
    dir=$1 https=$2 http=$3 proxy=$4 udp=$5
    : > "$dir/ready"
    for phase in 1 2; do
        while [ ! -e "$dir/go$phase" ]; do sleep 0.05; done
        try() { name=$1; shift; "$@" >/dev/null 2>&1; echo "$phase $name $?"; }
        try name    curl -sS --max-time 5 -H "Authorization: Bearer $API_KEY" "https://api.test:$https/echo"
        try v4      curl -sS --max-time 5 --noproxy '*' "http://127.0.0.1:$http/echo"
        try v6      curl -sS --max-time 5 --noproxy '*' "http://[::1]:$http/echo"
        try proxy   curl -sS --max-time 5 --proxy "http://$proxy" "https://api.test:$https/echo"
        try udp     bash -c "echo out > /dev/udp/127.0.0.1/$udp"
        : > "$dir/done$phase"
    done
"#;

fn wait_for_file(path: &Path) {
    let there = wait_for(Duration::from_secs(30), || path.exists().then_some(()));
    assert!(there.is_some(), "{} was not created", path.display());
}

/// A process outside every managed cgroup connects directly to the upstream.
fn outside_works(scene: &Scene) {
    let port = scene.upstream.https_addr().port();
    let run = curl(&scene.url("/status/200"))
        .trusting(scene.upstream.ca_file())
        .args(["--resolve", &format!("{API}:{port}:127.0.0.1")]);
    assert_eq!(run.outcome().reply().status, 200);
}

#[test]
fn managed_process_reaches_nothing_while_the_daemon_is_dead() {
    if !need::bpf("everything") {
        return;
    }
    let mut scene = Scene::new();
    let dir = scene.daemon.agent_dir(&scene.inside);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_nonblocking(true).unwrap();
    let probe = Run::new("sh")
        .args(["-c", PROBE, "sh"])
        .arg(&dir)
        .arg(scene.upstream.https_addr().port().to_string())
        .arg(scene.upstream.http_addr().port().to_string())
        .arg(format!("x:{}@{}", scene.inside.token, scene.daemon.explicit_addr()))
        .arg(udp.local_addr().unwrap().port().to_string())
        .timeout(Duration::from_mins(2));
    let probe = scene.daemon.managed(&scene.inside, &probe).start();
    wait_for_file(&dir.join("ready"));

    outside_works(&scene);
    scene.daemon.kill();
    outside_works(&scene);
    let before = scene.upstream.connection_count();
    std::fs::write(dir.join("go1"), "").unwrap();
    wait_for_file(&dir.join("done1"));
    assert_eq!(scene.upstream.connection_count(), before, "a managed process reached the upstream");
    outside_works(&scene);
    // Without a daemon to authorize it, no new agent starts.
    let started = scene.run(Way::Transparent, Run::new("true"));
    assert!(matches!(started.code(), Some(125..=127)), "{started:?}");
    assert!(started.err().contains("admin.sock"), "the error must name the socket: {started:?}");

    scene.daemon.restart();
    scene.upstream.clear();
    std::fs::write(dir.join("go2"), "").unwrap();
    let out = probe.finish().ok("the probe");
    let failed = |line: &str| !line.ends_with(" 0");
    for line in out.lines().filter(|l| l.starts_with("1 ")) {
        assert!(failed(line), "reached something while the daemon was dead: {line}\n{out}");
    }
    assert!(out.contains("2 name 0\n"), "the old process is served by the new daemon:\n{out}");
    for way_out in ["v4", "v6", "udp"] {
        let line = out.lines().find(|l| l.starts_with(&format!("2 {way_out} "))).unwrap_or_default();
        // curl without --fail exits with 0 for a refusal over HTTP; then the upstream received no request.
        assert!(way_out != "udp" || failed(line), "{out}");
    }
    let seen = scene.upstream.requests();
    assert!(seen.iter().all(|r| r.sni.is_some()), "plain HTTP was forwarded: {seen:#?}");
    assert!(udp.recv_from(&mut [0; 16]).is_err(), "a datagram of a managed process arrived");
}

#[test]
fn restarted_daemon_serves_stored_secrets() {
    let mut scene = Scene::new();
    let ca = std::fs::read_to_string(scene.daemon.ca_file()).unwrap();
    let serves = |scene: &Scene| {
        let reply = scene.run(Way::Explicit, curl_with_key(&scene.url("/echo"), &[])).reply();
        assert_eq!(reply.verdict(), 200, "{reply:?}");
        scene.injected_once(&format!("Bearer {VALUE}"));
    };
    serves(&scene);
    let records = scene.daemon.audit().len();
    scene.daemon.restart();
    serves(&scene);
    assert!(scene.daemon.audit().len() > records, "earlier records are retained");
    assert_eq!(scene.daemon.onecli(&["ca", "export"]).ok("ca export"), ca, "the CA is retained");
}

#[test]
fn unverified_upstream_receives_no_request() {
    let scene = Scene::new();
    // The same name, served by a server whose CA is not trusted.
    let impostor = onecli_tests::upstream::Upstream::start(&[API]);
    let host = format!("{API}:{}", impostor.https_addr().port());
    scene.daemon.add_secret("impostor", VALUE, &["--host", &host, "--bearer", "--env", "OTHER"]);
    let _ = scene.daemon.grant(&scene.outside, "impostor");
    let run = curl(&impostor.https_url(API, "/echo"));
    let reply = scene.daemon.explicit(&scene.outside.token, run).outcome().reply();
    assert_eq!(reply.verdict(), 502, "{reply:?}");
    assert!(reply.header("x-onecli-error").is_some(), "{reply:?}");
    assert_eq!(impostor.request_count(), 0, "the impostor received a request");
}
