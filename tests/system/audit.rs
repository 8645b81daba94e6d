//! The audit log from the operator's view, through failing disks and kills.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use onecli_tests::bins;
use onecli_tests::chaos;
use onecli_tests::client::curl;
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::disk::LoopDisk;
use onecli_tests::upstream::Upstream;
use onecli_tests::{need, wait_for};
use serde_json::Value;

use crate::scene::{API, VALUE};

struct Stage {
    daemon: Daemon,
    upstream: Upstream,
    agent: Agent,
}

impl Stage {
    fn new() -> Stage {
        let upstream = Upstream::start(&[API]);
        let daemon = Daemon::builder().upstream(&upstream).no_ebpf().start();
        Stage::on(daemon, upstream)
    }

    fn on(daemon: Daemon, upstream: Upstream) -> Stage {
        let agent = daemon.add_agent("agent", &["--factors", "token"]);
        let host = format!("{API}:{}", upstream.https_addr().port());
        daemon.add_secret("api", VALUE, &["--host", &host, "--bearer"]);
        let _ = daemon.grant(&agent, "api");
        Stage { daemon, upstream, agent }
    }

    fn verdict(&self) -> u16 {
        let run = curl(&self.upstream.https_url(API, "/echo"));
        self.daemon.explicit(&self.agent.token, run).outcome().reply().verdict()
    }

    fn audit_dir(&self) -> PathBuf {
        self.daemon.home().data_dir().join("audit")
    }

    fn verify(&self) -> onecli_tests::client::Outcome {
        self.daemon.onecli(&["audit", "verify", "--dir", self.audit_dir().to_str().unwrap()])
    }
}

/// Invariants 2 and 10, through twenty kills at random moments.
#[test]
fn kill_under_load_leaves_no_forwarded_request_unrecorded() {
    let report = chaos::kills(20, 0x0c11, 4, |_| ());
    assert!(report.seen > 0 && report.unrecorded == 0 && report.damaged == 0, "{report:?}");
}

/// Invariant 2 under power loss, which a kill cannot show. Each request that the upstream saw is recorded although all
/// unsynced data is lost, also in the middle of a line.
#[test]
fn power_failure_leaves_no_forwarded_request_unrecorded() {
    if !need::root("everything") {
        return;
    }
    let Some(report) = chaos::power_failures(8, 0x0c12) else { return };
    assert!(report.seen > 0 && report.unrecorded == 0 && report.damaged == 0, "{report:?}");
}

