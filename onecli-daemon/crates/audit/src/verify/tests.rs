//! Attacks on a log with access to its files, and the findings of verification.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use onecli_model::{Clock, RequestId};
use onecli_sys::{PrivateDir, SystemClock};
use uuid::Uuid;

use super::*;
use crate::checkpoint::Signer;
use crate::retention::Retention;
use crate::settings::Settings;
use crate::tests::as_if_killed;
use crate::{AuditLog, Durability, Entries, Event, LastKnown, Record};

mod damage;
mod retention;
mod unsigned;

/// A log of 60 records in several segments, closed.
struct Scene {
    dir: PrivateDir,
    _temp: tempfile::TempDir,
}

const SEGMENT: u64 = 4000;

fn record(number: u128) -> Record {
    let mut record = Record::new(RequestId(Uuid::from_u128(number)));
    record.forward();
    record
}

async fn write(dir: &PrivateDir, settings: Settings, count: u128) {
    let log = AuditLog::open_sized(dir, settings, SEGMENT).unwrap();
    for number in 0..count {
        log.decision(record(number)).await.unwrap();
        log.outcome(record(number).outcome());
    }
    log.close().await.unwrap();
}

impl Scene {
    async fn new() -> Scene {
        let (temp, dir) = PrivateDir::temporary();
        write(&dir, Settings::for_tests(), 30).await;
        assert!(segment::list(dir.path()).unwrap().len() >= 3);
        Scene { dir, _temp: temp }
    }

    fn path(&self, number: u64) -> PathBuf {
        segment::path(self.dir.path(), number)
    }

    fn read(&self, number: u64) -> Vec<String> {
        fs::read_to_string(self.path(number)).unwrap().lines().map(str::to_owned).collect()
    }

    fn write(&self, number: u64, lines: &[String]) {
        let text = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect::<String>();
        fs::write(self.path(number), text).unwrap();
    }

    fn checkpoint(&self) -> String {
        fs::read_to_string(segment::checkpoint_path(self.dir.path())).unwrap()
    }

    /// The alerts in the log's files.
    fn alerts(&self) -> Vec<String> {
        let records = Entries::after(self.dir.path(), 0).unwrap().map(|line| line.unwrap().entry.record);
        records.filter(|r| r.event == Event::Alert).filter_map(|r| r.code.map(String::from)).collect()
    }

    /// Appends a record that is linked correctly, as any process with write access can.
    fn append_linked(&self, record: &Record) {
        let number = *segment::list(self.dir.path()).unwrap().last().unwrap();
        let mut lines = self.read(number);
        let last = lines.last().unwrap();
        let seq = crate::encode::decode(last.as_bytes()).unwrap().seq + 1;
        let prev = crate::Link::of(&crate::tree::leaf_hash(last.as_bytes()));
        let mut line = Vec::new();
        crate::encode::encode(SystemClock.now(), seq, prev, record, &mut line);
        lines.push(String::from_utf8(line).unwrap().trim_end().to_owned());
        self.write(number, &lines);
    }

    fn verify(&self) -> Result<Verified, VerifyError> {
        self.verify_with(&[])
    }

    fn verify_with(&self, witnessed: &[String]) -> Result<Verified, VerifyError> {
        let dir = self.dir.path().to_owned();
        let wanted = Verification { dir, key: None, witnessed: witnessed.to_vec(), from: None, threads: 2 };
        verify(&wanted, &|_, _| {})
    }

    fn verify_from(&self, from: u64) -> Result<Verified, VerifyError> {
        let dir = self.dir.path().to_owned();
        let wanted = Verification { dir, key: None, witnessed: Vec::new(), from: Some(from), threads: 2 };
        verify(&wanted, &|_, _| {})
    }

    /// The first finding.
    fn bad(&self) -> Finding {
        findings(self.verify()).remove(0)
    }

    /// The numbers of the segments that have findings.
    fn bad_segments(&self) -> Vec<u64> {
        let number = |bad: Finding| {
            let number = bad.file.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            number.unwrap_or_else(|| panic!("{bad:?}"))
        };
        findings(self.verify()).into_iter().map(number).collect()
    }
}

