//! Shipping despite failures of the store and of the log.

use onecli_audit::{AuditLog, Record, Retention, Settings};
use onecli_model::RequestId;
use onecli_store::{AuditQuery, SqliteStore};
use onecli_sys::PrivateDir;
use uuid::Uuid;

use super::*;

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
        Shipper::new(self.dir.path().to_owned(), &self.log, self.store.clone())
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
async fn shipped_rows_equal_the_lines_of_the_log() {
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
async fn restart_neither_loses_nor_duplicates_rows() {
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
async fn shipping_is_retried_after_a_store_failure() {
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
async fn shipping_continues_after_damaged_and_missing_lines() {
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

/// Rows leave the store only when the log's writer removed the segments. A line of the log that claims a removal has
/// no effect.
#[tokio::test]
async fn a_forged_line_removes_no_rows() {
    let host = Host::new().await;
    host.write(5).await;
    let mut forged: serde_json::Value = serde_json::from_str(&host.lines()[4]).unwrap();
    for (field, value) in [("event", "outcome".into()), ("code", "audit_pruned".into()), ("count", 4.into())]
    {
        forged[field] = value;
    }
    forged.as_object_mut().unwrap().remove("request_id");
    let path = host.dir.join("00000001.jsonl");
    let text = std::fs::read_to_string(&path).unwrap().replace(&host.lines()[4], &forged.to_string());
    std::fs::write(&path, text).unwrap();
    let shipper = host.shipper();
    let mut done = shipper.subscribe();
    let _task = tokio::spawn(shipper.run());
    shipped(&mut done, 5).await;
    assert_eq!(host.rows().await.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}

/// Rows of segments that the writer removed for their age or size are removed from the store.
#[tokio::test]
async fn rows_of_pruned_segments_leave_the_store() {
    let host = Host::new().await;
    host.write(400).await;
    host.log.close().await.unwrap();
    let retention = Retention { age: None, bytes: Some(1) };
    let settings = Settings { retention, ..Settings::for_tests() };
    let log = AuditLog::open_sized(&host.dir, settings, 4000).unwrap();
    let shipper = Shipper::new(host.dir.path().to_owned(), &log, host.store.clone());
    let _task = tokio::spawn(shipper.run());
    log.decision(Record::new(RequestId(Uuid::from_u128(1)))).await.unwrap();
    let left = async {
        loop {
            let rows = host.rows().await;
            if rows.first().is_some_and(|row| row.seq > 400) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), left).await.unwrap();
}
