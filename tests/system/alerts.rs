//! Alerts reach the operator: in the journal with fields, or on standard error.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use onecli_tests::client::curl;
use onecli_tests::daemon::Daemon;
use onecli_tests::upstream::Upstream;
use onecli_tests::{need, wait_for};

use crate::scene::{API, API_V6, Scene, VALUE};

/// Sends the placeholder of another agent, in a request to a path that no rule covers.
fn raise(scene: &Scene) -> serde_json::Value {
    let header = format!("Authorization: Bearer {}", scene.inside_grant.placeholder);
    let run = curl(&scene.url("/private/path?token=abc")).args(["-H", &header]);
    let reply = scene.daemon.explicit(&scene.outside.token, run).outcome().reply();
    assert_eq!(reply.verdict(), 403, "{reply:?}");
    scene
        .daemon
        .audit_log()
        .into_iter()
        .find(|r| r["code"] == "placeholder_foreign")
        .expect("the alert's record")
}

/// An entry in the journal's native protocol (systemd.io, `JOURNAL_NATIVE_PROTOCOL`).
fn fields(mut datagram: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while let Some(end) = datagram.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8(datagram[..end].to_vec()).unwrap();
        datagram = &datagram[end + 1..];
        if let Some((name, value)) = line.split_once('=') {
            fields.insert(name.to_owned(), value.to_owned());
            continue;
        }
        let (length, rest) = datagram.split_at(8);
        let length = usize::try_from(u64::from_le_bytes(length.try_into().unwrap())).unwrap();
        fields.insert(line, String::from_utf8(rest[..length].to_vec()).unwrap());
        datagram = &rest[length + 1..];
    }
    fields
}

#[test]
fn alert_is_in_the_journal_with_fields() {
    if !need::root("a journal for the test") || !need::program("a journal", "unshare", "util-linux") {
        return;
    }
    let dir = tempfile::tempdir_in("/var/lib").unwrap();
    let journal = UnixDatagram::bind(dir.path().join("socket")).unwrap();
    journal.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let builder = Daemon::builder().no_ebpf().journal(dir.path());
    let scene = Scene::of(builder, Upstream::start(&[API, API_V6]), &["--bearer"]);
    let record = raise(&scene);
    let mut buffer = vec![0; 64 << 10];
    let entry = loop {
        let length = journal.recv(&mut buffer).expect("an entry of the journal");
        let entry = fields(&buffer[..length]);
        // The daemon probes for the journal with an empty datagram.
        if entry.get("ONECLI_REASON").is_some_and(|reason| reason == "placeholder_foreign") {
            break entry;
        }
    };
    let seq = record["seq"].to_string();
    for (name, value) in [
        ("PRIORITY", "4"),
        ("SYSLOG_IDENTIFIER", "onecli-daemon"),
        ("ONECLI_AGENT", "outside"),
        ("ONECLI_HOST", API),
        ("ONECLI_VERDICT", "deny"),
        ("ONECLI_RECORD", &seq),
        ("ONECLI_REQUEST_ID", record["request_id"].as_str().unwrap()),
    ] {
        assert_eq!(entry.get(name).map(String::as_str), Some(value), "{name}: {entry:#?}");
    }
    assert!(
        entry["MESSAGE"].contains(&format!("by agent 'outside' for {API}, audit record {seq}")),
        "{entry:#?}"
    );
    for secret in [VALUE, "private/path", "token=abc", &scene.inside_grant.placeholder] {
        assert!(entry.values().all(|value| !value.contains(secret)), "{secret}: {entry:#?}");
    }
    // Only the journal has the alert. The rest of the log stays on standard error.
    let log = scene.daemon.home().log();
    assert!(!log.contains("placeholder_foreign") && log.contains("serving"), "{log}");
}

#[test]
fn alert_is_on_standard_error_without_a_journal() {
    let scene = Scene::new();
    let record = raise(&scene);
    let line = wait_for(Duration::from_secs(5), || {
        let log = scene.daemon.home().log();
        log.lines().find(|line| line.contains("alert: placeholder_foreign")).map(str::to_owned)
    });
    let line = line.expect("a line of the log");
    let words =
        [" WARN ", "agent=\"outside\"", &format!("host=\"{API}\""), &format!("record={}", record["seq"])];
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
    assert!(!line.contains("private/path") && !line.contains(&scene.inside_grant.placeholder), "{line}");
}
