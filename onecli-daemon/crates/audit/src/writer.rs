//! The writer thread. Records that arrive during a write go into the next write together (group commit), so that
//! many records share the disk's latency.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use onecli_model::{Clock, LogId};
use tokio::sync::watch;

use super::alerts::Alerts;
use super::background::Background;
use super::checkpoint::{Checkpoint, Signer};
use super::codes::{CODE_LOST, CODE_PRUNED, CODE_REFUSED, CODE_SEGMENT_DIFFERS, CODE_UNSYNCED};
use super::encode;
use super::error::AuditError;
use super::fields::Record;
use super::link::Link;
use super::publish::Publisher;
use super::queue::{Durable, Item, Shared};
use super::retention::{self, Expired, Retention};
use super::segment::Segments;
use super::settings::Durability;
use super::tree::Tree;

/// The most records in one write: those that arrived during the previous write, and those gathered since.
const MAX_BATCH: usize = 256;
/// If the last synchronous write had this many decisions, the next one waits for more of them. Each sync also costs
/// processor time, which is the bottleneck under load. A single caller never waits for others.
const GATHER_FROM: usize = 4;
/// The number of decisions that such a write waits for. It leaves enough callers running to use the processors
/// meanwhile.
const GATHER_TARGET: usize = 12;
/// The wait continues while at least one decision arrives in each such interval.
const GATHER_STEP: Duration = Duration::from_micros(100);
/// The upper bound of that wait. Outcomes, which no caller waits for, wait this long for a decision to share a
/// write with.
const GATHER_TIMEOUT: Duration = Duration::from_millis(2);
/// The interval after which outcomes are retried when a write failed.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// The longest time until a checkpoint covers a record and, with relaxed durability, until the record is synced.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// The interval at which a running sync, or a running search for old segments, is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// The interval at which old segments are searched for. Each new segment also starts a search.
const PRUNE_INTERVAL: Duration = Duration::from_hours(1);

/// The state of the writer thread.
pub(super) struct Writer {
    pub(super) dir: PathBuf,
    pub(super) items: mpsc::Receiver<Item>,
    /// Items received from the channel and not yet written. After a failure only outcomes remain here.
    pub(super) waiting: VecDeque<Item>,
    pub(super) segments: Segments,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) shared: Arc<Shared>,
    pub(super) durable_tx: watch::Sender<u64>,
    /// The number of the last record that this writer has removed with its segment.
    pub(super) pruned: watch::Sender<u64>,
    pub(super) log: LogId,
    pub(super) signer: Arc<Signer>,
    pub(super) publisher: Publisher,
    /// Reports alerts in the daemon's own log.
    pub(super) alerts: Alerts,
    /// The tree of all records so far.
    pub(super) tree: Tree,
    pub(super) prev: Link,
    pub(super) durability: Durability,
    pub(super) retention: Retention,
    /// The number of decisions refused since the last successful write. Writing this count is also how the writer
    /// notices that the disk works again.
    pub(super) refused: u64,
    /// The number of decisions in the last write.
    pub(super) batch_decisions: usize,
    pub(super) maintenance: Maintenance,
}

/// Periodic maintenance of the log.
#[derive(Debug)]
pub(super) struct Maintenance {
    /// The time at which maintenance is due; `None` if there is nothing to do.
    due: Option<Instant>,
    /// The state that the next checkpoint covers, once it is synced.
    fresh: Option<Checkpoint>,
    /// A running sync. It returns the number of the last record that it puts on disk.
    syncing: Background<std::io::Result<u64>>,
    /// The number of the last record on disk.
    synced: u64,
    /// Set if a sync failed: each write is then synchronous until one succeeds.
    failed: Option<u64>,
    /// The time of the next search for old segments, and the current segment at the last search.
    prune: Option<(Instant, u64)>,
    expiry_search: Background<Result<Expired, AuditError>>,
    /// An expired segment that was not removed, once that is recorded.
    kept: Option<u64>,
}

impl Maintenance {
    pub(super) fn new(synced: u64) -> Maintenance {
        Maintenance {
            due: None,
            fresh: None,
            syncing: Background::default(),
            synced,
            failed: None,
            prune: None,
            expiry_search: Background::default(),
            kept: None,
        }
    }
}

