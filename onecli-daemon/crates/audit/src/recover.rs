//! Recovery at start: finds the end of a previous daemon's log, and checks that the files are unchanged since.

use std::path::Path;

use onecli_model::LogId;

use super::checkpoint::{Checkpoint, Signer};
use super::codes::{CODE_APPENDED, CODE_CONTRADICTED, CODE_DAMAGED, CODE_TORN, CODE_TRUNCATED};
use super::encode::{self, LinePrefix};
use super::error::AuditError;
use super::link::Link;
use super::segment::{self, WritePosition};
use super::settings::LastKnown;
use super::tree::{Tree, leaf_hash};

/// The state from which a log continues.
#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) log: LogId,
    pub(super) tree: Tree,
    pub(super) prev: Link,
    pub(super) place: WritePosition,
    /// The first of the last records that neither a signature nor the store confirms.
    pub(super) unsigned: Option<u64>,
    /// Events to record in the log: code and count.
    pub(super) events: Vec<(&'static str, u64)>,
}

impl Resumed {
    fn anew(log: LogId, number: u64, events: Vec<(&'static str, u64)>) -> Resumed {
        Resumed {
            log,
            tree: Tree::default(),
            prev: Link::default(),
            place: WritePosition::New { number },
            unsigned: None,
            events,
        }
    }

    fn behind(checkpoint: Checkpoint, number: u64, missing: u64) -> Resumed {
        let Checkpoint { log, tree, prev, .. } = checkpoint;
        let events = vec![(CODE_DAMAGED, missing)];
        Resumed { log, tree, prev, place: WritePosition::New { number }, unsigned: None, events }
    }
}

/// The signed beginning and end of a log's files.
struct Found {
    /// Segments, without those left by a start that failed half-way.
    numbers: Vec<u64>,
    /// The head of the last segment.
    head: Option<Checkpoint>,
    checkpoint: Option<Checkpoint>,
}

fn found(dir: &Path, signer: &Signer) -> Result<Found, AuditError> {
    let mut numbers = segment::list(dir)?;
    while let Some(&last) = numbers.last() {
        let path = segment::path(dir, last);
        let len = std::fs::metadata(&path).map_err(AuditError::io(&path, "inspect"))?.len();
        if len > 0 || signer.read(&segment::head_path(dir, last)).is_some() {
            break;
        }
        numbers.pop();
    }
    let head = numbers.last().and_then(|&last| signer.read(&segment::head_path(dir, last)));
    Ok(Found { numbers, head, checkpoint: signer.read(&segment::checkpoint_path(dir)) })
}

/// Returns the id of the log in `dir` according to the notes that `signer` signed; `None` if there is no log.
///
/// # Errors
/// [`AuditError::Io`].
pub fn log_id_in(dir: &Path, signer: &Signer) -> Result<Option<LogId>, AuditError> {
    let Found { head, checkpoint, .. } = found(dir, signer)?;
    Ok(head.or(checkpoint).map(|checkpoint| checkpoint.log))
}

/// Finds out where the log in `dir` ends.
///
/// - If its files differ from what was signed, they stay unchanged, and a new segment continues from the signed
///   state.
/// - If the store (`known`) has more records, other records or another log, or if nothing can be proven, a new log
///   begins with the id `fresh`.
/// - Records that a killed daemon had not yet signed are part of the log unless the store contradicts them.
/// - Nothing behind the end of a log that was ended is part of it; such bytes are moved aside.
pub(super) fn recover(
    dir: &Path,
    signer: &Signer,
    known: Option<&LastKnown>,
    fresh: LogId,
) -> Result<Resumed, AuditError> {
    let Found { numbers, head, checkpoint } = found(dir, signer)?;
    let last = numbers.last().copied();
    let next = last.map_or(1, |last| last + 1);
    let resumed = match (last, head, checkpoint) {
        (Some(last), Some(head), checkpoint) => {
            let row = known.filter(|known| known.log == head.log).and_then(|known| known.last.as_ref());
            let Some(resumed) = resume_in(dir, last, head, checkpoint, row)? else {
                let events = vec![(CODE_CONTRADICTED, row.map_or(0, |(seq, _)| *seq))];
                return Ok(Resumed::anew(fresh, next, events));
            };
            resumed
        }
        (_, None, Some(checkpoint)) => {
            let missing = if last.is_none() { checkpoint.tree.size() } else { 0 };
            Resumed::behind(checkpoint, next, missing)
        }
        (Some(_), None, None) => Resumed::anew(fresh, next, vec![(CODE_DAMAGED, 0)]),
        (None, ..) => Resumed::anew(fresh, next, Vec::new()),
    };
    let proven = |log: LogId| if log == resumed.log { resumed.tree.size() } else { 0 };
    Ok(match known {
        Some(LastKnown { log, last: Some((seq, _)) }) if *seq > proven(*log) => {
            Resumed::anew(fresh, next, vec![(CODE_TRUNCATED, seq - proven(*log))])
        }
        _ => resumed,
    })
}

/// Follows the last segment from its head to its end, past the last checkpoint. `row` is the store's last row: the
/// lines up to that very line are unchanged since the store received it. Returns `None` if another line has its
/// number.
fn resume_in(
    dir: &Path,
    number: u64,
    head: Checkpoint,
    checkpoint: Option<Checkpoint>,
    row: Option<&(u64, String)>,
) -> Result<Option<Resumed>, AuditError> {
    let path = segment::path(dir, number);
    let bytes = std::fs::read(&path).map_err(AuditError::io(&path, "read"))?;
    let lost = checkpoint.is_none();
    // A checkpoint older than the head was not replaced in time, or was put back. The head is the newer statement.
    let checkpoint = checkpoint.filter(|c| c.log == head.log && c.tree.size() >= head.tree.size());
    let ended = checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.ended);
    let mut vouched = checkpoint.as_ref().map_or(head.tree.size(), |c| c.tree.size());
    let Checkpoint { log, mut tree, mut prev, .. } = head;
    let covered = |tree: &Tree| checkpoint.as_ref().filter(|c| c.tree.size() == tree.size());
    let mut proven = covered(&tree).is_none_or(|c| c.tree == tree);
    let (mut end, signed) = (0, vouched);
    while let Some(len) = memchr::memchr(b'\n', &bytes[end..]) {
        let line = &bytes[end..end + len];
        let fits = LinePrefix::read(line).is_some_and(|s| s.seq == tree.size() + 1 && s.prev == prev);
        if !fits || encode::decode(line).is_err() || (ended && tree.size() == signed) {
            break;
        }
        let hash = leaf_hash(line);
        tree.push(hash);
        prev = Link::of(&hash);
        end += len + 1;
        proven &= covered(&tree).is_none_or(|c| c.tree == tree);
        match row {
            Some((seq, known)) if *seq == tree.size() && *seq > signed => {
                if known.as_bytes() != line {
                    return Ok(None);
                }
                vouched = *seq;
            }
            _ => {}
        }
    }
    if let Some(checkpoint) = checkpoint
        && (!proven || tree.size() < checkpoint.tree.size())
    {
        let missing = checkpoint.tree.size() - tree.size().min(checkpoint.tree.size());
        return Ok(Some(Resumed::behind(checkpoint, number + 1, missing)));
    }
    let mut events = Vec::new();
    if lost && tree.size() > 0 {
        // A checkpoint exists before the first record.
        events.push((CODE_DAMAGED, 0));
    }
    let rest = &bytes[end..][..segment::without_room(&bytes[end..])];
    // A power failure leaves half a line. Anything longer may be evidence for an investigation.
    if ended && !rest.is_empty() || memchr::memchr(b'\n', rest).is_some() {
        let path = segment::save_aside(dir, number, rest)?;
        tracing::warn!(path = %path.display(), "bytes behind the end of the audit log were moved aside");
    }
    if !rest.is_empty() {
        events.push((if ended { CODE_APPENDED } else { CODE_TORN }, rest.len() as u64));
    }
    let unsigned = (tree.size() > vouched).then_some(vouched + 1);
    let place = WritePosition::In { number, end: end as u64 };
    Ok(Some(Resumed { log, tree, prev, place, unsigned, events }))
}
