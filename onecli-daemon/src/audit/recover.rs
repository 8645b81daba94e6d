//! Where a log ends that a former daemon wrote, and whether it is as that daemon left it.

use std::path::Path;

use super::checkpoint::{Checkpoint, Signer};
use super::encode::{self, Link, Start};
use super::error::AuditError;
use super::segment::{self, Place};
use super::tree::{Tree, leaf_hash};
use crate::model::LogId;

/// Code of the record that tells of an unfinished write cut off at start; its count is in bytes.
const CODE_TORN: &str = "audit_torn";
/// Code of the record that tells that the files lack or changed records that a checkpoint covers; its count is in records,
/// where it is known.
const CODE_DAMAGED: &str = "audit_damaged";
/// Code of the record that tells that the files end before what the store knows; its count is in records. A new log
/// begins with it.
const CODE_TRUNCATED: &str = "audit_truncated";

/// How a log goes on.
#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) log: LogId,
    pub(super) tree: Tree,
    pub(super) prev: Link,
    pub(super) place: Place,
    /// What is to be told in the log: code and count.
    pub(super) events: Vec<(&'static str, u64)>,
}

impl Resumed {
    fn anew(log: LogId, number: u64, events: Vec<(&'static str, u64)>) -> Resumed {
        Resumed { log, tree: Tree::default(), prev: Link::default(), place: Place::New { number }, events }
    }

    fn behind(checkpoint: Checkpoint, number: u64, missing: u64) -> Resumed {
        let Checkpoint { log, tree, prev, .. } = checkpoint;
        Resumed { log, tree, prev, place: Place::New { number }, events: vec![(CODE_DAMAGED, missing)] }
    }
}

/// What the files of a log begin with and end with, as far as we signed it.
struct Found {
    /// Segments, without those that a beginning left behind which failed half-way.
    numbers: Vec<u64>,
    /// The last one's head.
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

/// The log in `dir`, by what `signer` signed of it; `None` where there is none.
///
/// # Errors
/// [`AuditError::Io`].
pub fn log_in(dir: &Path, signer: &Signer) -> Result<Option<LogId>, AuditError> {
    let Found { head, checkpoint, .. } = found(dir, signer)?;
    Ok(head.or(checkpoint).map(|checkpoint| checkpoint.log))
}

/// Finds out where the log in `dir` ends. Where its files are not what was signed, they are left as they are, and a new
/// segment goes on from what was signed; where the store knows more records than can be proven, or another log (`known`),
/// or nothing can be proven, a new log begins, named `fresh`.
pub(super) fn recover(
    dir: &Path,
    signer: &Signer,
    known: Option<(LogId, u64)>,
    fresh: LogId,
) -> Result<Resumed, AuditError> {
    let Found { numbers, head, checkpoint } = found(dir, signer)?;
    let last = numbers.last().copied();
    let next = last.map_or(1, |last| last + 1);
    let resumed = match (last, head, checkpoint) {
        (Some(last), Some(head), checkpoint) => {
            let checkpoint = checkpoint.filter(|c| c.log == head.log && c.tree.size() >= head.tree.size());
            resume_in(dir, last, head, checkpoint)?
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
        Some((log, seq)) if seq > proven(log) => {
            Resumed::anew(fresh, next, vec![(CODE_TRUNCATED, seq - proven(log))])
        }
        _ => resumed,
    })
}

/// Follows the last segment from its head to where it ends, past the last checkpoint.
fn resume_in(
    dir: &Path,
    number: u64,
    head: Checkpoint,
    checkpoint: Option<Checkpoint>,
) -> Result<Resumed, AuditError> {
    let path = segment::path(dir, number);
    let bytes = std::fs::read(&path).map_err(AuditError::io(&path, "read"))?;
    let Checkpoint { log, mut tree, mut prev, .. } = head;
    let covered = |tree: &Tree| checkpoint.as_ref().filter(|c| c.tree.size() == tree.size()).cloned();
    let mut proven = covered(&tree).is_none_or(|c| c.tree == tree);
    let mut end = 0;
    while let Some(len) = memchr::memchr(b'\n', &bytes[end..]) {
        let line = &bytes[end..end + len];
        let fits = Start::read(line).is_some_and(|s| s.seq == tree.size() + 1 && s.prev == prev);
        if !fits || encode::decode(line).is_err() {
            break;
        }
        let hash = leaf_hash(line);
        tree.push(hash);
        prev = Link::of(&hash);
        end += len + 1;
        proven &= covered(&tree).is_none_or(|c| c.tree == tree);
    }
    if let Some(checkpoint) = checkpoint
        && (!proven || tree.size() < checkpoint.tree.size())
    {
        let missing = checkpoint.tree.size() - tree.size().min(checkpoint.tree.size());
        return Ok(Resumed::behind(checkpoint, number + 1, missing));
    }
    let torn = segment::without_room(&bytes[end..]) as u64;
    let events = if torn > 0 { vec![(CODE_TORN, torn)] } else { Vec::new() };
    Ok(Resumed { log, tree, prev, place: Place::In { number, end: end as u64 }, events })
}
