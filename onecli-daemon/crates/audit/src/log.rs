//! The handle of the audit log that the rest of the daemon uses: it accepts records and returns proofs that they
//! are written.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use onecli_model::LogId;
use onecli_sys::PrivateDir;
use tokio::sync::{oneshot, watch};

use super::alerts::Alerts;
use super::checkpoint::Checkpoint;
use super::encode;
use super::error::AuditError;
use super::fields::Record;
use super::link::Link;
use super::publish::Publisher;
use super::queue::{Durable, Item, Shared};
use super::reader::Position;
use super::recover;
use super::segment::{self, SEGMENT_BYTES, Segments};
use super::settings::Settings;
use super::tree::Tree;
use super::unfinished;
use super::writer::{Maintenance, Writer};

/// The most records that wait in memory. Decisions are refused once the queue is half full, so that the rest
/// remains for the outcomes of running requests.
const QUEUE_CAPACITY: usize = 16_384;
/// How long a decision waits for a slow disk.
const DECISION_TIMEOUT: Duration = Duration::from_secs(5);

/// The point at which this daemon began to write to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStart {
    /// The first segment that it writes to.
    pub segment: u64,
    /// The number of the last record before this daemon's own. Bytes behind it in earlier segments are not part of
    /// the log.
    pub after: u64,
}

impl LogStart {
    /// The beginning of that segment.
    pub fn position(&self) -> Position {
        Position::start_of(self.segment)
    }
}

/// A handle of the log; clones write to the same log. The log ends when it is closed or its last handle is dropped.
/// In both cases the queued records are written first.
#[derive(Debug, Clone)]
pub struct AuditLog {
    queue: mpsc::Sender<Item>,
    shared: Arc<Shared>,
    durable: watch::Receiver<u64>,
    pruned: watch::Receiver<u64>,
    checkpoints: watch::Receiver<Option<Arc<str>>>,
    id: LogId,
    begin: LogStart,
}

impl AuditLog {
    /// Opens the log in `dir`, or creates one there, and starts its writer. Numbering continues after the last
    /// record. An unfinished write at the end is cut off and recorded. Requests that a previous daemon did not
    /// finish get an outcome (`interrupted`). Files that were changed since a daemon wrote them stay unchanged, and
    /// the change is recorded.
    ///
    /// # Errors
    /// [`AuditError::Locked`] if another process has the log open; [`AuditError::Io`].
    pub fn open(dir: &PrivateDir, settings: Settings) -> Result<AuditLog, AuditError> {
        AuditLog::open_sized(dir, settings, SEGMENT_BYTES)
    }