#[test]
fn log_is_listed_exported_and_verified() {
    let stage = Stage::new();
    assert_eq!(stage.verdict(), 200);
    let foreign = curl(&stage.upstream.https_url(API, "/echo")).arg("--request").arg("PATCH");
    let _ = stage.daemon.explicit("onecli_at_wrong", foreign).outcome();
    let outcome = stage.daemon.audit_until("the outcome", |record| record["event"] == "outcome");
    let id = outcome["request_id"].as_str().unwrap();
    let count = |args: &[&str]| {
        let all: Vec<_> = ["--json", "audit", "list"].iter().chain(args).copied().collect();
        stage.daemon.onecli(&all).ok("audit list").lines().count()
    };
    assert_eq!(count(&["--request", id]), 2);
    assert_eq!(count(&["--verdict", "inject", "--agent", "agent", "--host", API, "--since", "1h"]), 2);
    assert_eq!(count(&["--event", "outcome", "--request", id]), 1);
    assert_eq!(count(&["--until", "1h"]), 0);
    assert_eq!(count(&["--code", "token_unknown"]), 1);
    assert_eq!(count(&["--event", "approval"]), 0);
    assert_eq!(count(&["--agent", "nobody"]), 0);

    let export = |format: &str| {
        let out = stage.daemon.onecli(&["audit", "export", "--format", format]).ok("audit export");
        out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (jsonl, csv, ocsf) = (export("jsonl"), export("csv"), export("ocsf"));
    assert!(jsonl.len() >= 3 && csv.len() == jsonl.len() + 1 && ocsf.len() == jsonl.len());
    assert!(ocsf.iter().all(|line| line.contains("\"class_uid\":4002")));
    assert!(csv[1..].iter().all(|line| line.split(',').count() >= csv[0].split(',').count()));

    // While the daemon runs, and after it stops.
    let out = stage.verify().ok("audit verify");
    assert!(out.contains("nothing changed") && out.contains("onecli/audit/"), "{out}");
    let mut stage = stage;
    stage.daemon.terminate();
    let _ = stage.verify().ok("audit verify");

    let segment = stage.audit_dir().join("00000001.jsonl");
    let text = std::fs::read_to_string(&segment).unwrap();
    std::fs::write(&segment, text.replacen("\"verdict\":\"inject\"", "\"verdict\":\"tunnel\"", 1)).unwrap();
    let refused = stage.verify();
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    let err = refused.err();
    assert!(err.contains("NOT as it was written") && err.contains("00000001.jsonl, line"), "{err}");
    assert!(err.contains("first bad record: ") && !err.contains(VALUE), "{err}");
}

#[test]
fn follow_prints_matching_records_as_they_arrive() {
    let stage = Stage::new();
    assert_eq!(stage.verdict(), 200);
    let socket = stage.daemon.home().socket();
    let mut tail = Command::new(bins::path("onecli"))
        .arg("--socket")
        .arg(&socket)
        .args(["--json", "audit", "tail", "-f", "-n", "1", "--event", "decision", "--agent", "agent"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("onecli starts");
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let first = next();
    assert_eq!((&first["event"], &first["verdict"]), (&"decision".into(), &"inject".into()));
    let _ = stage.daemon.explicit("onecli_at_wrong", curl(&stage.upstream.https_url(API, "/echo"))).outcome();
    assert_eq!(stage.verdict(), 200);
    let second = next();
    assert_eq!((&second["event"], &second["agent"]), (&"decision".into(), &"agent".into()));
    assert!(second["seq"].as_u64() > first["seq"].as_u64(), "{first:#} {second:#}");
    tail.kill().unwrap();
    tail.wait().unwrap();
}

/// Invariant 9: a thousand refusals of an agent produce only a few records.
#[test]
fn flood_of_refusals_is_folded_into_few_records() {
    let upstream = Upstream::start(&[API]);
    let folding = Daemon::builder().upstream(&upstream).no_ebpf().config("[audit]\nfold_refusals = true\n");
    let stage = Stage::on(folding.start(), upstream);
    let url = format!("{}/{{a,b,c,d}}/[1-250]", stage.upstream.https_url("other.test", ""));
    let run = curl(&url).args(["--parallel", "--parallel-max", "8", "--output", "/dev/null"]);
    let _ = stage.daemon.explicit(&stage.agent.token, run).outcome();
    let counted = wait_for(Duration::from_secs(40), || {
        stage.daemon.audit().into_iter().find(|record| record["count"].as_u64().is_some_and(|n| n > 1))
    });
    let counted = counted.expect("a record with a count");
    assert_eq!(counted["verdict"], "deny", "{counted:#}");
    let records = stage.daemon.audit();
    assert!(records.len() < 100, "{} records", records.len());
    assert_eq!(stage.verdict(), 200, "the agent's other requests are served");
}

/// A disk that hangs, and one that becomes read-only: the daemon answers 503 and forwards no request unrecorded.
#[test]
fn requests_are_refused_while_the_disk_hangs_or_fails() {
    if !need::root("everything") {
        return;
    }
    let upstream = Upstream::start(&[API]);
    let home = Daemon::builder().upstream(&upstream).no_ebpf().prepare();
    let Some(disk) = LoopDisk::over(&home.data_dir(), 48) else { return };
    let daemon = Daemon::start(home);
    let disk = disk;
    let stage = Stage::on(daemon, upstream);
    assert_eq!(stage.verdict(), 200);

    disk.freeze();
    let before = stage.upstream.request_count();
    assert_eq!(stage.verdict(), 503);
    assert_eq!(stage.upstream.request_count(), before, "a request was forwarded without a record");
    disk.thaw();
    let served = wait_for(Duration::from_secs(20), || (stage.verdict() == 200).then_some(()));
    assert!(served.is_some(), "the daemon does not resume");
    let _ = stage.verify().ok("audit verify");

    disk.abort();
    let before = stage.upstream.request_count();
    for _ in 0..4 {
        assert_eq!(stage.verdict(), 503);
    }
    assert_eq!(stage.upstream.request_count(), before, "a request was forwarded without a record");
}
