//! The audit log on a disk with each kind of failure: the daemon answers 503, forwards no request unrecorded, and
//! recovers without a restart.

use std::time::Duration;

use onecli_tests::client::curl;
use onecli_tests::daemon::Daemon;
use onecli_tests::faulty::{Fault, FaultyDisk};
use onecli_tests::upstream::Upstream;
use onecli_tests::{need, wait_for};

use crate::scene::{API, VALUE};

/// Invariants 2, 3 and 10.
#[test]
fn requests_are_refused_on_a_failed_disk_and_served_after_recovery() {
    if !need::root("everything") {
        return;
    }
    let upstream = Upstream::start(&[API]);
    let home = Daemon::builder().upstream(&upstream).no_ebpf().prepare();
    let audit = home.data_dir().join("audit");
    std::fs::create_dir(&audit).unwrap();
    let Some(disk) = FaultyDisk::over(&audit) else { return };
    let mut daemon = Daemon::start(home);
    // Drop order: the disk is unmounted before the daemon's directory is removed.
    let disk = disk;
    let agent = daemon.add_agent("agent", &["--factors", "token"]);
    let host = format!("{API}:{}", upstream.https_addr().port());
    daemon.add_secret("api", VALUE, &["--host", &host, "--bearer"]);
    let _ = daemon.grant(&agent, "api");
    let verdict = |daemon: &Daemon| {
        let run = curl(&upstream.https_url(API, "/echo"));
        let reply = daemon.explicit(&agent.token, run).outcome().reply();
        (reply.verdict(), reply.header("x-onecli-error").map(str::to_owned))
    };
    let verify = |daemon: &Daemon| {
        let _ = daemon.onecli(&["audit", "verify", "--dir", audit.to_str().unwrap()]).ok("audit verify");
    };

    let faults = [
        (Fault::Error, "Input/output error"),
        (Fault::ReadOnly, "Read-only file system"),
        (Fault::Full, "No space left"),
        (Fault::Sync, "Input/output error"),
        (Fault::Middle, "Input/output error"),
        (Fault::Slow(Duration::from_secs(12)), "has not answered"),
    ];
    for (fault, expected) in faults {
        assert_eq!(verdict(&daemon).0, 200, "before {fault:?}");
        disk.fail(fault);
        let before = upstream.request_count();
        let tries = if matches!(fault, Fault::Slow(_)) { 1 } else { 3 };
        for _ in 0..tries {
            assert_eq!(verdict(&daemon), (503, Some("audit_unavailable".to_owned())), "{fault:?}");
        }
        assert_eq!(upstream.request_count(), before, "{fault:?}: a request was forwarded without a record");
        if matches!(fault, Fault::Slow(_)) {
            assert!(daemon.home().log().contains(expected), "{fault:?}");
        } else {
            let status = daemon.onecli_json(&["status"]);
            assert!(
                status["audit"]["fault"].as_str().unwrap_or_default().contains(expected),
                "{fault:?}: {status:#}"
            );
        }
        disk.heal();
        let served = wait_for(Duration::from_secs(30), || (verdict(&daemon).0 == 200).then_some(()));
        assert!(served.is_some(), "{fault:?}: the daemon does not recover");
        verify(&daemon);
    }

    // The daemon is killed in the middle of a write, and the partial line remains.
    disk.fail(Fault::Middle);
    assert_eq!(verdict(&daemon).0, 503);
    daemon.kill();
    disk.heal();
    daemon.restart();
    assert_eq!(verdict(&daemon).0, 200);
    daemon.terminate();
    verify(&daemon);
    let mut seqs = Vec::new();
    let mut refused = 0;
    for line in std::fs::read_to_string(audit.join("00000001.jsonl")).unwrap().lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        seqs.extend(record["seq"].as_u64());
        refused += u32::from(record["code"] == "audit_refused");
    }
    assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "a sequence number is missing or was used twice");
    assert!(refused >= 5, "each failure is logged");
}
