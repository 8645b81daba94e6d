//! Known damage hides no finding behind it.

use onecli_model::LogId;

use super::*;

/// A line is cut out of a log, the daemon continues behind it, and the damage is known.
#[tokio::test]
async fn records_after_known_damage_are_verified() {
    let (temp, dir) = PrivateDir::temporary();
    write(&dir, Settings::for_tests(), 4).await;
    let scene = Scene { dir, _temp: temp };
    let lines = scene.read(1);
    scene.write(1, &lines[..5]);
    write(&scene.dir, Settings::for_tests(), 30).await;
    assert_eq!(scene.alerts(), ["audit_damaged"]);
    assert_eq!(scene.bad_segments(), [1]);
    let Err(VerifyError::Findings(found)) = scene.verify() else { panic!("it is damaged") };
    assert_eq!((found.more, found.good_from), (0, Some(2)));
    let verified = scene.verify_from(2).unwrap();
    assert_eq!((verified.first, verified.last, verified.from), (9, 69, Some(2)));

    // A later edit is found, with the known damage and without it.
    let mut lines = scene.read(3);
    lines[2] = lines[2].replace("forward", "tunnel");
    scene.write(3, &lines);
    assert_eq!(scene.bad_segments(), [1, 3]);
    let bad = findings(scene.verify_from(2));
    assert_eq!((bad.len(), bad[0].file.clone(), bad[0].line), (1, scene.path(3), Some(3)), "{bad:?}");
    assert!(matches!(scene.verify_from(77), Err(VerifyError::NoSegment { from: 77, .. })));
}

#[tokio::test]
async fn findings_are_ordered_by_segment() {
    let scene = Scene::new().await;
    write(&scene.dir, Settings::for_tests(), 60).await;
    let last = *segment::list(scene.dir.path()).unwrap().last().unwrap();
    assert!(last >= 6, "{last}");
    // A segment was removed; the previous one shows it.
    fs::remove_file(scene.path(2)).unwrap();
    for number in [4, last] {
        let mut lines = scene.read(number);
        lines[1] = lines[1].replace("forward", "tunnel");
        scene.write(number, &lines);
    }
    fs::write(segment::head_path(scene.dir.path(), 3), "no head").unwrap();
    assert_eq!(
        scene.bad_segments(),
        [3, 4, last],
        "a segment without a head cannot be compared with the one before it"
    );
    fs::copy(segment::head_path(scene.dir.path(), 4), segment::head_path(scene.dir.path(), 3)).unwrap();
    assert_eq!(scene.bad_segments(), [1, 3, 4, last]);
    assert!(scene.bad().what.contains("missing between this segment and the next"));
}

/// A new log beside the previous one.
#[tokio::test]
async fn previous_log_is_verified_separately() {
    let scene = Scene::new().await;
    let last = *segment::list(scene.dir.path()).unwrap().last().unwrap();
    let former = scene.checkpoint();
    let log = scene.verify().unwrap().log;
    let known = Some(LastKnown { log, last: Some((99, "more than there is".to_owned())) });
    let settings = Settings { known, fresh: LogId(Uuid::from_u128(0xff)), ..Settings::for_tests() };
    write(&scene.dir, settings, 5).await;
    assert_eq!(scene.alerts(), ["audit_truncated"]);
    let bad = findings(scene.verify());
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert!(
        bad[0].file == scene.path(last) && bad[0].what.contains("its first record contains the reason"),
        "{bad:?}"
    );
    assert_eq!(scene.verify_from(last + 1).unwrap().last, 11);

    // A witness's checkpoint of the previous log still reveals changes in it.
    assert_eq!(findings(scene.verify_with(std::slice::from_ref(&former))).len(), 1);
    let mut lines = scene.read(last);
    lines.pop();
    scene.write(last, &lines);
    assert!(findings(scene.verify_with(&[former]))[0].what.contains("the end was cut off"));
    let mut lines = scene.read(1);
    lines[1] = lines[1].replace("forward", "tunnel");
    scene.write(1, &lines);
    assert_eq!(scene.bad_segments(), [1, last]);
}

/// A log with many problems is checked to the last byte, and the list of findings is bounded.
#[tokio::test]
async fn findings_are_bounded() {
    let (temp, dir) = PrivateDir::temporary();
    let log = AuditLog::open_sized(&dir, Settings::for_tests(), 1).unwrap();
    for number in 0..120 {
        log.decision(record(number)).await.unwrap();
    }
    log.close().await.unwrap();
    let scene = Scene { dir, _temp: temp };
    for number in segment::list(scene.dir.path()).unwrap() {
        fs::write(scene.path(number), "no record\n").unwrap();
    }
    let Err(VerifyError::Findings(found)) = scene.verify() else { panic!("no record is left") };
    assert_eq!((found.findings.len(), found.more, found.good_from), (Findings::MOST, 20, None));
}
