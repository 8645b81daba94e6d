//! One thread writes; everybody else waits for it or goes on. Records that arrive while a write is under way go
//! into the next one together (group commit), so that the disk's latency is paid once for many.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::encode;
use super::error::AuditError;
use super::orphans;
use super::record::Record;
use super::segment::{SEGMENT_BYTES, Segments};
use crate::model::{Clock, PrivateDir};

/// The most records in one write.
const BATCH: usize = 256;
/// The most records that wait in memory. From half of it on, decisions are refused, so that the rest is kept for
/// the outcomes of requests that are under way.
const QUEUE: usize = 16_384;
/// How long after a failed write the waiting outcomes are tried again.
const RETRY: Duration = Duration::from_millis(250);

/// Code of the record that tells of an unfinished write cut off at start; its count is in bytes.
const CODE_TORN: &str = "audit_torn";
/// Code of the record that tells of outcomes lost while the disk failed; its count is in records.
const CODE_LOST: &str = "audit_lost";
/// Code of the record that tells of decisions refused while the disk failed; its count is in records.
const CODE_REFUSED: &str = "audit_refused";

/// Proof that a decision's record is on the disk. Injection takes one.
#[derive(Debug)]
pub struct Durable {
    seq: u64,
}

impl Durable {
    /// Sequence number of the record.
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

/// A handle of the log; clones write the same one. The log ends when it is closed or its last handle is dropped,
/// in both cases after writing what was queued.
#[derive(Debug, Clone)]
pub struct AuditLog {
    queue: mpsc::Sender<Item>,
    shared: Arc<Shared>,
    durable: watch::Receiver<u64>,
}

#[derive(Debug, Default)]
struct Shared {
    queued: AtomicUsize,
    lost: AtomicU64,
    /// Why the last write failed, if it did.
    fault: watch::Sender<Option<AuditError>>,
}

type Ack<T> = oneshot::Sender<Result<T, AuditError>>;

#[derive(Debug)]
enum Item {
    Decision(Box<Record>, Ack<Durable>),
    Outcome(Box<Record>),
    Flush(Ack<()>),
    Close(Ack<()>),
}

impl AuditLog {
    /// Opens the log in `dir`, or begins one there, and starts its writer. Numbering goes on after the last
    /// record, and after `at_least`, the last number known from elsewhere (0 where there is none). An unfinished
    /// write at the end is cut off and told of in a record; requests that a former daemon did not live to finish get
    /// their outcome (`interrupted`).
    ///
    /// # Errors
    /// [`AuditError::Locked`] where another process has it open; [`AuditError::Io`].
    pub fn open(dir: &PrivateDir, clock: Arc<dyn Clock>, at_least: u64) -> Result<AuditLog, AuditError> {
        AuditLog::open_sized(dir, clock, at_least, SEGMENT_BYTES)
    }

    pub(super) fn open_sized(
        dir: &PrivateDir,
        clock: Arc<dyn Clock>,
        at_least: u64,
        segment_bytes: u64,
    ) -> Result<AuditLog, AuditError> {
        let (segments, found) = Segments::open(dir, segment_bytes)?;
        let orphans = orphans::find(dir.path())?;
        let last_seq = found.last_seq.max(at_least);
        let (queue, items) = mpsc::channel();
        let (told, durable) = watch::channel(last_seq);
        let shared = Arc::new(Shared::default());
        let log = AuditLog { queue, shared: shared.clone(), durable };
        if found.cut > 0 {
            tracing::warn!(bytes = found.cut, "an unfinished write at the end of the audit log was cut off");
            log.outcome(Record::of_the_log(CODE_TORN, found.cut));
        }
        for decided in orphans {
            log.outcome(decided.interrupted());
        }
        let writer =
            Writer { items, waiting: VecDeque::new(), segments, clock, shared, told, last_seq, refused: 0 };
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run())
            .map_err(AuditError::io(dir.path(), "start the writer of"))?;
        Ok(log)
    }

    /// Writes a decision (or an alert, or a refusal) and returns once it is on the disk. If the caller goes away
    /// meanwhile, the record is written all the same.
    ///
    /// # Errors
    /// The record is not on the disk and nothing may be let through on its account: [`AuditError::Io`],
    /// [`AuditError::Overloaded`], [`AuditError::Closed`]. The next call may succeed, the log recovers by itself.
    pub async fn decision(&self, record: Record) -> Result<Durable, AuditError> {
        let queued = self.shared.queued.load(Ordering::Relaxed);
        if queued >= QUEUE / 2 {
            return Err(AuditError::Overloaded { queued });
        }
        let (ack, done) = oneshot::channel();
        self.enqueue(Item::Decision(Box::new(record), ack))?;
        done.await.map_err(|_| AuditError::Closed)?
    }

    /// Queues a record that nobody waits for; never blocks. It is written soon, and kept through a failure of the
    /// disk. Decisions are refused long before the queue is full, so it fills up only when more than 8192
    /// requests end while the disk fails; what finds no room then is counted, and the count is written as an
    /// alert (`audit_lost`) when the disk is back.
    pub fn outcome(&self, record: Record) {
        let full = self.shared.queued.load(Ordering::Relaxed) >= QUEUE;
        if full {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        } else if let Err(error) = self.enqueue(Item::Outcome(Box::new(record))) {
            tracing::error!(%error, "an outcome is missing from the audit log");
        }
    }

    /// Returns once everything queued before is on the disk.
    ///
    /// # Errors
    /// As [`AuditLog::decision`]. Outcomes stay queued all the same.
    pub async fn flush(&self) -> Result<(), AuditError> {
        let (ack, done) = oneshot::channel();
        self.enqueue(Item::Flush(ack))?;
        done.await.map_err(|_| AuditError::Closed)?
    }