/// A daemon wrote this log before records had `launched_by`. Every later version verifies and reads it.
#[test]
fn older_log_verifies() {
    let (temp, dir) = PrivateDir::temporary();
    let files: std::collections::BTreeMap<String, String> =
        serde_json::from_str(include_str!("vectors/before_launched_by.json")).unwrap();
    for (name, text) in files {
        fs::write(dir.join(&name), text).unwrap();
    }
    let scene = Scene { dir, _temp: temp };
    let verified = scene.verify().unwrap();
    assert_eq!((verified.first, verified.last), (1, 6), "{verified:?}");
    let records: Vec<_> = Entries::after(scene.dir.path(), 0).unwrap().map(Result::unwrap).collect();
    assert_eq!(records.len(), 6);
    assert!(records.iter().all(|line| line.entry.record.launched_by.is_none()));
    let mut lines = scene.read(1);
    lines[3] = lines[3].replace("token_unknown", "token_unknowm");
    scene.write(1, &lines);
    scene.bad();
}

fn findings(result: Result<Verified, VerifyError>) -> Vec<Finding> {
    match result {
        Err(VerifyError::Findings(found)) => found.findings,
        other => panic!("{other:?}"),
    }
}

/// Rewrites the links of all lines from `from` on, as an attacker would after a change.
fn relink(lines: &mut [String], from: usize) {
    for at in from.max(1)..lines.len() {
        let link = crate::Link::of(&crate::tree::leaf_hash(lines[at - 1].as_bytes()));
        let start = lines[at].find("\"prev\":\"").unwrap() + 8;
        lines[at].replace_range(start..start + 32, &link.to_string());
    }
}

#[tokio::test]
async fn an_untouched_log_is_verified() {
    let scene = Scene::new().await;
    let verified = scene.verify().unwrap();
    assert_eq!((verified.first, verified.last, verified.signed), (1, 60, 60));
    assert!(verified.key_from_log && verified.unfinished == 0);
    let verified = scene.verify_with(&[scene.checkpoint()]).unwrap();
    assert_eq!(verified.witnessed, 1);
    // Continuing the log does not change the result.
    write(&scene.dir, Settings::for_tests(), 10).await;
    assert_eq!(scene.verify().unwrap().last, 80);
}

#[tokio::test]
async fn an_edited_record_is_named() {
    for (segment, line) in [(1, 0), (1, 5), (2, 3)] {
        let scene = Scene::new().await;
        let mut lines = scene.read(segment);
        lines[line] = lines[line].replace("forward", "tunnel");
        scene.write(segment, &lines);
        let bad = scene.bad();
        assert_eq!((bad.file.clone(), bad.line), (scene.path(segment), Some(line as u64 + 1)), "{bad:?}");
        assert!(lines[line].contains(&format!("\"seq\":{},", bad.seq.unwrap())), "{bad:?}");
        assert!(bad.time.is_some());
    }
}

/// The last record of a segment has no link behind it; the next head reveals the change.
#[tokio::test]
async fn an_edited_last_record_is_found() {
    let scene = Scene::new().await;
    for segment in [1, *segment::list(scene.dir.path()).unwrap().last().unwrap()] {
        let before = scene.read(segment);
        let mut lines = before.clone();
        let last = lines.last_mut().unwrap();
        *last = last.replace("forward", "tunnel");
        scene.write(segment, &lines);
        let bad = scene.bad();
        assert_eq!(bad.file, scene.path(segment), "{bad:?}");
        assert!(bad.what.contains("differ from those signed"), "{bad:?}");
        scene.write(segment, &before);
    }
}

#[tokio::test]
async fn edit_with_rewritten_links_is_found() {
    let scene = Scene::new().await;
    let mut lines = scene.read(1);
    lines[2] = lines[2].replace("forward", "tunnel");
    relink(&mut lines, 3);
    scene.write(1, &lines);
    let bad = scene.bad();
    assert_eq!((bad.file.clone(), bad.seq, bad.line), (scene.path(1), Some(1), Some(1)), "{bad:?}");
    assert!(bad.what.contains("links behind it were rewritten"), "{bad:?}");
}

