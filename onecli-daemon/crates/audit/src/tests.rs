//! Tests of the log with restarts, torn writes and failing disks.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use onecli_model::{CanonicalPath, Clock, Code, Factors, Host, RequestId};
use onecli_sys::{PrivateDir, SystemClock};
use sha2::Digest;
use uuid::Uuid;

use super::segment::{self, Segments};
use super::*;

/// Puts the log in the state that a daemon leaves if it is killed right after a checkpoint.
pub(super) fn as_if_killed(dir: &Path) {
    let signer = Settings::for_tests().signer;
    let path = segment::checkpoint_path(dir);
    let last = signer.read(&path).unwrap();
    let killed = super::checkpoint::Checkpoint { ended: false, ..last };
    std::fs::write(path, signer.sign(&killed)).unwrap();
}

#[derive(Debug)]
struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        "2026-01-02T03:04:05.678901234Z".parse().unwrap()
    }

    fn instant(&self) -> std::time::Instant {
        SystemClock.instant()
    }
}

fn settings() -> Settings {
    Settings { clock: Arc::new(Fixed), ..Settings::for_tests() }
}

fn open(dir: &PrivateDir) -> AuditLog {
    AuditLog::open(dir, settings()).unwrap()
}

fn open_sized(dir: &PrivateDir, bytes: u64) -> AuditLog {
    AuditLog::open_sized(dir, settings(), bytes).unwrap()
}

fn record(number: u128) -> Record {
    let mut record = Record::new(RequestId(Uuid::from_u128(number)));
    record.agent = Some("one".parse().unwrap());
    record.target(&Host::Name("api.example.com".to_owned()), 443);
    record
}

fn read(dir: &PrivateDir) -> Vec<Result<Line, AuditError>> {
    Entries::after(dir.path(), 0).unwrap().collect()
}

/// The numbers of all records; panics at a line that is not a record.
fn numbers(dir: &PrivateDir) -> Vec<u64> {
    read(dir).into_iter().map(|line| line.unwrap().entry.seq).collect()
}

fn files(dir: &PrivateDir) -> usize {
    segment::list(dir.path()).unwrap().len()
}

fn append(path: &Path, bytes: &[u8]) {
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[tokio::test]
async fn a_line_has_the_documented_fields() {
    let (_temp, dir) = PrivateDir::temporary();
    let log = open(&dir);
    let mut full = record(1);
    full.factors = Some(Factors::BOTH);
    full.mode = Some(ConnectionMode::Transparent);
    full.request("POST", &CanonicalPath::parse("/v1/chat").unwrap());
    full.inject([(&"openai".parse().unwrap(), 3)]);
    full.address = Some("192.0.2.7:443".into());
    full.rule = Some("grant openai".into());
    full.status = Some(200);
    full.bytes_in = Some(10);
    full.bytes_out = Some(20);
    full.duration_us = Some(1234);
    full.tls = Some("TLSv1.3".into());
    full.http_mut().alpn = Some("h2".into());
    full.scrub_hits = Some(0);
    full.cgroup = Some("onecli-agents-one.slice".into());
    full.cgroup_id = Some(77);
    full.netns = Some(u64::MAX);
    full.uid = Some(1000);
    full.pid = Some(4242);
    full.comm = Some(Text::from_bytes(b"curl"));
    log.decision(full.outcome()).await.unwrap();
    let mut refused = Record::new(RequestId(Uuid::from_u128(2)));
    refused.deny(Code::TokenForeign);
    log.decision(refused).await.unwrap();
    log.close().await.unwrap();

    let text = std::fs::read_to_string(dir.join("00000001.jsonl")).unwrap();
    let mut first = vec![0];
    first.extend_from_slice(text.lines().next().unwrap().as_bytes());
    let link = data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(&first)[..16]);
    assert_eq!(
        text,
        concat!(
            r#"{"time":"2026-01-02T03:04:05.678901Z","seq":1,"prev":"00000000000000000000000000000000","#,
            r#""request_id":"00000000-0000-0000-0000-000000000001","event":"outcome","agent":"one","#,
            r#""factors":"token+cgroup","mode":"transparent","method":"POST","host":"api.example.com","port":443,"#,
            r#""path":"/v1/chat","address":"192.0.2.7:443","rule":"grant openai","secret":"openai","#,
            r#""secret_version":3,"verdict":"inject","status":200,"bytes_in":10,"bytes_out":20,"#,
            r#""duration_us":1234,"tls":"TLSv1.3","alpn":"h2","scrub_hits":0,"cgroup":"onecli-agents-one.slice","#,
            r#""cgroup_id":77,"netns":18446744073709551615,"uid":1000,"pid":4242,"comm":"curl"}"#,
            "\n",
            r#"{"time":"2026-01-02T03:04:05.678901Z","seq":2,"prev":"LINK","#,
            r#""request_id":"00000000-0000-0000-0000-000000000002","event":"alert","verdict":"deny","#,
            r#""code":"token_foreign","status":403}"#,
            "\n",
        )
        .replace("LINK", &link)
    );
    let lines: Vec<_> = read(&dir).into_iter().map(Result::unwrap).collect();
    assert_eq!(lines[0].entry.record, full.outcome());
    assert_eq!(
        lines.iter().map(|line| line.json.as_str()).collect::<Vec<_>>(),
        text.lines().collect::<Vec<_>>()
    );
}