    /// As [`AuditLog::open`], with segments of about `segment_bytes`.
    ///
    /// # Errors
    /// As [`AuditLog::open`].
    pub fn open_sized(
        dir: &PrivateDir,
        settings: Settings,
        segment_bytes: u64,
    ) -> Result<AuditLog, AuditError> {
        let Settings { clock, signer, fresh, known, durability, retention, reserve } = settings;
        let lock = segment::lock(dir.path())?;
        let resumed = recover::recover(dir.path(), &signer, known.as_ref(), fresh)?;
        let id = resumed.log;
        let signer = Arc::new(signer);
        let key = format!("{}\n", signer.verifier(id));
        segment::replace_file(&segment::key_path(dir.path()), key.as_bytes())?;
        let state = |tree: &Tree, prev| {
            let (tree, time) = (tree.clone(), clock.now());
            Checkpoint { log: id, time, tree, prev, ended: false }
        };
        let resumed_state = state(&resumed.tree, resumed.prev);
        let head = || signer.sign(&resumed_state);
        let mut segments = Segments::open(dir, lock, resumed.place, segment_bytes, &head)?;
        let mut unfinished = unfinished::find(dir.path(), &signer, resumed.place)?;
        let begin = LogStart { segment: segments.number(), after: resumed.tree.size() };
        let (mut tree, mut prev) = (resumed.tree, resumed.prev);
        if let Some(first) = resumed.unsigned {
            // Outcomes of unsigned decisions are written before the alert and counted with the unsigned records.
            let at = unfinished.partition_point(|(seq, _)| *seq < first);
            let resting: Vec<Record> =
                unfinished.split_off(at).into_iter().map(|(_, decided)| decided.interrupted()).collect();
            let last = tree.size() + resting.len() as u64;
            tracing::warn!(
                first,
                last,
                "the last records of the audit log were unsigned when the daemon ended"
            );
            let mut lines = Vec::new();
            for record in resting.iter().chain([&Record::unsigned(first, last)]) {
                let hash = encode::encode(clock.now(), tree.size() + 1, prev, record, &mut lines);
                tree.push(hash);
                prev = Link::of(&hash);
            }
            segments.append_here(&lines, &head)?;
        }
        // A checkpoint is on disk before the first record, and it does not state that the log has ended.
        let (notes, checkpoints) = watch::channel(None);
        let publisher = Publisher::start(dir.path(), Arc::clone(&signer), notes)?;
        publisher.publish_now(state(&tree, prev))?;
        segment::sync_directory(dir.path())?;
        let last_seq = tree.size();
        let (queue, items) = mpsc::channel();
        let (durable_tx, durable) = watch::channel(last_seq);
        let (pruned_tx, pruned) = watch::channel(0);
        let shared = Arc::new(Shared { reserve, ..Shared::default() });
        shared.check_free_space(dir.path());
        let log = AuditLog { queue, shared: shared.clone(), durable, pruned, checkpoints, id, begin };
        for (code, count) in resumed.events {
            tracing::warn!(code, count, "the audit log differs from the state that the previous daemon left");
            log.outcome(Record::about_log(code, count));
        }
        for (_, decided) in unfinished {
            log.outcome(decided.interrupted());
        }
        let alerts = Alerts::start().map_err(AuditError::io(dir.path(), "start the alerts of"))?;
        let writer = Writer {
            alerts,
            dir: dir.path().to_owned(),
            items,
            waiting: VecDeque::new(),
            segments,
            clock,
            shared,
            durable_tx,
            pruned: pruned_tx,
            log: id,
            signer,
            publisher,
            tree,
            prev,
            durability,
            retention,
            refused: 0,
            batch_decisions: 0,
            maintenance: Maintenance::new(last_seq),
        };
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run())
            .map_err(AuditError::io(dir.path(), "start the writer of"))?;
        Ok(log)
    }

    /// The id of this log.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// The point at which this daemon continued the log.
    pub fn start(&self) -> LogStart {
        self.begin
    }

    /// Writes a decision (or an alert, or a refusal) and returns once it is written according to the log's
    /// [`Durability`](super::Durability). If the caller drops the future, the record is still written.
    ///
    /// # Errors
    /// [`AuditError::Io`], [`AuditError::Overloaded`], [`AuditError::Slow`], [`AuditError::Closed`]. The record is
    /// not on disk, or this is unknown, so the caller must let nothing through. The log recovers without help, and
    /// the next call may succeed.
    pub async fn decision(&self, record: Record) -> Result<Durable, AuditError> {
        let queued = self.shared.queued.load(Ordering::Relaxed);
        if queued >= QUEUE_CAPACITY / 2 {
            return Err(AuditError::Overloaded { queued });
        }
        let (ack, done) = oneshot::channel();
        self.enqueue(Item::Decision(Box::new(record), ack))?;
        match tokio::time::timeout(DECISION_TIMEOUT, done).await {
            Ok(done) => done.map_err(|_| AuditError::Closed)?,
            Err(_) => Err(AuditError::Slow { waited: DECISION_TIMEOUT }),
        }
    }

    /// Queues a record that no caller waits for; never blocks. It is written soon, and stays queued if the disk
    /// fails. Decisions are refused long before the queue is full, so it fills up only if more than 8192 requests
    /// end while the disk fails. Records beyond that are counted, and the count is written as an alert
    /// (`audit_lost`) when the disk works again.
    pub fn outcome(&self, record: Record) {
        let full = self.shared.queued.load(Ordering::Relaxed) >= QUEUE_CAPACITY;
        if full {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        } else if let Err(error) = self.enqueue(Item::Outcome(Box::new(record))) {
            tracing::error!(%error, "an outcome is missing from the audit log");
        }
    }

    /// Returns once everything queued before is on disk.
    ///
    /// # Errors
    /// As [`AuditLog::decision`]. Outcomes still stay queued.
    pub async fn flush(&self) -> Result<(), AuditError> {
        let (ack, done) = oneshot::channel();
        self.enqueue(Item::Flush(ack))?;
        done.await.map_err(|_| AuditError::Closed)?
    }

    /// Writes everything queued, ends the log and releases its lock. Later calls on any handle return
    /// [`AuditError::Closed`].
    ///
    /// # Errors
    /// As [`AuditLog::decision`]; the log then stays open.
    pub async fn close(&self) -> Result<(), AuditError> {
        let (ack, done) = oneshot::channel();
        self.enqueue(Item::Close(ack))?;
        done.await.map_err(|_| AuditError::Closed)?
    }

    /// Reports whether the last write succeeded.
    pub fn healthy(&self) -> bool {
        self.shared.fault.borrow().is_none()
    }

    /// Reports whether the log's file system has less free space than the reserve. The writer checks about once a
    /// second.
    pub fn space_is_scarce(&self) -> bool {
        self.shared.scarce.load(Ordering::Relaxed)
    }

    /// The reason why the last write failed; `None` if no write has failed or a later one succeeded.
    pub fn fault(&self) -> watch::Receiver<Option<AuditError>> {
        self.shared.fault.subscribe()
    }

    /// The sequence number of the last record on disk, as it grows.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }

    /// The number of the last record that retention has removed since the log was opened; 0 if there is none. It
    /// does not come from a line of the log, which an attacker could have written.
    pub fn pruned(&self) -> watch::Receiver<u64> {
        self.pruned.clone()
    }

    /// The last signed checkpoint (a C2SP signed note). It follows the records that it covers by at most a second
    /// or two.
    pub fn checkpoints(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.checkpoints.clone()
    }

    fn enqueue(&self, item: Item) -> Result<(), AuditError> {
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        self.queue.send(item).map_err(|_| {
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            AuditError::Closed
        })
    }
}