#[tokio::test]
async fn removed_inserted_and_reordered_records_are_found() {
    // The end of a segment depends on which records were written together.
    const ANY: u64 = 0;
    let check = async |change: fn(&mut Vec<String>), seq: u64, what: &str| {
        let scene = Scene::new().await;
        let mut lines = scene.read(1);
        change(&mut lines);
        scene.write(1, &lines);
        let bad = scene.bad();
        assert!((seq == ANY || bad.seq == Some(seq)) && bad.what.contains(what), "{what}: {bad:?}");
    };
    check(|lines| drop(lines.remove(2)), 4, "the records 3 to 3 are missing").await;
    check(|lines| drop(lines.drain(0..2)), 3, "the records 1 to 2 are missing").await;
    check(|lines| lines.swap(2, 3), 4, "the records 3 to 3 are missing").await;
    check(|lines| lines.insert(2, lines[1].clone()), 2, "record 2 stands where record 3 belongs").await;
    check(|lines| lines.insert(2, "{}".to_owned()), 3, "not a record").await;
    check(|lines| lines.insert(2, String::new()), 3, "not a record").await;
    check(|lines| drop(lines.pop()), ANY, "missing between this segment").await;
}

/// A part of another log of the same host, with the same numbers.
#[tokio::test]
async fn spliced_records_are_found() {
    let (scene, (temp, other)) = (Scene::new().await, PrivateDir::temporary());
    write(&other, Settings::for_tests(), 29).await;
    let other = Scene { dir: other, _temp: temp };
    // Another clock reading is enough to make the lines differ.
    let foreign = other.read(2);
    scene.write(2, &foreign);
    let bad = scene.bad();
    assert_eq!(bad.file, scene.path(2), "{bad:?}");
    for kind in [segment::head_path, segment::path] {
        fs::copy(kind(other.dir.path(), 2), kind(scene.dir.path(), 2)).unwrap();
    }
    let bad = scene.bad();
    assert!(bad.file == scene.path(1) || bad.file == scene.path(2), "{bad:?}");
}

#[tokio::test]
async fn removed_segments_are_found() {
    let scene = Scene::new().await;
    let last = *segment::list(scene.dir.path()).unwrap().last().unwrap();
    let check = |remove: u64, what: &str| {
        let (from, aside) = (scene.path(remove), scene.dir.path().join("aside"));
        fs::rename(&from, &aside).unwrap();
        let bad = scene.bad();
        assert!(bad.what.contains(what), "{remove}: {bad:?}");
        fs::rename(aside, from).unwrap();
    };
    check(1, "no record reports that retention removed them");
    check(2, "missing between this segment and the next");
    check(last, "the end was cut off");
    scene.verify().unwrap();
}

#[tokio::test]
async fn a_cut_end_is_found_by_the_checkpoint_or_by_a_witness() {
    let (temp, dir) = PrivateDir::temporary();
    write(&dir, Settings::for_tests(), 4).await;
    let scene = Scene { dir, _temp: temp };
    let (old_lines, old) = (scene.read(1), scene.checkpoint());
    write(&scene.dir, Settings::for_tests(), 1).await;
    let new = scene.checkpoint();
    scene.write(1, &old_lines);
    let bad = scene.bad();
    assert!(bad.seq == Some(9) && bad.what.contains("the end was cut off"), "{bad:?}");
    // The log and its checkpoint are rolled back together: only a witness can reveal that.
    fs::write(segment::checkpoint_path(scene.dir.path()), &old).unwrap();
    scene.verify().unwrap();
    let bad = findings(scene.verify_with(&[old, new])).remove(0);
    assert!(bad.what.contains("the end was cut off"), "{bad:?}");
    fs::remove_file(segment::checkpoint_path(scene.dir.path())).unwrap();
    assert!(scene.bad().what.contains("without it"));
}

