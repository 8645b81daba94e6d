//! Ships audit records from the log's files into the store, so that requests do not wait for the database. The store
//! alone determines which records were shipped: after a crash, shipping continues from there.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use onecli_audit::{AuditError, AuditLog, Entries, Line, LogStart, Position};
use onecli_model::LogId;
use onecli_store::{AuditRow, Store, StoreError};
use tokio::sync::watch;

/// The maximum number of rows in one transaction.
const BATCH: usize = 256;
/// The time to wait for more records after a wake-up. Each transaction costs a sync of the disk.
const GATHER: Duration = Duration::from_millis(20);
/// The first and the longest pause after a failure. Each pause is twice the previous one.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// The task that ships.
#[derive(Debug)]
pub(crate) struct Shipper {
    dir: PathBuf,
    log: LogId,
    durable: watch::Receiver<u64>,
    pruned: watch::Receiver<u64>,
    begin: LogStart,
    /// The highest sequence number whose rows were removed from the store.
    gone: u64,
    store: Arc<dyn Store>,
    shipped: watch::Sender<u64>,
    fault: watch::Sender<Option<String>>,
}

/// The position that shipping has reached.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    seq: u64,
    position: Position,
}

#[derive(Debug, thiserror::Error)]
enum ShipError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("reading the audit log was interrupted: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

impl Shipper {
    /// Ships the log `log` in the directory `dir`. Also removes from the store the rows that the log's writer removed
    /// for their age or size ([`onecli_audit::AuditLog::pruned`]).
    pub(crate) fn new(dir: PathBuf, log: &AuditLog, store: Arc<dyn Store>) -> Shipper {
        Shipper {
            dir,
            log: log.id(),
            durable: log.subscribe(),
            pruned: log.pruned(),
            begin: log.start(),
            gone: 0,
            store,
            shipped: watch::Sender::new(0),
            fault: watch::Sender::new(None),
        }
    }

    /// Returns the sequence number up to which the store has the log's records, as it grows. A client that lists rows
    /// can wait here until the store has the latest record.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.shipped.subscribe()
    }

    /// Returns the reason why the last attempt failed; `None` if it succeeded or none was made.
    pub(crate) fn fault(&self) -> watch::Receiver<Option<String>> {
        self.fault.subscribe()
    }

    /// Ships until the log is closed and all its records are in the store. Logs a failure once in the daemon's own
    /// log and retries without limit. Cancel safe: no record is lost or duplicated.
    pub(crate) async fn run(mut self) {
        let mut cursor = None;
        let mut pause = BACKOFF.0;
        let mut closed = false;
        loop {
            let limit = *self.durable.borrow_and_update();
            match self.ship_and_prune(&mut cursor, limit).await {
                Ok(()) => {
                    pause = BACKOFF.0;
                    self.fault.send_if_modified(|fault| fault.take().is_some());
                    if closed {
                        return;
                    }
                    let more = tokio::select! {
                        changed = self.durable.changed() => changed,
                        changed = self.pruned.changed() => changed,
                    };
                    // One channel may have ended while the last value of the other is still unread.
                    closed = more.is_err();
                    if !closed {
                        tokio::time::sleep(GATHER).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, retry_in = ?pause, "cannot copy audit records into the store");
                    self.fault.send_replace(Some(error.to_string()));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
        }
    }

    async fn ship_and_prune(&mut self, cursor: &mut Option<Cursor>, limit: u64) -> Result<(), ShipError> {
        let through = *self.pruned.borrow_and_update();
        self.ship(cursor, limit).await?;
        if through > self.gone {
            self.store.prune_audit(self.log, through).await?;
            self.gone = through;
        }
        Ok(())
    }

    /// Ships all records up to `limit`.
    async fn ship(&self, cursor: &mut Option<Cursor>, limit: u64) -> Result<(), ShipError> {
        let mut at = match *cursor {
            Some(at) => at,
            None => self.find().await?,
        };
        loop {
            *cursor = Some(at);
            if at.seq >= limit {
                self.shipped.send_replace(at.seq);
                return Ok(());
            }
            let (dir, begin) = (self.dir.clone(), self.begin);
            let (lines, next) = tokio::task::spawn_blocking(move || read(&dir, begin, at, limit)).await??;
            if lines.is_empty() {
                // The log has numbered records up to the limit, so the missing lines were removed from its files.
                tracing::error!(
                    after = at.seq,
                    up_to = limit,
                    "audit records are missing from the log's files"
                );
                at = Cursor { seq: limit, ..next };
                continue;
            }
            let rows: Vec<_> = lines.into_iter().map(|line| row(self.log, line)).collect();
            self.store.insert_audit(&rows).await?;
            at = next;
            self.shipped.send_replace(at.seq);
        }
    }

    async fn find(&self) -> Result<Cursor, ShipError> {
        let seq = self.store.last_audit_seq(self.log).await?;
        if seq >= self.begin.after {
            return Ok(Cursor { seq, position: self.begin.position() });
        }
        let dir = self.dir.clone();
        let entries = tokio::task::spawn_blocking(move || Entries::after(&dir, seq)).await??;
        Ok(Cursor { seq, position: entries.position() })
    }
}

/// Reads a batch of the lines up to `limit`. Never reads the files beyond it.
fn read(dir: &Path, begin: LogStart, mut at: Cursor, limit: u64) -> Result<(Vec<Line>, Cursor), AuditError> {
    let mut lines = Vec::new();
    let mut entries = Entries::resume(dir, at.position, at.seq);
    while lines.len() < BATCH && at.seq < limit {
        match entries.next() {
            None => break,
            // After tampering was found, the log continued in another segment with the same numbers.
            Some(Ok(line))
                if line.entry.seq > begin.after && entries.position().segment() < begin.segment =>
            {
                at.position = begin.position();
                entries = Entries::resume(dir, at.position, at.seq);
            }
            Some(Ok(line)) if line.entry.seq > limit => break,
            Some(Ok(line)) => {
                at = Cursor { seq: line.entry.seq, position: entries.position() };
                lines.push(line);
            }
            Some(Err(error @ AuditError::BadLine { .. })) => {
                tracing::error!(%error, "a damaged line of the audit log is not copied into the store");
                at.position = entries.position();
            }
            Some(Err(error)) => return Err(error),
        }
    }
    Ok((lines, at))
}

fn row(log: LogId, line: Line) -> AuditRow {
    let record = line.entry.record;
    AuditRow {
        id: 0,
        log,
        seq: line.entry.seq,
        time: line.entry.time,
        request_id: record.request_id,
        event: record.event.as_str().to_owned(),
        agent: record.agent.map(String::from),
        host: record.host.map(String::from),
        verdict: record.verdict.map(|verdict| verdict.as_str().to_owned()),
        code: record.code.map(String::from),
        launched_by: record.launched_by,
        json: line.json,
    }
}