impl Maintenance {
    /// How long the writer may wait for records only; `None` if without limit.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let due = self.due.map(|due| due.saturating_duration_since(now));
        let expiry_search = self.expiry_search.is_running().then_some(POLL_INTERVAL);
        due.into_iter().chain(expiry_search).min()
    }
}

impl Writer {
    pub(super) fn run(mut self) {
        loop {
            let open = self.receive();
            if let Err(error) = self.commit() {
                self.fail(&error);
            }
            self.maintain();
            let closing = matches!(self.waiting.front(), Some(Item::Close(_)));
            if closing || (!open && self.waiting.is_empty()) {
                break;
            }
            if !open && !self.healthy() {
                tracing::error!(
                    records = self.waiting.len(),
                    "audit records could not be written before the daemon ended"
                );
                break;
            }
        }
        self.end();
    }

    fn end(mut self) {
        if let Err(error) = self.segments.finish() {
            tracing::error!(%error, "the audit log could not be closed cleanly");
        } else if self.healthy() {
            self.publisher.publish(Checkpoint { ended: true, ..self.checkpoint(self.clock.now()) });
            self.durable_tx
                .send_if_modified(|seq| std::mem::replace(seq, self.tree.size()) != self.tree.size());
        }
        let Writer { segments, mut waiting, publisher, alerts, .. } = self;
        // Waits until the last checkpoint is written.
        drop(publisher);
        drop(alerts);
        drop(segments);
        if let Some(Item::Close(ack)) = waiting.pop_front() {
            let _ = ack.send(Ok(()));
        }
    }