#[tokio::test]
async fn signature_of_another_key_is_refused() {
    let scene = Scene::new().await;
    let forger = Signer::from_seed(&[9; 32]).unwrap();
    let log = scene.verify().unwrap().log;
    let wanted = |key| Verification {
        dir: scene.dir.path().to_owned(),
        key: Some(key),
        witnessed: Vec::new(),
        from: None,
        threads: 1,
    };
    let good = Settings::for_tests().signer.verifier(log);
    verify(&wanted(good), &|_, _| {}).unwrap();
    let refused = verify(&wanted(forger.verifier(log)), &|_, _| {});
    assert!(findings(refused)[0].what.contains("signature"));
    let head = segment::head_path(scene.dir.path(), 2);
    fs::write(&head, fs::read_to_string(&head).unwrap().replace("time 20", "time 21")).unwrap();
    assert_eq!(scene.bad().file, head);
}

/// A daemon that finds its log changed leaves the files unchanged, records the change, and continues.
#[tokio::test]
async fn changed_log_is_reported_at_next_start() {
    let codes = |dir: &Path| -> Vec<String> {
        let records = Entries::after(dir, 0).unwrap().map(|line| line.unwrap().entry.record);
        records.filter(|r| r.event == Event::Alert).filter_map(|r| r.code.map(String::from)).collect()
    };
    let (temp, dir) = PrivateDir::temporary();
    write(&dir, Settings::for_tests(), 4).await;
    let scene = Scene { dir, _temp: temp };
    let lines = scene.read(1);

    // Records were cut off.
    scene.write(1, &lines[..5]);
    write(&scene.dir, Settings::for_tests(), 1).await;
    assert_eq!(codes(scene.dir.path()), ["audit_damaged"]);
    assert_eq!(scene.read(1).len(), 5, "the file is unchanged");
    assert_eq!((scene.bad().file, scene.bad().seq), (scene.path(1), Some(6)));

    // The log was rolled back as a whole; the store has more records.
    let (temp, dir) = PrivateDir::temporary();
    write(&dir, Settings::for_tests(), 4).await;
    let signer = Settings::for_tests().signer;
    let log = crate::log_id_in(dir.path(), &signer).unwrap().unwrap();
    let known = || Some(LastKnown { log, last: Some((11, "what the store has".to_owned())) });
    let fresh = onecli_model::LogId(Uuid::from_u128(0xff));
    write(&dir, Settings { fresh, known: known(), ..Settings::for_tests() }, 1).await;
    assert_eq!(codes(dir.path()), ["audit_truncated"]);
    assert_eq!(crate::log_id_in(dir.path(), &signer).unwrap(), Some(fresh), "numbers are not reused");
    drop(temp);

    // The log was removed with its checkpoint, and another log of this host put there.
    let (_temp, dir) = PrivateDir::temporary();
    write(&dir, Settings { fresh, known: known(), ..Settings::for_tests() }, 1).await;
    assert_eq!(codes(dir.path()), ["audit_truncated"]);
    let (_temp, dir) = PrivateDir::temporary();
    write(&dir, Settings { fresh, ..Settings::for_tests() }, 1).await;
    let third = onecli_model::LogId(Uuid::from_u128(0x100));
    write(&dir, Settings { fresh: third, known: known(), ..Settings::for_tests() }, 1).await;
    assert_eq!(codes(dir.path()), ["audit_truncated"]);
    assert_eq!(crate::log_id_in(dir.path(), &signer).unwrap(), Some(third));
}

