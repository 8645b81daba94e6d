//! Shipping through failures of the store and of the log.

use uuid::Uuid;

use super::*;
use crate::audit::{AuditLog, Record, Settings};
use crate::model::{PrivateDir, RequestId};
use crate::store::{AuditQuery, SqliteStore};

struct Host {
    dir: PrivateDir,
    store: Arc<SqliteStore>,
    log: AuditLog,
    _temp: tempfile::TempDir,
}

impl Host {
    async fn new() -> Host {
        let (temp, data) = PrivateDir::temporary();
        let store = Arc::new(SqliteStore::open(&data.join("onecli.db")).await.unwrap());
        let dir = PrivateDir::create(&data.join("audit")).unwrap();
        let log = AuditLog::open(&dir, Settings::for_tests()).unwrap();
        Host { dir, store, log, _temp: temp }
    }

    fn shipper(&self) -> Shipper {
        Shipper::new(self.dir.path().to_owned(), self.log.id(), self.log.subscribe(), self.store.clone())
    }

    async fn write(&self, count: u128) {
        for number in 0..count {
            let mut record = Record::new(RequestId(Uuid::from_u128(number)));
            record.agent = Some("one".parse().unwrap());
            record.forward();
            self.log.outcome(record);
        }
        self.log.flush().await.unwrap();
    }

    async fn rows(&self) -> Vec<AuditRow> {
        self.store.list_audit(&AuditQuery { limit: 10_000, ..AuditQuery::default() }).await.unwrap()
    }

    fn lines(&self) -> Vec<String> {
        Entries::after(self.dir.path(), 0).unwrap().map(|line| line.unwrap().json).collect()
    }
}

async fn shipped(shipper: &mut watch::Receiver<u64>, seq: u64) {
    let reached = shipper.wait_for(|shipped| *shipped >= seq);
    tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap().unwrap();
}

#[tokio::test]
async fn rows_are_the_lines() {
    let host = Host::new().await;
    let shipper = host.shipper();
    let mut done = shipper.subscribe();
    let task = tokio::spawn(shipper.run());
    host.write(1000).await;
    shipped(&mut done, 1000).await;
    let rows = host.rows().await;
    assert_eq!(rows.iter().map(|row| row.json.clone()).collect::<Vec<_>>(), host.lines());
    let row = &rows[0];
    assert_eq!((row.seq, row.event.as_str(), row.agent.as_deref()), (1, "decision", Some("one")));
    assert_eq!(
        (row.verdict.as_deref(), row.request_id),
        (Some("forward"), Some(RequestId(Uuid::from_u128(0))))
    );

    host.write(5).await;
    host.log.close().await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
    assert_eq!(host.rows().await.len(), 1005, "all of a closed log is shipped");
}

#[tokio::test]
async fn a_restart_neither_loses_nor_doubles() {
    let host = Host::new().await;
    let mut written = 0;
    for _ in 0..5 {
        let shipper = host.shipper();
        let mut done = shipper.subscribe();
        let task = tokio::spawn(shipper.run());
        host.write(300).await;
        written += 300;
        shipped(&mut done, written - 200).await;
        task.abort();
    }
    let shipper = host.shipper();
    let mut done = shipper.subscribe();
    let _task = tokio::spawn(shipper.run());
    shipped(&mut done, written).await;
    assert_eq!(host.rows().await.iter().map(|row| row.json.clone()).collect::<Vec<_>>(), host.lines());
}

#[tokio::test]
async fn a_failing_store_is_tried_again() {
    let host = Host::new().await;
    host.store.hide_audit(true).await;
    let shipper = host.shipper();
    let mut done = shipper.subscribe();
    let _task = tokio::spawn(shipper.run());
    host.write(10).await;
    tokio::time::sleep(BACKOFF.0 * 2).await;
    assert_eq!(*done.borrow(), 0);
    host.store.hide_audit(false).await;
    shipped(&mut done, 10).await;
}

#[tokio::test]
async fn damaged_and_missing_lines_stop_nothing() {
    let host = Host::new().await;
    host.write(3).await;
    let path = host.dir.join("00000001.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let damaged = "x".repeat(lines[1].len());
    std::fs::write(&path, format!("{}\n{damaged}\n{}\n", lines[0], lines[2])).unwrap();

    let shipper = host.shipper();
    let mut done = shipper.subscribe();
    let _task = tokio::spawn(shipper.run());
    shipped(&mut done, 3).await;
    assert_eq!(host.rows().await.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 3]);

    std::fs::write(&path, "").unwrap();
    host.write(2).await;
    shipped(&mut done, 5).await;
}