/// A second frozen vector: the user who launched the command.
#[tokio::test]
async fn line_contains_the_launching_user() {
    let (_temp, dir) = PrivateDir::temporary();
    let log = open(&dir);
    let mut launched = record(1);
    launched.uid = Some(990);
    launched.comm = Some(Text::from_bytes(b"curl"));
    launched.launched_by = Some(1000);
    launched.approval_uid = Some(0);
    log.decision(launched.clone()).await.unwrap();
    log.close().await.unwrap();
    assert_eq!(
        std::fs::read_to_string(dir.join("00000001.jsonl")).unwrap(),
        concat!(
            r#"{"time":"2026-01-02T03:04:05.678901Z","seq":1,"prev":"00000000000000000000000000000000","#,
            r#""request_id":"00000000-0000-0000-0000-000000000001","event":"decision","agent":"one","#,
            r#""host":"api.example.com","port":443,"uid":990,"comm":"curl","launched_by":1000,"approval_uid":0}"#,
            "\n",
        )
    );
    assert_eq!(read(&dir)[0].as_ref().unwrap().entry.record, launched);
}

/// With any field that an agent chooses, each record stays on one line, and a terminal shows the actual content.
#[tokio::test]
async fn a_line_cannot_be_forged() {
    let (_temp, dir) = PrivateDir::temporary();
    let log = open(&dir);
    let nasty = "x\"}\n{\"seq\":99}\r\u{1b}[2K\u{9b}\u{202e}\u{2028}\u{0}\\";
    let mut forged = record(1);
    (forged.http_mut().method, forged.host) = (Some(nasty.into()), Some(nasty.into()));
    (forged.http_mut().path, forged.comm) = (Some(nasty.into()), Some(Text::from_bytes(nasty.as_bytes())));
    log.decision(forged.clone()).await.unwrap();
    let text = std::fs::read_to_string(dir.join("00000001.jsonl")).unwrap();
    let text = text.trim_end();
    assert_eq!(text.lines().count(), 1);
    assert!(text.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{text:?}");
    assert_eq!(read(&dir)[0].as_ref().unwrap().entry.record, forged);
}

/// Invariant 2: a record that is proved durable can be read back from the file.
#[tokio::test]
async fn a_durable_decision_is_in_the_file() {
    let (_temp, dir) = PrivateDir::temporary();
    let log = open(&dir);
    let sequence = log.subscribe();
    for number in 1..=3 {
        let durable = log.decision(record(number)).await.unwrap();
        assert_eq!(u128::from(durable.seq()), number);
        assert_eq!(*sequence.borrow(), durable.seq());
        assert_eq!(numbers(&dir).last().copied(), Some(durable.seq()));
    }
    let found = std::fs::metadata(dir.join("00000001.jsonl")).unwrap();
    assert_eq!(found.mode() & 0o7777, 0o600);
}

#[tokio::test]
async fn records_of_many_callers_share_a_write() {
    let (_temp, dir) = PrivateDir::temporary();
    let log = open(&dir);
    let tasks: Vec<_> = (0..2000)
        .map(|number| {
            let log = log.clone();
            tokio::spawn(async move {
                let durable = log.decision(record(number)).await.unwrap();
                log.outcome(record(number).outcome());
                durable.seq()
            })
        })
        .collect();
    let mut seen = std::collections::HashSet::new();
    for task in tasks {
        assert!(seen.insert(task.await.unwrap()), "each record has its own number");
    }
    log.flush().await.unwrap();
    assert_eq!(numbers(&dir), (1..=4000).collect::<Vec<_>>());
}

#[tokio::test]
async fn numbering_continues_after_restart() {
    let (_temp, dir) = PrivateDir::temporary();
    let log = open(&dir);
    log.decision(record(1)).await.unwrap();
    log.outcome(record(1).outcome());
    log.close().await.unwrap();
    assert!(matches!(log.decision(record(2)).await, Err(AuditError::Closed)));

    let log = open(&dir);
    assert_eq!(*log.subscribe().borrow(), 2);
    assert_eq!(log.decision(record(2)).await.unwrap().seq(), 3);
    log.close().await.unwrap();

    assert_eq!(numbers(&dir), [1, 2, 3]);
}

#[tokio::test]
async fn dropping_the_last_handle_writes_what_was_queued() {
    let (_temp, dir) = PrivateDir::temporary();
    let log = open(&dir);
    let mut sequence = log.subscribe();
    for number in 0..1000 {
        log.outcome(record(number).outcome());
    }
    drop(log);
    while sequence.changed().await.is_ok() {}
    assert_eq!(numbers(&dir).len(), 1000);
}

#[tokio::test]
async fn one_log_has_one_writer() {
    let (_temp, dir) = PrivateDir::temporary();
    let _log = open(&dir);
    let second = AuditLog::open(&dir, settings());
    assert!(matches!(second, Err(AuditError::Locked { .. })));
}

/// The bytes that a power failure can leave behind the last synced line.
#[tokio::test]
async fn torn_end_is_cut_off_and_reported() {
    let check = async |torn: &[u8]| {
        let (_temp, dir) = PrivateDir::temporary();
        let log = open(&dir);
        log.decision(record(1)).await.unwrap();
        log.decision(record(2)).await.unwrap();
        log.close().await.unwrap();
        as_if_killed(dir.path());
        append(&dir.join("00000001.jsonl"), torn);

        let log = open(&dir);
        assert_eq!(log.decision(record(3)).await.unwrap().seq(), 4, "{} bytes", torn.len());
        let lines: Vec<_> = read(&dir).into_iter().map(Result::unwrap).collect();
        assert_eq!(lines.iter().map(|line| line.entry.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
        let alert = &lines[2].entry.record;
        assert_eq!(alert.event, Event::Alert);
        assert_eq!(alert.code.as_ref().map(Text::as_str), Some("audit_torn"));
        assert_eq!(alert.count, Some(torn.len() as u64));
    };
    check(b"{\"time\":\"2026").await;
    check(b"{\"seq\":3}\n{\"se").await;
    check(&vec![b'x'; 300_000]).await;
}

#[tokio::test]
async fn empty_segment_is_reused() {
    let (_temp, dir) = PrivateDir::temporary();
    let log = open(&dir);
    log.decision(record(1)).await.unwrap();
    log.close().await.unwrap();
    std::fs::write(dir.join("00000002.jsonl"), "").unwrap();
    let log = open(&dir);
    assert_eq!(log.decision(record(2)).await.unwrap().seq(), 2);
    assert_eq!(numbers(&dir), [1, 2]);
}

#[tokio::test]
async fn full_segments_are_followed_by_new_ones() {
    let (_temp, dir) = PrivateDir::temporary();
    let log = open_sized(&dir, 1000);
    for number in 1..=20 {
        log.decision(record(number)).await.unwrap();
    }
    assert!(files(&dir) > 3);
    for number in segment::list(dir.path()).unwrap() {
        assert!(std::fs::metadata(segment::path(dir.path(), number)).unwrap().len() <= 1000);
    }
    assert_eq!(numbers(&dir), (1..=20).collect::<Vec<_>>());
    for after in 0..=21 {
        let found: Vec<_> =
            Entries::after(dir.path(), after).unwrap().map(|line| line.unwrap().entry.seq).collect();
        assert_eq!(found, (after + 1..=20).collect::<Vec<_>>(), "after {after}");
    }
    log.close().await.unwrap();
    let log = open_sized(&dir, 1000);
    assert_eq!(log.decision(record(21)).await.unwrap().seq(), 21);
}

/// Invariant 3: a log that cannot be written refuses decisions, retains outcomes, and recovers without help.
#[tokio::test]
async fn a_failing_disk_refuses_and_recovers() {
    let (temp, dir) = PrivateDir::temporary();
    // Every record needs a new segment, so the log needs its directory each time.
    let log = open_sized(&dir, 1);
    log.decision(record(1)).await.unwrap();

    let aside = temp.path().join("aside");
    std::fs::rename(dir.path(), &aside).unwrap();
    for number in 2..=4 {
        let error = log.decision(record(number)).await.unwrap_err();
        assert!(matches!(error, AuditError::Io { action: "write", .. }), "{error}");
    }
    assert!(!log.healthy());
    log.outcome(record(1).outcome());
    assert!(log.flush().await.is_err());

    std::fs::rename(&aside, dir.path()).unwrap();
    let mut sequence = log.subscribe();
    tokio::time::timeout(Duration::from_secs(5), sequence.wait_for(|seq| *seq >= 3)).await.unwrap().unwrap();
    assert!(log.healthy(), "it recovers without another call");
    log.decision(record(5)).await.unwrap();
    let records: Vec<_> = read(&dir).into_iter().map(|line| line.unwrap().entry).collect();
    let seen: Vec<_> = records
        .iter()
        .map(|entry| {
            (entry.seq, entry.record.event, entry.record.code.as_ref().map(Text::as_str), entry.record.count)
        })
        .collect();
    assert_eq!(
        seen,
        [
            (1, Event::Decision, None, None),
            (2, Event::Outcome, None, None),
            (3, Event::Alert, Some("audit_refused"), Some(3)),
            (4, Event::Decision, None, None),
        ]
    );
}

fn segments(dir: &PrivateDir) -> Segments {
    let lock = segment::lock(dir.path()).unwrap();
    Segments::open(dir, lock, segment::WritePosition::New { number: 1 }, 1 << 20, &String::new).unwrap()
}

#[test]
fn failed_write_leaves_no_bytes() {
    let (_temp, dir) = PrivateDir::temporary();
    let mut segments = segments(&dir);
    let path = dir.join("00000001.jsonl");
    segments.append(b"one\n", true, &String::new).unwrap();
    segments.break_file();
    assert!(matches!(
        segments.append(b"two\n", true, &String::new),
        Err(AuditError::Io { action: "write", .. })
    ));
    append(&path, b"what a failed write left");
    segments.append(b"three\n", true, &String::new).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap().trim_end(), "one\nthree\n".trim_end());
}

/// Records removed by another process are not silently replaced by later ones at the same offset.
#[test]
fn a_removed_or_shortened_segment_is_followed_by_a_new_one() {
    let (_temp, dir) = PrivateDir::temporary();
    let mut segments = segments(&dir);
    segments.append(b"one\n", true, &String::new).unwrap();
    std::fs::remove_file(dir.join("00000001.jsonl")).unwrap();
    segments.append(b"two\n", true, &String::new).unwrap();
    assert_eq!(std::fs::read_to_string(dir.join("00000002.jsonl")).unwrap().trim_end(), "two\n".trim_end());

    std::fs::write(dir.join("00000002.jsonl"), "t").unwrap();
    segments.append(b"three\n", true, &String::new).unwrap();
    assert_eq!(std::fs::read_to_string(dir.join("00000003.jsonl")).unwrap().trim_end(), "three\n".trim_end());
}

#[tokio::test]
async fn damaged_line_is_reported_and_skipped() {
    let (_temp, dir) = PrivateDir::temporary();
    let log = open_sized(&dir, 1);
    for number in 1..=3 {
        log.decision(record(number)).await.unwrap();
    }
    append(&dir.join("00000001.jsonl"), b"garbage\ntorn");
    let lines = read(&dir);
    let seen: Vec<_> = lines.iter().map(|line| line.as_ref().ok().map(|line| line.entry.seq)).collect();
    assert_eq!(seen, [Some(1), None, None, Some(2), Some(3)]);
    let message = lines[1].as_ref().unwrap_err().to_string();
    assert!(
        message.contains("00000001.jsonl, at byte ") && message.contains("not an audit record"),
        "{message}"
    );
}

#[tokio::test]
async fn reading_follows_a_growing_log() {
    let (_temp, dir) = PrivateDir::temporary();
    let log = open_sized(&dir, 1);
    let mut entries = Entries::after(dir.path(), 0).unwrap();
    assert!(entries.next().is_none());
    for number in 1..=3 {
        let durable = log.decision(record(number)).await.unwrap();
        assert_eq!(entries.next().unwrap().unwrap().entry.seq, durable.seq());
        assert!(entries.next().is_none());
    }
    let position = entries.position();
    log.decision(record(4)).await.unwrap();
    assert_eq!(Entries::resume(dir.path(), position, 0).next().unwrap().unwrap().entry.seq, 4);
}

#[tokio::test]
async fn outcomes_beyond_the_queue_are_counted() {
    let (temp, dir) = PrivateDir::temporary();
    let log = open_sized(&dir, 1);
    log.decision(record(1)).await.unwrap();
    let aside = temp.path().join("aside");
    std::fs::rename(dir.path(), &aside).unwrap();
    for number in 0..20_000 {
        log.outcome(record(number).outcome());
    }
    let error = log.decision(record(2)).await.unwrap_err();
    assert!(matches!(error, AuditError::Overloaded { .. }), "{error}");
    std::fs::rename(&aside, dir.path()).unwrap();
    let mut sequence = log.subscribe();
    tokio::time::timeout(Duration::from_mins(1), sequence.wait_for(|seq| *seq > 16_384))
        .await
        .unwrap()
        .unwrap();
    log.flush().await.unwrap();
    let mut kept = 0;
    let mut lost = 0;
    for line in read(&dir) {
        let record = line.unwrap().entry.record;
        kept += u64::from(record.event == Event::Outcome);
        lost += record.count.unwrap_or(0);
    }
    assert_eq!(kept + lost, 20_000);
    assert!(lost > 0);
}

/// A killed daemon leaves decisions without an outcome. The next daemon records that, once.
#[tokio::test]
async fn decisions_of_a_killed_daemon_get_an_outcome() {
    let (_temp, dir) = PrivateDir::temporary();
    let log = open(&dir);
    let decided = |number, decide: fn(&mut Record)| {
        let mut record = record(number);
        decide(&mut record);
        record
    };
    let finished = decided(1, |record| {
        record.forward();
    });
    let cut_off = decided(2, |record| {
        record.tunnel();
    });
    let refused = decided(3, |record| {
        record.deny(Code::EgressDenied);
    });
    for record in [&finished, &cut_off, &refused] {
        log.decision(record.clone()).await.unwrap();
    }
    log.outcome(finished.outcome());
    log.close().await.unwrap();

    for _ in 0..2 {
        let log = open(&dir);
        log.close().await.unwrap();
        let records: Vec<Record> = read(&dir).into_iter().map(|line| line.unwrap().entry.record).collect();
        assert_eq!(records.len(), 5, "{records:#?}");
        let last = &records[4];
        assert_eq!((last.request_id, last.event), (cut_off.request_id, Event::Outcome));
        assert_eq!(last.code.as_ref().map(Text::as_str), Some("interrupted"));
    }
}
