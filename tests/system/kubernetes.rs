//! The unchanged example for Kubernetes, run by Podman, which accepts its manifests.

use data_encoding::BASE64;
use onecli_tests::bins;
use onecli_tests::daemon::Daemon;
use onecli_tests::podman::Podman;
use onecli_tests::upstream::Upstream;
use serde_json::{Map, Value, json};

use crate::scene::{API, KEY, VALUE};

/// As kubectl creates objects from the files of `agent env`: a Secret of lines, a `ConfigMap` of whole files.
#[test]
fn slow_kubernetes_example_runs_a_pod_as_an_agent() {
    let Some(podman) = Podman::new("everything") else { return };
    let upstream = Upstream::start(&[API]);
    let daemon = Daemon::builder().upstream(&upstream).no_ebpf().start();
    let host = format!("{API}:{}", upstream.https_addr().port());
    daemon.add_secret("api", VALUE, &["--host", &host, "--bearer", "--env", KEY]);
    let agent = daemon.add_agent("crawler", &["--factors", "token"]);
    let _ = daemon.grant(&agent, "api");
    let files = podman.dir().join("files");
    let out = files.to_str().unwrap();
    daemon
        .onecli(&["agent", "env", "crawler", "--for", "docker", "--hours", "720", "--out", out])
        .ok("agent env");

    let lines = std::fs::read_to_string(files.join("env")).unwrap();
    let pairs = lines.lines().filter_map(|line| line.split_once('='));
    let secret: Map<String, Value> =
        pairs.map(|(name, value)| (name.to_owned(), BASE64.encode(value.as_ref()).into())).collect();
    assert!(secret.contains_key("HTTPS_PROXY") && secret.contains_key(KEY), "{lines}");
    let create = podman.podman(&["secret", "create", "onecli-crawler", "-"]);
    create.stdin(Value::from(secret).to_string()).outcome().ok("podman secret create");
    let bundle = std::fs::read_to_string(files.join("ca-bundle.pem")).unwrap();
    let map = podman.dir().join("ca.yaml");
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "onecli-ca" },
        "data": { "ca-bundle.pem": bundle },
    });
    std::fs::write(&map, object.to_string()).unwrap();

    let example = bins::workspace().join("tests/containers/kubernetes.yaml");
    let manifest = std::fs::read_to_string(&example).unwrap();
    let image = manifest.lines().find_map(|line| line.trim().strip_prefix("image: ")).expect("an image");
    let call = format!(
        r#"exec /usr/bin/curl -sSf -H "Authorization: Bearer ${KEY}" {}"#,
        upstream.https_url(API, "/echo")
    );
    podman.import(image, &["/bin/sh", "-c", &call]);
    // The pod uses the node's network here, where the daemon listens.
    let play = podman.podman(&["kube", "play", "--network=host", "--configmap"]).arg(&map).arg(&example);
    play.outcome().ok("podman kube play");
    let record = daemon.audit_until("the injection", |r| r["verdict"] == "inject");
    assert_eq!((&record["agent"], &record["mode"]), (&"crawler".into(), &"explicit".into()), "{record}");
    assert_eq!(upstream.requests().first().map(|request| request.count(VALUE)), Some(1));
    podman.podman(&["kube", "down"]).arg(&example).outcome().ok("podman kube down");
}