    /// Waits for items to write and receives all that are queued. Returns false once every handle is dropped.
    fn receive(&mut self) -> bool {
        let wait = match (self.waiting.is_empty(), self.healthy()) {
            (_, false) => Some(RETRY_INTERVAL),
            (false, true) => Some(Duration::ZERO),
            (true, true) => self.maintenance.wait(self.clock.instant()),
        };
        let first = match wait {
            None => self.items.recv().map_err(RecvTimeoutError::from),
            Some(wait) => self.items.recv_timeout(wait),
        };
        match first {
            Ok(item) => self.waiting.push_back(item),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        self.take();
        if self.healthy() {
            self.gather();
        }
        true
    }

    /// Receives the items that are queued.
    fn take(&mut self) {
        while self.waiting.len() < MAX_BATCH {
            match self.items.try_recv() {
                Ok(item) => self.waiting.push_back(item),
                Err(_) => break,
            }
        }
    }

    /// Waits for more items if that saves writes and syncs. Delays no caller by more than [`GATHER_TIMEOUT`].
    fn gather(&mut self) {
        let start = self.clock.instant();
        let left = |clock: &dyn Clock| GATHER_TIMEOUT.saturating_sub(clock.instant().duration_since(start));
        while self.waiting.iter().all(|item| matches!(item, Item::Outcome(_)))
            && self.waiting.len() < MAX_BATCH
        {
            match self.items.recv_timeout(left(&*self.clock)) {
                Ok(item) => self.waiting.push_back(item),
                Err(_) => return,
            }
            self.take();
        }
        let mut before = self.decisions();
        while self.batch_decisions >= GATHER_FROM
            && self.durability == Durability::Strict
            && before < GATHER_TARGET
            && !left(&*self.clock).is_zero()
            && !self.waiting.iter().any(|item| matches!(item, Item::Flush(_) | Item::Close(_)))
        {
            std::thread::sleep(GATHER_STEP);
            self.take();
            let now = self.decisions();
            if now == before {
                break;
            }
            before = now;
        }
    }

    /// The number of waiting decisions.
    fn decisions(&self) -> usize {
        self.waiting.iter().filter(|item| matches!(item, Item::Decision(..))).count()
    }

    fn checkpoint(&self, time: Timestamp) -> Checkpoint {
        Checkpoint { log: self.log, time, tree: self.tree.clone(), prev: self.prev, ended: false }
    }

    /// Reports whether the next write is synchronous.
    fn syncs(&self) -> bool {
        self.durability == Durability::Strict || self.maintenance.failed.is_some()
    }

    /// Writes one batch from the front of the queue, up to a request to close, and notifies the waiting callers.
    fn commit(&mut self) -> Result<(), AuditError> {
        let size =
            self.waiting.iter().take(MAX_BATCH).take_while(|item| !matches!(item, Item::Close(_))).count();
        let lost = self.shared.lost.load(Ordering::Relaxed);
        let about_us = [
            (CODE_REFUSED, self.refused),
            (CODE_LOST, lost),
            (CODE_UNSYNCED, self.maintenance.failed.unwrap_or(0)),
        ];

        let time = self.clock.now();
        let (mut tree, mut prev) = (self.tree.clone(), self.prev);
        let mut lines = Vec::with_capacity(size * 512);
        let mut line = |record: &Record| {
            let hash = encode::encode(time, tree.size() + 1, prev, record, &mut lines);
            tree.push(hash);
            prev = Link::of(&hash);
        };
        for item in self.waiting.range(..size) {
            match item {
                Item::Decision(record, _) | Item::Outcome(record) => line(record),
                Item::Flush(_) | Item::Close(_) => {}
            }
        }
        for (code, count) in about_us.into_iter().filter(|(_, count)| *count > 0) {
            line(&Record::about_log(code, count));
        }
        if !lines.is_empty() {
            self.append(&lines, time)?;
            self.shared.lost.fetch_sub(lost, Ordering::Relaxed);
            self.refused = 0;
            self.maintenance.failed = None;
            self.shared.fault.send_if_modified(|fault| fault.take().is_some());
        }

        // The number of the last durable record is published first, because a caller that is answered below may
        // read it.
        self.batch_decisions =
            self.waiting.range(..size).filter(|item| matches!(item, Item::Decision(..))).count();
        let mut done = self.tree.size();
        if tree.size() > done {
            (self.tree, self.prev) = (tree, prev);
            if self.maintenance.synced == self.tree.size() {
                self.durable_tx.send_replace(self.tree.size());
            }
            self.maintenance.due.get_or_insert(self.clock.instant() + CHECKPOINT_INTERVAL);
        }
        let flushes = self.waiting.range(..size).any(|item| matches!(item, Item::Flush(_)));
        if flushes && self.maintenance.synced < self.tree.size() {
            self.sync_now()?;
        }
        for item in self.waiting.drain(..size) {
            match item {
                Item::Decision(record, ack) => {
                    done += 1;
                    let _ = ack.send(Ok(Durable::new(done)));
                    self.alerts.raise(done, &record);
                }
                Item::Outcome(record) => {
                    done += 1;
                    self.alerts.raise(done, &record);
                }
                Item::Flush(ack) | Item::Close(ack) => {
                    let _ = ack.send(Ok(()));
                }
            }
        }
        for ((code, count), seq) in about_us.into_iter().filter(|(_, count)| *count > 0).zip(done + 1..) {
            self.alerts.raise(seq, &Record::about_log(code, count));
        }
        self.shared.queued.fetch_sub(size, Ordering::Relaxed);
        Ok(())
    }

    fn append(&mut self, lines: &[u8], time: Timestamp) -> Result<(), AuditError> {
        let sync = self.syncs();
        let before = self.checkpoint(time);
        let signer = Arc::clone(&self.signer);
        self.segments.append(lines, sync, &|| signer.sign(&before))?;
        let records = memchr::memchr_iter(b'\n', lines).count() as u64;
        if sync {
            self.maintenance.synced = self.tree.size() + records;
        }
        Ok(())
    }

    fn sync_now(&mut self) -> Result<(), AuditError> {
        if let Some(file) = self.segments.handle()
            && let Err(error) = file.and_then(|file| file.sync_data())
        {
            self.maintenance.failed = Some(self.tree.size() - self.maintenance.synced);
            return Err(AuditError::io(&self.dir, "sync the last segment of")(error));
        }
        self.maintenance.synced = self.tree.size();
        self.durable_tx.send_replace(self.tree.size());
        Ok(())
    }

    /// Syncs, signs and prunes when it is due.
    fn maintain(&mut self) {
        if let Some(result) = self.maintenance.syncing.finished() {
            self.synced(result.flatten());
        }
        match self.maintenance.expiry_search.finished() {
            Some(Ok(Ok(expired))) => {
                self.record_unremovable(expired.kept);
                if !expired.is_empty() {
                    self.remove(&expired);
                }
            }
            Some(Ok(Err(error))) => tracing::error!(%error, "cannot search for old audit segments"),
            Some(Err(error)) => tracing::error!(%error, "cannot search for old audit segments"),
            None => {}
        }
        let now = self.clock.instant();
        if self.maintenance.due.is_none_or(|due| due > now) || !self.healthy() {
            return;
        }
        if self.maintenance.synced == self.tree.size() {
            self.publisher.publish(self.checkpoint(self.clock.now()));
            self.maintenance.due = None;
            self.shared.check_free_space(&self.dir);
            self.search_expired(now);
            return;
        }
        if !self.maintenance.syncing.is_running() {
            self.maintenance.fresh = Some(self.checkpoint(self.clock.now()));
            let started = match self.segments.handle() {
                Some(file) => file.and_then(|file| {
                    let seq = self.tree.size();
                    self.maintenance.syncing.start("audit-sync", move || file.sync_data().map(|()| seq))
                }),
                None => Ok(()),
            };
            if let Err(error) = started {
                self.synced(Err(error));
            }
        }
        self.maintenance.due = Some(now + POLL_INTERVAL);
    }

    /// Handles the result of a background sync.
    fn synced(&mut self, result: std::io::Result<u64>) {
        match result {
            Ok(seq) => {
                self.maintenance.synced = self.maintenance.synced.max(seq);
                self.durable_tx.send_replace(self.maintenance.synced);
                if let Some(checkpoint) = self.maintenance.fresh.take() {
                    self.publisher.publish(checkpoint);
                }
                let more = self.maintenance.synced < self.tree.size();
                self.maintenance.due =
                    Some(self.clock.instant() + if more { CHECKPOINT_INTERVAL } else { Duration::ZERO });
            }
            Err(error) => {
                self.maintenance.failed = Some(self.tree.size() - self.maintenance.synced);
                let error = AuditError::io(&self.dir, "sync the last segment of")(error);
                self.fail(&error);
            }
        }
    }

    /// Searches for segments that exceed the retention's age or size. The search runs in the background because it
    /// reads the expired segments once more.
    fn search_expired(&mut self, now: Instant) {
        let number = self.segments.number();
        let nothing = self.retention == Retention::default() || self.maintenance.expiry_search.is_running();
        if nothing || self.maintenance.prune.is_some_and(|(due, last)| now < due && last == number) {
            return;
        }
        self.maintenance.prune = Some((now + PRUNE_INTERVAL, number));
        let (dir, retention, time, log) = (self.dir.clone(), self.retention, self.clock.now(), self.log);
        let signer = Arc::clone(&self.signer);
        let look = move || retention::expired(&dir, &retention, time, log, &signer);
        if let Err(error) = self.maintenance.expiry_search.start("audit-old", look) {
            tracing::error!(%error, "cannot search for old audit segments");
        }
    }

    /// Records, once per segment, that pruning has stopped: the disk will fill up.
    fn record_unremovable(&mut self, kept: Option<u64>) {
        if let Some(segment) = kept
            && self.maintenance.kept != kept
        {
            tracing::error!(
                segment,
                "an old audit segment differs from what was signed: it and all later ones are retained"
            );
            self.shared.queued.fetch_add(1, Ordering::Relaxed);
            let record = Record::about_log(CODE_SEGMENT_DIFFERS, segment);
            self.waiting.push_back(Item::Outcome(Box::new(record)));
        }
        self.maintenance.kept = kept;
    }

    /// Removes the expired segments. A signed record of the removal is on disk first.
    fn remove(&mut self, expired: &Expired) {
        let mut record = Record::about_log(CODE_PRUNED, expired.through);
        record.event = super::record::Event::Outcome;
        let mut lines = Vec::new();
        let hash = encode::encode(self.clock.now(), self.tree.size() + 1, self.prev, &record, &mut lines);
        let written = self.append(&lines, self.clock.now()).and_then(|()| {
            self.tree.push(hash);
            self.prev = Link::of(&hash);
            self.sync_now()
        });
        // The state of an older sync that is still running must not be published after this one.
        self.maintenance.fresh = None;
        match written.and_then(|()| self.publisher.publish_now(self.checkpoint(self.clock.now()))) {
            Ok(()) => {
                if let Err(error) = expired.remove(&self.dir) {
                    tracing::error!(%error, "an old audit segment cannot be removed");
                }
                self.pruned.send_if_modified(|seq| std::mem::replace(seq, expired.through.max(*seq)) < *seq);
            }
            // The next write shows whether the fault persists.
            Err(error) => tracing::error!(%error, "old audit segments are retained"),
        }
    }

    /// Notifies all waiting callers that the write failed. Outcomes stay queued for the next attempt.
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
