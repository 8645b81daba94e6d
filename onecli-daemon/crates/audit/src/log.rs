//! The handle that everybody else has of the log: records go in, proofs come out.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use onecli_model::{Clock, LogId};
use onecli_sys::PrivateDir;
use tokio::sync::{oneshot, watch};

use super::alerts::Alerts;
use super::checkpoint::{Checkpoint, Signer};
use super::encode::{self, Link};
use super::error::AuditError;
use super::orphans;
use super::publish::Publisher;
use super::reader::Position;
use super::record::Record;
use super::recover;
use super::retention::Retention;
use super::segment::{self, SEGMENT_BYTES, Segments};
use super::tree::Tree;
use super::writer::{Upkeep, Writer};

/// The most records that wait in memory. From half of it on, decisions are refused, so that the rest is kept for
/// the outcomes of requests that are under way.
const QUEUE: usize = 16_384;
/// How long a decision waits for a slow disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// When a record counts as written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once fdatasync(2) has returned: it outlives the daemon and the power.
    #[default]
    Strict,
    /// Once write(2) has: it outlives the daemon, even killed, but a power failure or a crash of the kernel can take
    /// the last second.
    Relaxed,
}

/// What a log is opened with.
#[derive(Debug)]
pub struct Settings {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Signs checkpoints.
    pub signer: Signer,
    /// The id of a log that has to be begun anew.
    pub fresh: LogId,
    /// The log that was written here last, as it is known from elsewhere than the directory.
    pub known: Option<Known>,
    /// When a record counts as written.
    pub durability: Durability,
    /// What is kept.
    pub retention: Retention,
    /// When less is free on the log's file system, in bytes, [`AuditLog::space_is_scarce`].
    pub reserve: u64,
}

/// What is known of a log from elsewhere than its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Which log it is.
    pub log: LogId,
    /// Its last record there: number and line.
    pub last: Option<(u64, String)>,
}

/// Where a log began to be written by this daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// The first segment that it writes to.
    pub segment: u64,
    /// The number of the last record before its own. What earlier segments have behind it is not part of the log.
    pub after: u64,
}

impl Begin {
    /// The beginning of that segment.
    pub fn position(&self) -> Position {
        Position::start_of(self.segment)
    }
}

/// Proof that a decision's record is written: on the disk, or, where the log is told to be relaxed, with the kernel, from
/// where it reaches the disk within about a second. Injection takes one.
#[derive(Debug)]
pub struct Durable {
    seq: u64,
}

impl Durable {
    pub(super) fn new(seq: u64) -> Durable {
        Durable { seq }
    }

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
    pruned: watch::Receiver<u64>,
    checkpoints: watch::Receiver<Option<Arc<str>>>,
    id: LogId,
    begin: Begin,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) queued: AtomicUsize,
    pub(super) lost: AtomicU64,
    /// Why the last write failed, if it did.
    pub(super) fault: watch::Sender<Option<AuditError>>,
    reserve: u64,
    scarce: AtomicBool,
}

impl Shared {
    /// Notes whether the file system is running out.
    pub(super) fn look_at_space(&self, dir: &Path) {
        if let Ok(found) = nix::sys::statvfs::statvfs(dir) {
            let free = found.blocks_available() * found.fragment_size();
            self.scarce.store(free < self.reserve, Ordering::Relaxed);
        }
    }
}

type Ack<T> = oneshot::Sender<Result<T, AuditError>>;

#[derive(Debug)]
pub(super) enum Item {
    Decision(Box<Record>, Ack<Durable>),
    Outcome(Box<Record>),
    Flush(Ack<()>),
    Close(Ack<()>),
}

