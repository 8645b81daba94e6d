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

/// The log in `dir` as its files name it, unproven; `None` where there is none.
///
/// # Errors
/// [`AuditError::Io`].
pub fn log_in(dir: &Path) -> Result<Option<LogId>, AuditError> {
    let last = segment::list(dir)?.last().copied();
    let heads = last.map(|number| segment::head_path(dir, number));
    let named = heads.into_iter().chain([segment::checkpoint_path(dir)]).find_map(|path| {
        let note = std::fs::read_to_string(path).ok()?;
        note.rsplit_once("\n\n")?.0.parse::<Checkpoint>().ok()
    });
    Ok(named.map(|checkpoint| checkpoint.log))
}

/// Finds out where the log in `dir` ends. Where its files are not what was signed, they are left as they are, and a new
/// segment goes on from what was signed; where the store knows more records than can be proven (`known`), or nothing can
/// be proven, a new log begins, named `fresh`.
pub(super) fn recover(
    dir: &Path,
    signer: &Signer,
    known: Option<(LogId, u64)>,
    fresh: LogId,
) -> Result<Resumed, AuditError> {
    let mut numbers = segment::list(dir)?;
    // Left from a beginning that failed half-way.
    while let Some(&last) = numbers.last() {
        let path = segment::path(dir, last);
        let len = std::fs::metadata(&path).map_err(AuditError::io(&path, "inspect"))?.len();
        if len > 0 || read_note(&segment::head_path(dir, last), signer).is_some() {
            break;
        }
        numbers.pop();
    }
    let checkpoint = read_note(&segment::checkpoint_path(dir), signer);
    let last = numbers.last().copied();
    let next = last.map_or(1, |last| last + 1);
    let head = last.and_then(|last| read_note(&segment::head_path(dir, last), signer));
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
    Ok(match known {
        Some((log, seq)) if log == resumed.log && seq > resumed.tree.size() => {
            let missing = seq - resumed.tree.size();
            Resumed::anew(fresh, next, vec![(CODE_TRUNCATED, missing)])
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

/// A note that we signed; `None` for anything else.
fn read_note(path: &Path, signer: &Signer) -> Option<Checkpoint> {
    let note = std::fs::read_to_string(path).ok()?;
    let named: Checkpoint = note.rsplit_once("\n\n")?.0.parse().ok()?;
    signer.verifier(named.log).open(&note).ok()
}
