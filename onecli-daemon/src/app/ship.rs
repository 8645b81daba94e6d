//! Brings audit records from the log's files into the store, so that nobody who serves a request waits for the
//! database. What is shipped is known from the store alone: after a crash, shipping goes on where it ended.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use onecli_audit::{AuditError, AuditLog, Begin, Entries, Line, Position};
use onecli_model::LogId;
use onecli_store::{AuditRow, Store, StoreError};
use tokio::sync::watch;

/// The most rows in one transaction.
const BATCH: usize = 256;
/// After a wake-up, so long is waited for more records: each transaction costs a sync of the disk.
const GATHER: Duration = Duration::from_millis(20);
/// The first and the longest pause after a failure; each is twice the one before.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// The task that ships.
#[derive(Debug)]
pub(crate) struct Shipper {
    dir: PathBuf,
    log: LogId,
    durable: watch::Receiver<u64>,
    pruned: watch::Receiver<u64>,
    begin: Begin,
    /// Up to which number they went from the store.
    gone: u64,
    store: Arc<dyn Store>,
    shipped: watch::Sender<u64>,
    fault: watch::Sender<Option<String>>,
}

/// Where shipping stands.
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
    #[error("reading the audit log was broken off: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

impl Shipper {
    /// Ships the log `log` that lies in `dir`. What its writer removes for its age or size
    /// ([`onecli_audit::AuditLog::pruned`]) goes from the store too.
    pub(crate) fn new(dir: PathBuf, log: &AuditLog, store: Arc<dyn Store>) -> Shipper {
        Shipper {
            dir,
            log: log.id(),
            durable: log.subscribe(),
            pruned: log.pruned(),
            begin: log.begin(),
            gone: 0,
            store,
            shipped: watch::Sender::new(0),
            fault: watch::Sender::new(None),
        }
    }

    /// The number up to which the store has the log's records, as it grows. Who lists rows can wait here until
    /// what was just written is among them.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.shipped.subscribe()
    }

    /// Why the last attempt failed; `None` once one succeeds, or where none has failed.
    pub(crate) fn fault(&self) -> watch::Receiver<Option<String>> {
        self.fault.subscribe()
    }

    /// Ships until the log is closed and all of it is in the store. Failures are told once in the daemon's own log
    /// and tried again, for as long as it takes. May be dropped at any time; nothing is lost or doubled.
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
                    // One may have ended with the other's last word unheard.
                    closed = more.is_err();
                    if !closed {
                        tokio::time::sleep(GATHER).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, retry_in = ?pause, "audit records could not be brought into the store");
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

    /// Ships everything up to `limit`.
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
                // The log has numbered up to the limit, so the missing lines were removed from its files.
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

/// Reads a batch of the lines up to `limit`, from files that are never read beyond it.
fn read(dir: &Path, begin: Begin, mut at: Cursor, limit: u64) -> Result<(Vec<Line>, Cursor), AuditError> {
    let mut lines = Vec::new();
    let mut entries = Entries::resume(dir, at.position, at.seq);
    while lines.len() < BATCH && at.seq < limit {
        match entries.next() {
            None => break,
            // A log that was found changed went on in another segment, with the same numbers.
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
                tracing::error!(%error, "a line of the audit log is not shipped");
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