/// An attacker with write access cannot choose which log the store is queried for, nor use up the names of
/// segments.
#[tokio::test]
async fn forged_name_is_neither_log_nor_segment() {
    let (temp, dir) = PrivateDir::temporary();
    write(&dir, Settings::for_tests(), 4).await;
    let (scene, signer) = (Scene { dir, _temp: temp }, Settings::for_tests().signer);
    let log = crate::log_id_in(scene.dir.path(), &signer).unwrap();
    let head = segment::head_path(scene.dir.path(), 1);
    let note = fs::read_to_string(&head).unwrap();
    fs::write(&head, note.replace(&log.unwrap().to_string(), &Uuid::from_u128(0xbad).to_string())).unwrap();
    assert_eq!(crate::log_id_in(scene.dir.path(), &signer).unwrap(), log);
    fs::write(&head, note).unwrap();
    for name in
        ["18446744073709551615.jsonl", "99999999.jsonl", "1.jsonl", "+0000002.jsonl", "0000000x.jsonl"]
    {
        fs::write(scene.dir.path().join(name), "x").unwrap();
    }
    assert_eq!(segment::list(scene.dir.path()).unwrap(), [1]);
    write(&scene.dir, Settings::for_tests(), 1).await;
    assert_eq!(scene.verify().unwrap().last, 10);
}

/// Text that an attacker wrote into an old segment is not repeated in a new, signed record.
#[tokio::test]
async fn a_forged_decision_gets_no_outcome() {
    let scene = Scene::new().await;
    let mut lines = scene.read(1);
    let mut forged: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    forged["request_id"] = Uuid::from_u128(0xbad).to_string().into();
    lines.push(forged.to_string());
    scene.write(1, &lines);
    let last = *segment::list(scene.dir.path()).unwrap().last().unwrap();
    as_if_killed(scene.dir.path());
    let mut torn = fs::read(scene.path(last)).unwrap();
    torn.extend_from_slice(format!("{forged}\n").as_bytes());
    fs::write(scene.path(last), torn).unwrap();
    write(&scene.dir, Settings::for_tests(), 1).await;
    let segments = segment::list(scene.dir.path()).unwrap().into_iter().filter(|number| *number >= last);
    let segments: String = segments.map(|number| fs::read_to_string(scene.path(number)).unwrap()).collect();
    assert!(segments.contains("audit_torn") && !segments.contains("interrupted"), "{segments}");
}

/// A power failure that loses unsynced bytes leaves half a line before the room.
#[tokio::test]
async fn half_a_line_is_not_reported_as_damage() {
    let (temp, dir) = PrivateDir::temporary();
    write(&dir, Settings::for_tests(), 4).await;
    let scene = Scene { dir, _temp: temp };
    as_if_killed(scene.dir.path());
    let whole = fs::read(scene.path(1)).unwrap();
    for torn in [&b"{\"time\":\"2026-01"[..], b"{\"time\":\"2026-01\n\n\n\n\n", b"{\"time\0\0\0\0\0"] {
        fs::write(scene.path(1), [&whole, torn].concat()).unwrap();
        assert!(scene.verify().unwrap().unfinished > 0);
    }
    fs::write(scene.path(1), [&whole[..], &b"\n".repeat(5000)[..]].concat()).unwrap();
    assert_eq!(scene.verify().unwrap().unfinished, 0);
    write(&scene.dir, Settings::for_tests(), 1).await;
    scene.verify().unwrap();
}

/// Relaxed durability: records are written at once, and synced and signed within about a second.
#[tokio::test]
async fn a_relaxed_log_catches_up() {
    let (temp, dir) = PrivateDir::temporary();
    let settings = Settings { durability: Durability::Relaxed, ..Settings::for_tests() };
    let log = AuditLog::open(&dir, settings).unwrap();
    let mut synced = log.subscribe();
    for number in 0..10 {
        log.decision(record(number)).await.unwrap();
    }
    assert_eq!(Entries::after(dir.path(), 0).unwrap().count(), 10, "written");
    let reached = synced.wait_for(|seq| *seq >= 10);
    tokio::time::timeout(std::time::Duration::from_secs(5), reached).await.unwrap().unwrap();
    log.decision(record(11)).await.unwrap();
    log.flush().await.unwrap();
    assert_eq!(*log.subscribe().borrow(), 11, "a flush waits for the disk");
    log.close().await.unwrap();
    let note = log.checkpoints().borrow().clone().unwrap();
    assert!(note.contains("\n11\n"), "{note}");
    let scene = Scene { dir, _temp: temp };
    assert_eq!(scene.verify().unwrap().signed, 11);
}
