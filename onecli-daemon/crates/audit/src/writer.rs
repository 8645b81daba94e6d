//! The thread that writes. Records that arrive while a write is under way go into the next one together (group commit),
//! so that the disk's latency is paid once for many.

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
use super::encode::{self, Link};
use super::error::AuditError;
use super::log::{Durability, Durable, Item, Shared};
use super::publish::Publisher;
use super::record::Record;
use super::retention::{self, Expired, Retention};
use super::segment::Segments;
use super::tree::Tree;

/// The most records in one write: what came while the one before was written, and what is gathered.
const BATCH: usize = 256;
/// Where so many decisions came with the last write that waited for the disk, the next one waits for more of them: each sync
/// costs the processors too, and where there is a crowd they are what it waits for. Who is alone waits for nobody.
const CROWD: usize = 4;
/// It waits for so many, so that enough of the crowd is left to keep the processors busy meanwhile,
const ENOUGH: usize = 12;
/// as long as one or more come in each such time,
const QUANTUM: Duration = Duration::from_micros(100);
/// and so long at most. Outcomes, which nobody waits for, wait so long for a decision to be written with.
const GATHERING: Duration = Duration::from_millis(2);
/// How long after a failed write the waiting outcomes are tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How long after a record it may take until a checkpoint covers it, and, with relaxed durability, until it is synced.
const PERIOD: Duration = Duration::from_secs(1);
/// How often a sync, or a look at old segments, is looked after while it is under way.
const SYNCING: Duration = Duration::from_millis(10);
/// How often old segments are looked for, besides each time that a segment begins.
const PRUNING: Duration = Duration::from_hours(1);

/// Code of the record that tells of outcomes lost while the disk failed; its count is in records.
const CODE_LOST: &str = "audit_lost";
/// Code of the record that tells of decisions refused while the disk failed; its count is in records.
const CODE_REFUSED: &str = "audit_refused";
/// Code of the record that tells of records that a relaxed log said were written and that the disk then failed to sync:
/// a power failure may have lost them. Its count is in records.
const CODE_UNSYNCED: &str = "audit_unsynced";

/// The state of the writer's thread.
pub(super) struct Writer {
    pub(super) dir: PathBuf,
    pub(super) items: mpsc::Receiver<Item>,
    /// Taken from the channel, not yet written. After a failure only outcomes are left here.
    pub(super) waiting: VecDeque<Item>,
    pub(super) segments: Segments,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) shared: Arc<Shared>,
    pub(super) told: watch::Sender<u64>,
    /// Up to which record this writer has removed segments.
    pub(super) pruned: watch::Sender<u64>,
    pub(super) log: LogId,
    pub(super) signer: Arc<Signer>,
    pub(super) publisher: Publisher,
    /// Reports alerts in the daemon's own log.
    pub(super) alerts: Alerts,
    /// All records so far.
    pub(super) tree: Tree,
    pub(super) prev: Link,
    pub(super) durability: Durability,
    pub(super) retention: Retention,
    /// Decisions that could not be written since the last write. Writing of them is also how the disk's return
    /// is noticed.
    pub(super) refused: u64,
    /// Decisions in the last write.
    pub(super) company: usize,
    pub(super) upkeep: Upkeep,
}

/// What is done now and then.
#[derive(Debug)]
pub(super) struct Upkeep {
    /// When it is due; `None` while there is nothing to do.
    due: Option<Instant>,
    /// The state that the next checkpoint covers, once it is synced.
    fresh: Option<Checkpoint>,
    /// A sync, and up to which number records are on the disk then.
    syncing: Background<std::io::Result<u64>>,
    /// The number up to which records are on the disk.
    synced: u64,
    /// A sync failed: each write waits for the disk until one succeeds.
    failed: Option<u64>,
    /// When old segments are looked for, and in which segment they were last.
    prune: Option<(Instant, u64)>,
    looking: Background<Result<Expired, AuditError>>,
    /// A segment that is kept although it should go, once that is on record.
    kept: Option<u64>,
}

impl Upkeep {
    pub(super) fn new(synced: u64) -> Upkeep {
        Upkeep {
            due: None,
            fresh: None,
            syncing: Background::default(),
            synced,
            failed: None,
            prune: None,
            looking: Background::default(),
            kept: None,
        }
    }
}

impl Upkeep {
    /// How long there is nothing to do but to write; `None`: for ever.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let due = self.due.map(|due| due.saturating_duration_since(now));
        let looking = self.looking.is_running().then_some(SYNCING);
        due.into_iter().chain(looking).min()
    }
}

