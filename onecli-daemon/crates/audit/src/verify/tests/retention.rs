//! Removal of old segments, and attacks on it with write access to the files.

use std::time::Duration;

use super::*;

#[derive(Debug)]
struct Later;

impl Clock for Later {
    fn now(&self) -> Timestamp {
        SystemClock.now() + Duration::from_hours(240)
    }

    fn instant(&self) -> std::time::Instant {
        SystemClock.instant()
    }
}

fn by_size() -> Retention {
    Retention { age: None, bytes: Some(SEGMENT) }
}

fn by_age() -> Retention {
    Retention { age: Some(Duration::from_hours(24)), bytes: None }
}

#[tokio::test]
async fn a_pruned_log_is_verified_from_its_first_head_on() {
    for retention in [by_size(), by_age()] {
        let scene = Scene::new().await;
        let settings = Settings { retention, clock: Arc::new(Later), ..Settings::for_tests() };
        let log = AuditLog::open_sized(&scene.dir, settings, SEGMENT).unwrap();
        log.decision(record(99)).await.unwrap();
        // The last segment and later records stay.
        let pruned = async {
            while segment::list(scene.dir.path()).unwrap().len() > 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), pruned).await.unwrap();
        log.close().await.unwrap();
        let verified = scene.verify().unwrap();
        assert!(verified.first > 20 && verified.last >= 62, "{verified:?}");
        let last_pruned = Entries::after(scene.dir.path(), 0)
            .unwrap()
            .find_map(|line| line.unwrap().entry.record.pruned_through());
        assert_eq!(last_pruned, Some(verified.first - 1));
        // The record does not cover one record more than that.
        let first = segment::list(scene.dir.path()).unwrap()[0];
        if segment::list(scene.dir.path()).unwrap().len() > 1 {
            fs::remove_file(scene.path(first)).unwrap();
            assert!(scene.bad().what.contains("retention removed them"));
        }
    }
}

/// Runs a log with this retention until it has had time to search for old segments.
async fn keep(scene: &Scene, retention: Retention, clock: Arc<dyn Clock>) {
    let settings = Settings { clock, retention, ..Settings::for_tests() };
    let log = AuditLog::open_sized(&scene.dir, settings, SEGMENT).unwrap();
    log.decision(record(99)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    log.close().await.unwrap();
}

fn first(scene: &Scene) -> u64 {
    segment::list(scene.dir.path()).unwrap()[0]
}

/// The record of a removal excuses no change to the files, and no attempt to make them look old or large: a segment
/// that differs from what was signed is not removed.
#[tokio::test]
async fn changed_segments_are_not_removed_by_retention() {
    // A segment was edited so that retention removes the evidence.
    let scene = Scene::new().await;
    let mut lines = scene.read(1);
    lines[2] = lines[2].replace("forward", "tunnel");
    scene.write(1, &lines);
    keep(&scene, by_age(), Arc::new(Later)).await;
    assert_eq!(first(&scene), 1);
    assert_eq!(scene.bad().file, scene.path(1));
    assert_eq!(scene.alerts(), ["audit_kept"], "the end of pruning is recorded");
    // If the operator moves the segment elsewhere, retention continues.
    fs::remove_file(scene.path(1)).unwrap();
    keep(&scene, by_age(), Arc::new(Later)).await;
    assert!(first(&scene) > 2 && scene.verify().is_ok());

    // The head was replaced with one that claims an older time.
    let scene = Scene::new().await;
    let head = segment::head_path(scene.dir.path(), 2);
    let note = fs::read_to_string(&head).unwrap();
    fs::write(&head, note.replace("time 20", "time 19")).unwrap();
    keep(&scene, by_age(), Arc::new(SystemClock)).await;
    fs::write(&head, note).unwrap();
    assert_eq!((first(&scene), scene.verify().unwrap().first), (1, 1));

    // The head of a later segment: the record would report more removed records than there are.
    let scene = Scene::new().await;
    let note = fs::read_to_string(head_of(&scene, 2)).unwrap();
    fs::copy(head_of(&scene, 3), head_of(&scene, 2)).unwrap();
    keep(&scene, by_size(), Arc::new(SystemClock)).await;
    fs::write(head_of(&scene, 2), note).unwrap();
    assert_eq!((first(&scene), scene.verify().unwrap().first), (1, 1));

    // Files that no daemon wrote.
    let scene = Scene::new().await;
    fs::File::create(scene.dir.path().join("00000099.jsonl")).unwrap().set_len(1 << 40).unwrap();
    keep(&scene, Retention { age: None, bytes: Some(1 << 30) }, Arc::new(SystemClock)).await;
    assert_eq!(first(&scene), 1);
}

fn head_of(scene: &Scene, number: u64) -> PathBuf {
    segment::head_path(scene.dir.path(), number)
}

/// An unsigned excuse: an attacker removes old segments and appends a linked line that reports their removal.
#[tokio::test]
async fn unsigned_pruning_record_excuses_nothing() {
    let scene = Scene::new().await;
    let verified = scene.verify().unwrap();
    let numbers = segment::list(scene.dir.path()).unwrap();
    let kept = *numbers.last().unwrap();
    let begin = head(&scene, kept);
    scene.append_linked(&Record {
        event: Event::Outcome,
        ..Record::about_log(crate::codes::CODE_PRUNED, begin)
    });
    for number in numbers.into_iter().filter(|number| *number < kept) {
        fs::remove_file(scene.path(number)).unwrap();
        fs::remove_file(head_of(&scene, number)).unwrap();
    }
    let what = scene.bad().what;
    assert!(verified.first == 1 && what.contains("no record reports that retention removed them"), "{what}");
}

/// The number of records before a segment.
fn head(scene: &Scene, number: u64) -> u64 {
    Settings::for_tests().signer.read(&head_of(scene, number)).unwrap().tree.size()
}