    /// Writes everything queued, ends the log and gives its lock free. Later calls on any handle find it closed.
    ///
    /// # Errors
    /// As [`AuditLog::decision`]; the log stays open then.
    pub async fn close(&self) -> Result<(), AuditError> {
        let (ack, done) = oneshot::channel();
        self.enqueue(Item::Close(ack))?;
        done.await.map_err(|_| AuditError::Closed)?
    }

    /// Did the last write succeed?
    pub fn healthy(&self) -> bool {
        self.shared.fault.borrow().is_none()
    }

    /// Why the last write failed; `None` once one succeeds, or where none has failed.
    pub fn fault(&self) -> watch::Receiver<Option<AuditError>> {
        self.shared.fault.subscribe()
    }

    /// The sequence number of the last record on the disk, as it grows.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }

    fn enqueue(&self, item: Item) -> Result<(), AuditError> {
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        self.queue.send(item).map_err(|_| {
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            AuditError::Closed
        })
    }
}

/// The state of the writer's thread.
struct Writer {
    items: mpsc::Receiver<Item>,
    /// Taken from the channel, not yet written. After a failure only outcomes are left here.
    waiting: VecDeque<Item>,
    segments: Segments,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    told: watch::Sender<u64>,
    last_seq: u64,
    /// Decisions that could not be written since the last write. Writing of them is also how the disk's return
    /// is noticed.
    refused: u64,
}

impl Writer {
    fn run(mut self) {
        loop {
            let open = self.receive();
            if let Err(error) = self.commit() {
                self.fail(&error);
            }
            let closing = matches!(self.waiting.front(), Some(Item::Close(_)));
            if closing || (!open && self.waiting.is_empty()) {
                break;
            }
            if !open && !self.healthy() {
                tracing::error!(
                    records = self.waiting.len(),
                    "audit records could not be written before the end"
                );
                break;
            }
        }
        let Writer { segments, mut waiting, .. } = self;
        drop(segments);
        if let Some(Item::Close(ack)) = waiting.pop_front() {
            let _ = ack.send(Ok(()));
        }
    }

    /// Waits for something to write and takes what is there; false once every handle is gone.
    fn receive(&mut self) -> bool {
        let first = match (self.waiting.is_empty(), self.healthy()) {
            (true, true) => self.items.recv().map_err(RecvTimeoutError::from),
            (false, true) => self.items.recv_timeout(Duration::ZERO),
            (_, false) => self.items.recv_timeout(RETRY),
        };
        match first {
            Ok(item) => self.waiting.push_back(item),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        while self.waiting.len() < BATCH {
            match self.items.try_recv() {
                Ok(item) => self.waiting.push_back(item),
                Err(_) => break,
            }
        }
        true
    }

    /// Writes one batch from the front of the queue, up to a request to close, and tells those who wait.
    fn commit(&mut self) -> Result<(), AuditError> {
        let size = self.waiting.iter().take(BATCH).take_while(|item| !matches!(item, Item::Close(_))).count();
        let lost = self.shared.lost.load(Ordering::Relaxed);
        let about_us = [(CODE_REFUSED, self.refused), (CODE_LOST, lost)];

        let time = self.clock.now();
        let mut lines = Vec::with_capacity(size * 512);
        let mut seq = self.last_seq;
        let mut line = |record: &Record| {
            seq += 1;
            encode::encode(time, seq, record, &mut lines);
        };
        for item in self.waiting.range(..size) {
            match item {
                Item::Decision(record, _) | Item::Outcome(record) => line(record),
                Item::Flush(_) | Item::Close(_) => {}
            }
        }
        for (code, count) in about_us.into_iter().filter(|(_, count)| *count > 0) {
            line(&Record::of_the_log(code, count));
        }
        if !lines.is_empty() {
            self.segments.append(&lines)?;
            self.shared.lost.fetch_sub(lost, Ordering::Relaxed);
            self.refused = 0;
            self.shared.fault.send_if_modified(|fault| fault.take().is_some());
        }

        // Told first: who is answered below may look there.
        let mut done = self.last_seq;
        if seq > self.last_seq {
            self.last_seq = seq;
            self.told.send_replace(seq);
        }
        for item in self.waiting.drain(..size) {
            match item {
                Item::Decision(_, ack) => {
                    done += 1;
                    let _ = ack.send(Ok(Durable { seq: done }));
                }
                Item::Outcome(_) => done += 1,
                Item::Flush(ack) | Item::Close(ack) => {
                    let _ = ack.send(Ok(()));
                }
            }
        }
        self.shared.queued.fetch_sub(size, Ordering::Relaxed);
        Ok(())
    }

    /// Tells everybody who waits that the write failed. Outcomes stay for the next attempt.
    fn fail(&mut self, error: &AuditError) {
        if self.healthy() {
            tracing::error!(%error, "the audit log cannot be written; requests are refused until it can");
        }
        self.shared.fault.send_replace(Some(error.clone()));
        let before = self.waiting.len();
        self.waiting = std::mem::take(&mut self.waiting)
            .into_iter()
            .filter_map(|item| match item {
                Item::Outcome(_) => Some(item),
                Item::Decision(_, ack) => {
                    self.refused += 1;
                    let _ = ack.send(Err(error.clone()));
                    None
                }
                Item::Flush(ack) | Item::Close(ack) => {
                    let _ = ack.send(Err(error.clone()));
                    None
                }
            })
            .collect();
        self.shared.queued.fetch_sub(before - self.waiting.len(), Ordering::Relaxed);
    }

    fn healthy(&self) -> bool {
        self.shared.fault.borrow().is_none()
    }
}
