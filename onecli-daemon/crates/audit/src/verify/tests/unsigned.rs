//! Records behind the last checkpoint. After a clean stop all of them are rejected. After a kill they are accepted
//! unless the store or the links contradict them, and the log records which ones they are.

use onecli_model::LogId;

use super::*;
use crate::record::Verdict;

const FRESH: LogId = LogId(Uuid::from_u128(0xff));

/// A log of eight records whose daemon was killed when only the first four were signed.
async fn killed() -> Scene {
    let (temp, dir) = PrivateDir::temporary();
    write(&dir, Settings::for_tests(), 2).await;
    as_if_killed(dir.path());
    let scene = Scene { dir, _temp: temp };
    let signed = scene.checkpoint();
    write(&scene.dir, Settings::for_tests(), 2).await;
    fs::write(segment::checkpoint_path(scene.dir.path()), signed).unwrap();
    scene
}

fn forged() -> Record {
    record(0xbad)
}

async fn restart(scene: &Scene, known: Option<LastKnown>) -> LogId {
    let settings = Settings { known, fresh: FRESH, ..Settings::for_tests() };
    let log = AuditLog::open_sized(&scene.dir, settings, SEGMENT).unwrap();
    let id = log.id();
    log.close().await.unwrap();
    id
}

fn store_has(scene: &Scene, seq: u64, line: &str) -> LastKnown {
    let log = crate::log_id_in(scene.dir.path(), &Settings::for_tests().signer).unwrap().unwrap();
    LastKnown { log, last: Some((seq, line.to_owned())) }
}

/// The range of records that the log reports as unsigned.
fn unsigned(scene: &Scene) -> Option<std::ops::RangeInclusive<u64>> {
    Entries::after(scene.dir.path(), 0).unwrap().find_map(|line| line.unwrap().entry.unsigned())
}

/// All links fit, and the daemon was stopped: no daemon has written since.
#[tokio::test]
async fn records_behind_a_clean_end_are_rejected() {
    let scene = Scene::new().await;
    scene.append_linked(&forged());
    let bad = scene.bad();
    assert!(bad.seq == Some(61) && bad.what.contains("added by another process"), "{bad:?}");
    let last = *segment::list(scene.dir.path()).unwrap().last().unwrap();
    let line = scene.read(last).pop().unwrap();

    restart(&scene, None).await;
    assert_eq!(scene.alerts(), ["audit_appended"]);
    let aside = scene.dir.path().join(format!("{last:08}.aside"));
    assert_eq!(fs::read_to_string(aside).unwrap(), line, "nothing is lost");
    assert_eq!(scene.verify().unwrap().last, 61, "and no outcome was written for it");
    // Half a line is not from a power failure either, because everything was synced.
    fs::write(scene.path(last), [&fs::read(scene.path(last)).unwrap()[..], b"{\"time"].concat()).unwrap();
    assert!(scene.bad().what.contains("6 bytes behind it"));
    restart(&scene, None).await;
    assert_eq!(scene.alerts(), ["audit_appended", "audit_appended"]);
    assert!(scene.dir.path().join(format!("{last:08}.aside-2")).exists());
}

/// A kill loses no record and needs no repair; the unsigned records are reported.
#[tokio::test]
async fn unsigned_records_are_reported_after_a_kill() {
    let scene = killed().await;
    assert_eq!(scene.verify().unwrap().signed, 4);
    restart(&scene, None).await;
    assert_eq!((scene.alerts(), unsigned(&scene)), (vec!["audit_unsigned".to_owned()], Some(5..=8)));
    let verified = scene.verify().unwrap();
    assert_eq!((verified.last, verified.signed), (9, 9));
    restart(&scene, None).await;
    assert_eq!(scene.verify().unwrap().last, 9, "once");

    // The store confirms the records that it has.
    let scene = killed().await;
    let known = store_has(&scene, 7, &scene.read(1)[6]);
    restart(&scene, Some(known)).await;
    assert_eq!(unsigned(&scene), Some(8..=8));
    let scene = killed().await;
    let known = store_has(&scene, 8, &scene.read(1)[7]);
    restart(&scene, Some(known)).await;
    assert_eq!((scene.alerts(), scene.verify().unwrap().last), (Vec::new(), 8));
}

/// A forged decision gets no outcome that looks like the log's own.
#[tokio::test]
async fn linked_forged_decision_is_reported() {
    let scene = killed().await;
    let known = store_has(&scene, 8, &scene.read(1)[7]);
    scene.append_linked(&forged());
    restart(&scene, Some(known)).await;
    assert_eq!(unsigned(&scene), Some(9..=10), "the decision and its outcome");
    let recovered: Vec<_> =
        Entries::after(scene.dir.path(), 8).unwrap().map(|line| line.unwrap().entry).collect();
    assert_eq!(recovered.len(), 3, "{recovered:#?}");
    assert_eq!(recovered[0].record.verdict, Some(Verdict::Forward));
    assert_eq!(recovered[1].record.code.as_ref().map(crate::Text::as_str), Some("interrupted"));
    assert_eq!(scene.verify().unwrap().signed, 11);
}

/// The log was edited and relinked after a kill; the store reveals it.
#[tokio::test]
async fn log_that_contradicts_the_store_is_not_continued() {
    let scene = killed().await;
    let known = store_has(&scene, 8, &scene.read(1)[7]);
    let mut lines = scene.read(1);
    lines[5] = lines[5].replace("forward", "tunnel");
    relink(&mut lines, 6);
    scene.write(1, &lines);
    let before = fs::read(scene.path(1)).unwrap();
    assert_eq!(restart(&scene, Some(known)).await, FRESH);
    assert_eq!(scene.alerts(), ["audit_contradicted"]);
    assert_eq!(fs::read(scene.path(1)).unwrap(), before, "the file is unchanged");
}

/// An excuse for removed segments does not become valid because a daemon continued the log behind it.
#[tokio::test]
async fn unsigned_pruning_record_stays_invalid_when_continued() {
    let scene = Scene::new().await;
    as_if_killed(scene.dir.path());
    let last = *segment::list(scene.dir.path()).unwrap().last().unwrap();
    let begin = Settings::for_tests().signer.read(&segment::head_path(scene.dir.path(), last)).unwrap();
    scene.append_linked(&Record {
        event: Event::Outcome,
        ..Record::about_log(crate::codes::CODE_PRUNED, begin.tree.size())
    });
    for number in 1..last {
        fs::remove_file(scene.path(number)).unwrap();
    }
    restart(&scene, None).await;
    assert_eq!(unsigned(&scene), Some(61..=61));
    assert!(scene.bad().what.contains("no record reports that retention removed them"));
}

/// Without its checkpoint the whole last segment is unsigned, and the missing checkpoint is reported.
#[tokio::test]
async fn missing_checkpoint_is_reported() {
    let scene = killed().await;
    fs::remove_file(segment::checkpoint_path(scene.dir.path())).unwrap();
    restart(&scene, None).await;
    assert_eq!(
        (scene.alerts(), unsigned(&scene)),
        (vec!["audit_unsigned".to_owned(), "audit_damaged".to_owned()], Some(1..=8))
    );
}