impl Writer {
    pub(super) fn run(mut self) {
        loop {
            let open = self.receive();
            if let Err(error) = self.commit() {
                self.fail(&error);
            }
            self.keep_up();
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
        self.end();
    }

    fn end(mut self) {
        if let Err(error) = self.segments.finish() {
            tracing::error!(%error, "the audit log could not be finished");
        } else if self.healthy() {
            self.publisher.publish(Checkpoint { ended: true, ..self.checkpoint(self.clock.now()) });
            self.told.send_if_modified(|seq| std::mem::replace(seq, self.tree.size()) != self.tree.size());
        }
        let Writer { segments, mut waiting, publisher, alerts, .. } = self;
        // Waits until the last checkpoint is in its place.
        drop(publisher);
        drop(alerts);
        drop(segments);
        if let Some(Item::Close(ack)) = waiting.pop_front() {
            let _ = ack.send(Ok(()));
        }
    }

    /// Waits for something to write and takes what is there; false once every handle is gone.
    fn receive(&mut self) -> bool {
        let wait = match (self.waiting.is_empty(), self.healthy()) {
            (_, false) => Some(RETRY),
            (false, true) => Some(Duration::ZERO),
            (true, true) => self.upkeep.wait(self.clock.instant()),
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

    /// Takes what is there.
    fn take(&mut self) {
        while self.waiting.len() < BATCH {
            match self.items.try_recv() {
                Ok(item) => self.waiting.push_back(item),
                Err(_) => break,
            }
        }
    }

    /// Waits for more to come, where that makes fewer writes and syncs, and delays nobody by more than [`GATHERING`].
    fn gather(&mut self) {
        let start = self.clock.instant();
        let left = |clock: &dyn Clock| GATHERING.saturating_sub(clock.instant().duration_since(start));
        while self.waiting.iter().all(|item| matches!(item, Item::Outcome(_))) && self.waiting.len() < BATCH {
            match self.items.recv_timeout(left(&*self.clock)) {
                Ok(item) => self.waiting.push_back(item),
                Err(_) => return,
            }
            self.take();
        }
        let mut before = self.decisions();
        while self.company >= CROWD
            && self.durability == Durability::Strict
            && before < ENOUGH
            && !left(&*self.clock).is_zero()
            && !self.waiting.iter().any(|item| matches!(item, Item::Flush(_) | Item::Close(_)))
        {
            std::thread::sleep(QUANTUM);
            self.take();
            let now = self.decisions();
            if now == before {
                break;
            }
            before = now;
        }
    }

    /// Decisions that wait.
    fn decisions(&self) -> usize {
        self.waiting.iter().filter(|item| matches!(item, Item::Decision(..))).count()
    }

    fn checkpoint(&self, time: Timestamp) -> Checkpoint {
        Checkpoint { log: self.log, time, tree: self.tree.clone(), prev: self.prev, ended: false }
    }

    /// Does the write that comes wait for the disk?
    fn syncs(&self) -> bool {
        self.durability == Durability::Strict || self.upkeep.failed.is_some()
    }

    /// Writes one batch from the front of the queue, up to a request to close, and tells those who wait.
    fn commit(&mut self) -> Result<(), AuditError> {
        let size = self.waiting.iter().take(BATCH).take_while(|item| !matches!(item, Item::Close(_))).count();
        let lost = self.shared.lost.load(Ordering::Relaxed);
        let about_us = [
            (CODE_REFUSED, self.refused),
            (CODE_LOST, lost),
            (CODE_UNSYNCED, self.upkeep.failed.unwrap_or(0)),
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
            line(&Record::of_the_log(code, count));
        }
        if !lines.is_empty() {
            self.append(&lines, time)?;
            self.shared.lost.fetch_sub(lost, Ordering::Relaxed);
            self.refused = 0;
            self.upkeep.failed = None;
            self.shared.fault.send_if_modified(|fault| fault.take().is_some());
        }

        // Told first: who is answered below may look there.
        self.company = self.waiting.range(..size).filter(|item| matches!(item, Item::Decision(..))).count();
        let mut done = self.tree.size();
        if tree.size() > done {
            (self.tree, self.prev) = (tree, prev);
            if self.upkeep.synced == self.tree.size() {
                self.told.send_replace(self.tree.size());
            }
            self.upkeep.due.get_or_insert(self.clock.instant() + PERIOD);
        }
        let flushes = self.waiting.range(..size).any(|item| matches!(item, Item::Flush(_)));
        if flushes && self.upkeep.synced < self.tree.size() {
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
            self.alerts.raise(seq, &Record::of_the_log(code, count));
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
            self.upkeep.synced = self.tree.size() + records;
        }
        Ok(())
    }

    fn sync_now(&mut self) -> Result<(), AuditError> {
        if let Some(file) = self.segments.handle()
            && let Err(error) = file.and_then(|file| file.sync_data())
        {
            self.upkeep.failed = Some(self.tree.size() - self.upkeep.synced);
            return Err(AuditError::io(&self.dir, "sync the last segment of")(error));
        }
        self.upkeep.synced = self.tree.size();
        self.told.send_replace(self.tree.size());
        Ok(())
    }

    /// Syncs, signs and prunes when it is time.
    fn keep_up(&mut self) {
        if let Some(result) = self.upkeep.syncing.finished() {
            self.synced(result.flatten());
        }
        match self.upkeep.looking.finished() {
            Some(Ok(Ok(expired))) => {
                self.tell_of_kept(expired.kept);
                if !expired.is_empty() {
                    self.remove(&expired);
                }
            }
            Some(Ok(Err(error))) => tracing::error!(%error, "old audit segments cannot be looked for"),
            Some(Err(error)) => tracing::error!(%error, "old audit segments cannot be looked for"),
            None => {}
        }
        let now = self.clock.instant();
        if self.upkeep.due.is_none_or(|due| due > now) || !self.healthy() {
            return;
        }
        if self.upkeep.synced == self.tree.size() {
            self.publisher.publish(self.checkpoint(self.clock.now()));
            self.upkeep.due = None;
            self.shared.look_at_space(&self.dir);
            self.look_for_old(now);
            return;
        }
        if !self.upkeep.syncing.is_running() {
            self.upkeep.fresh = Some(self.checkpoint(self.clock.now()));
            let started = match self.segments.handle() {
                Some(file) => file.and_then(|file| {
                    let seq = self.tree.size();
                    self.upkeep.syncing.start("audit-sync", move || file.sync_data().map(|()| seq))
                }),
                None => Ok(()),
            };
            if let Err(error) = started {
                self.synced(Err(error));
            }
        }
        self.upkeep.due = Some(now + SYNCING);
    }

    /// Notes what came of a sync in the background.
    fn synced(&mut self, result: std::io::Result<u64>) {
        match result {
            Ok(seq) => {
                self.upkeep.synced = self.upkeep.synced.max(seq);
                self.told.send_replace(self.upkeep.synced);
                if let Some(checkpoint) = self.upkeep.fresh.take() {
                    self.publisher.publish(checkpoint);
                }
                let more = self.upkeep.synced < self.tree.size();
                self.upkeep.due = Some(self.clock.instant() + if more { PERIOD } else { Duration::ZERO });
            }
            Err(error) => {
                self.upkeep.failed = Some(self.tree.size() - self.upkeep.synced);
                let error = AuditError::io(&self.dir, "sync the last segment of")(error);
                self.fail(&error);
            }
        }
    }

    /// Looks for segments that are older, or more, than is kept, beside the writing: what is to go is read once more.
    fn look_for_old(&mut self, now: Instant) {
        let number = self.segments.number();
        let nothing = self.retention == Retention::default() || self.upkeep.looking.is_running();
        if nothing || self.upkeep.prune.is_some_and(|(due, last)| now < due && last == number) {
            return;
        }
        self.upkeep.prune = Some((now + PRUNING, number));
        let (dir, retention, time, log) = (self.dir.clone(), self.retention, self.clock.now(), self.log);
        let signer = Arc::clone(&self.signer);
        let look = move || retention::expired(&dir, &retention, time, log, &signer);
        if let Err(error) = self.upkeep.looking.start("audit-old", look) {
            tracing::error!(%error, "old audit segments cannot be looked for");
        }
    }

    /// Records, once, that nothing goes any more: the disk will fill up.
    fn tell_of_kept(&mut self, kept: Option<u64>) {
        if let Some(segment) = kept
            && self.upkeep.kept != kept
        {
            tracing::error!(
                segment,
                "an old audit segment is not as it was signed: it and all later ones are kept"
            );
            self.shared.queued.fetch_add(1, Ordering::Relaxed);
            let record = Record::of_the_log(retention::CODE_KEPT, segment);
            self.waiting.push_back(Item::Outcome(Box::new(record)));
        }
        self.upkeep.kept = kept;
    }

    /// Takes away what was found; that it goes is on record, and signed for, before it does.
    fn remove(&mut self, expired: &Expired) {
        let mut record = Record::of_the_log(retention::CODE_PRUNED, expired.through);
        record.event = super::record::Event::Outcome;
        let mut lines = Vec::new();
        let hash = encode::encode(self.clock.now(), self.tree.size() + 1, self.prev, &record, &mut lines);
        let written = self.append(&lines, self.clock.now()).and_then(|()| {
            self.tree.push(hash);
            self.prev = Link::of(&hash);
            self.sync_now()
        });
        // An older state, of a sync that is under way, must not come after it.
        self.upkeep.fresh = None;
        match written.and_then(|()| self.publisher.publish_now(self.checkpoint(self.clock.now()))) {
            Ok(()) => {
                if let Err(error) = expired.remove(&self.dir) {
                    tracing::error!(%error, "an old audit segment cannot be removed");
                }
                self.pruned.send_if_modified(|seq| std::mem::replace(seq, expired.through.max(*seq)) < *seq);
            }
            // The next write finds out whether it lasts.
            Err(error) => tracing::error!(%error, "old audit segments are kept"),
        }
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