impl AuditLog {
    /// Opens the log in `dir`, or begins one there, and starts its writer. Numbering goes on after the last record. An
    /// unfinished write at the end is cut off and told of in a record; requests that a former daemon did not live to
    /// finish get their outcome (`interrupted`). Files that are not as a daemon left them stay so, and are told of.
    ///
    /// # Errors
    /// [`AuditError::Locked`] where another process has it open; [`AuditError::Io`].
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
        let mut orphans = orphans::find(dir.path(), &signer, resumed.place)?;
        let begin = Begin { segment: segments.number(), after: resumed.tree.size() };
        let (mut tree, mut prev) = (resumed.tree, resumed.prev);
        if let Some(first) = resumed.unsigned {
            // What rests on records that nobody vouches for goes before the alert, and is counted with them.
            let at = orphans.partition_point(|(seq, _)| *seq < first);
            let resting: Vec<Record> =
                orphans.split_off(at).into_iter().map(|(_, decided)| decided.interrupted()).collect();
            let last = tree.size() + resting.len() as u64;
            tracing::warn!(
                first,
                last,
                "the audit log's last records were not signed for when the daemon ended"
            );
            let mut lines = Vec::new();
            for record in resting.iter().chain([&Record::unsigned(first, last)]) {
                let hash = encode::encode(clock.now(), tree.size() + 1, prev, record, &mut lines);
                tree.push(hash);
                prev = Link::of(&hash);
            }
            segments.append_here(&lines, &head)?;
        }
        // From the first record on there is one on the disk, and it does not say that the log has ended.
        let (notes, checkpoints) = watch::channel(None);
        let publisher = Publisher::start(dir.path(), Arc::clone(&signer), notes)?;
        publisher.publish_now(state(&tree, prev))?;
        segment::sync_directory(dir.path())?;
        let last_seq = tree.size();
        let (queue, items) = mpsc::channel();
        let (told, durable) = watch::channel(last_seq);
        let (told_pruned, pruned) = watch::channel(0);
        let shared = Arc::new(Shared { reserve, ..Shared::default() });
        shared.look_at_space(dir.path());
        let log = AuditLog { queue, shared: shared.clone(), durable, pruned, checkpoints, id, begin };
        for (code, count) in resumed.events {
            tracing::warn!(code, count, "the audit log was not found as it was left");
            log.outcome(Record::of_the_log(code, count));
        }
        for (_, decided) in orphans {
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
            told,
            pruned: told_pruned,
            log: id,
            signer,
            publisher,
            tree,
            prev,
            durability,
            retention,
            refused: 0,
            company: 0,
            upkeep: Upkeep::new(last_seq),
        };
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run())
            .map_err(AuditError::io(dir.path(), "start the writer of"))?;
        Ok(log)
    }

    /// Which log this is.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// Where this daemon went on with it.
    pub fn begin(&self) -> Begin {
        self.begin
    }

    /// Writes a decision (or an alert, or a refusal) and returns once it is written, as the log's [`Durability`] has it.
    /// If the caller goes away meanwhile, the record is written all the same.
    ///
    /// # Errors
    /// The record is not on the disk, or not known to be, and nothing may be let through on its account:
    /// [`AuditError::Io`], [`AuditError::Overloaded`], [`AuditError::Slow`], [`AuditError::Closed`]. The next call may
    /// succeed, the log recovers by itself.
    pub async fn decision(&self, record: Record) -> Result<Durable, AuditError> {
        let queued = self.shared.queued.load(Ordering::Relaxed);
        if queued >= QUEUE / 2 {
            return Err(AuditError::Overloaded { queued });
        }
        let (ack, done) = oneshot::channel();
        self.enqueue(Item::Decision(Box::new(record), ack))?;
        match tokio::time::timeout(PATIENCE, done).await {
            Ok(done) => done.map_err(|_| AuditError::Closed)?,
            Err(_) => Err(AuditError::Slow { waited: PATIENCE }),
        }
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

    /// Is less free on the log's file system than is kept in reserve? Looked at about once a second.
    pub fn space_is_scarce(&self) -> bool {
        self.shared.scarce.load(Ordering::Relaxed)
    }

    /// Why the last write failed; `None` once one succeeds, or where none has failed.
    pub fn fault(&self) -> watch::Receiver<Option<AuditError>> {
        self.shared.fault.subscribe()
    }

    /// The sequence number of the last record on the disk, as it grows.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }

    /// The number of the last record that retention has taken away since the log was opened, 0 where none has. Not what a
    /// line of the log says, which anybody could have put there.
    pub fn pruned(&self) -> watch::Receiver<u64> {
        self.pruned.clone()
    }

    /// The last signed checkpoint (a C2SP signed note), at most a second or two after the records that it covers.
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

#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, reason = "a fixture")]
impl Settings {
    /// For tests: a fixed key, the host's clock.
    ///
    /// # Panics
    /// The fixed key is refused.
    pub fn for_tests() -> Settings {
        Settings {
            clock: Arc::new(onecli_sys::SystemClock),
            signer: Signer::from_seed(&[7; 32]).unwrap(),
            fresh: LogId(uuid::Uuid::from_u128(0xfe)),
            known: None,
            durability: Durability::Strict,
            retention: Retention::default(),
            reserve: 0,
        }
    }
}
