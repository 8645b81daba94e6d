//! Offline: is the log what was signed?
//!
//! Each segment is hashed from its signed head on, several at a time, and has to arrive at the next one's head, at the
//! last checkpoint, and at those that witnesses kept. Where it does not, the links between lines tell which record it
//! was; of one who edited a record and then made all later links fit, the first checkpoint that disagrees tells between
//! which records.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

use super::checkpoint::{Checkpoint, NoteError, Verifier};
use super::error::AuditError;
use super::segment;
use super::walk::{self, About, Walked};
use crate::model::LogId;

/// What is verified against what.
#[derive(Debug, Clone)]
pub struct Verification {
    /// The log's directory.
    pub dir: PathBuf,
    /// The log's public key; the one that lies in the directory, where nobody noted it elsewhere.
    pub key: Option<Verifier>,
    /// Signed checkpoints that somebody else kept. Those that name another log are an error.
    pub witnessed: Vec<String>,
    /// How many segments are read at a time.
    pub threads: usize,
}

/// What was found in a log that is as it was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The log.
    pub log: LogId,
    /// The key it was verified with.
    pub key: String,
    /// Does the key come from the log's own directory? Whoever can replace all of it can replace the key.
    pub key_from_log: bool,
    /// Number of the first record that is still there.
    pub first: u64,
    /// Number of the last record.
    pub last: u64,
    /// Segment files.
    pub segments: usize,
    /// Number of the last record that a checkpoint covers. Later ones are linked, but not yet signed for.
    pub signed: u64,
    /// When that checkpoint was signed.
    pub signed_at: Timestamp,
    /// Checkpoints of witnesses that the log agrees with.
    pub witnessed: usize,
    /// Bytes at the end that are no whole record: a write under way, or cut off by a power failure.
    pub unfinished: u64,
}

/// The first thing that is not as it was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}{}: {what}", file.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct Bad {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The record's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The record's time, as the line has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// What is wrong.
    pub what: String,
}

/// Why a log is not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file cannot be read.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// It is not as it was signed.
    #[error(transparent)]
    Bad(Box<Bad>),
}

impl Bad {
    pub(super) fn file(path: &Path, what: impl Into<String>) -> Bad {
        Bad { file: path.to_owned(), line: None, seq: None, time: None, what: what.into() }
    }
}

impl From<Bad> for VerifyError {
    fn from(bad: Bad) -> VerifyError {
        VerifyError::Bad(Box::new(bad))
    }
}

/// Verifies a log; it may be written to meanwhile. `progress` is told the bytes that are done, and all of them.
///
/// # Errors
/// [`VerifyError::Bad`] with the first thing that is wrong.
pub fn verify(wanted: &Verification, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Verified, VerifyError> {
    let path = segment::checkpoint_path(&wanted.dir);
    let before = std::fs::read(&path).ok();
    let verified = verify_once(wanted, progress);
    // A daemon may have gone on meanwhile with a log that was ended.
    match verified {
        Err(VerifyError::Bad(_)) if std::fs::read(&path).ok() != before => verify_once(wanted, progress),
        verified => verified,
    }
}

fn verify_once(wanted: &Verification, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Verified, VerifyError> {
    let dir = &wanted.dir;
    // Before the segments: they may grow meanwhile, and it must not know more than them.
    let checkpoint_path = segment::checkpoint_path(dir);
    let note = std::fs::read_to_string(&checkpoint_path);
    let numbers = segment::list(dir)?;
    let key_path = segment::key_path(dir);
    let key = match wanted.key {
        Some(key) => key,
        None => std::fs::read_to_string(&key_path)
            .map_err(AuditError::io(&key_path, "read"))?
            .parse()
            .map_err(|error: NoteError| Bad::file(&key_path, error.to_string()))?,
    };
    let note = note.map_err(|error| {
        Bad::file(
            &checkpoint_path,
            format!("without it nobody can tell whether the log's end was cut off: {error}"),
        )
    })?;
    let latest = key.open(&note).map_err(|error| Bad::file(&checkpoint_path, error.to_string()))?;
    if numbers.is_empty() {
        return Err(Bad::file(dir, format!("the records 1 to {} are gone", latest.tree.size())).into());
    }
    let mut marks = vec![latest.clone()];
    for note in &wanted.witnessed {
        let open = key.open(note);
        marks.push(open.map_err(|error| Bad::file(Path::new("a witness's checkpoint"), error.to_string()))?);
    }
    let heads = numbers.iter().map(|&number| head(dir, number, &key)).collect::<Result<Vec<_>, _>>()?;
    marks.extend(heads.iter().skip(1).cloned());
    marks.sort_by_key(|mark| mark.tree.size());
    let walked = walk_all(dir, &numbers, &heads, &marks, wanted.threads, progress)?;
    let last = joined(dir, &numbers, &heads, &walked)?;

    let end = walked.last().map_or(0, |walked| walked.tree.size());
    if let Some(mark) = marks.iter().find(|mark| mark.tree.size() > end) {
        return Err(Bad {
            seq: Some(end + 1),
            ..Bad::file(
                &last,
                format!(
                    "the log ends with record {end}; a checkpoint signed at {:.6} covers {}: the end was cut off",
                    mark.time,
                    mark.tree.size()
                ),
            )
        }
        .into());
    }
    let first = heads.first().map_or(0, |head| head.tree.size());
    let pruned = About::pruned_through(&walked.iter().map(|walked| &walked.about).collect::<Vec<_>>());
    if first > pruned {
        let what = format!(
            "the records {} to {first} are missing, and no record says that they were kept no longer",
            pruned + 1
        );
        return Err(Bad::file(&segment::path(dir, numbers[0]), what).into());
    }
    let unfinished = walked.last().map_or(0, |walked| walked.unfinished);
    if latest.ended && (end > latest.tree.size() || unfinished > 0) {
        let lines = walked.last().map_or(0, |walked| walked.lines);
        let behind = end - latest.tree.size();
        let what = format!(
            "the daemon that was stopped ended the log with record {}, and no other has run since: {behind} records and \
             {unfinished} bytes behind it were put there by somebody else",
            latest.tree.size(),
        );
        return Err(Bad {
            line: Some((lines + 1).saturating_sub(behind)),
            seq: Some(latest.tree.size() + 1),
            ..Bad::file(&last, what)
        }
        .into());
    }
    Ok(Verified {
        log: key.log(),
        key: key.to_string(),
        key_from_log: wanted.key.is_none(),
        first: first + 1,
        last: end,
        segments: numbers.len(),
        signed: marks.last().map_or(0, |mark| mark.tree.size()),
        signed_at: latest.time,
        witnessed: wanted.witnessed.len(),
        unfinished,
    })
}

fn head(dir: &Path, number: u64, key: &Verifier) -> Result<Checkpoint, VerifyError> {
    let path = segment::head_path(dir, number);
    let note = std::fs::read_to_string(&path)
        .map_err(|error| Bad::file(&path, format!("the segment's signed head cannot be read: {error}")))?;
    Ok(key.open(&note).map_err(|error| Bad::file(&path, error.to_string()))?)
}

/// Walks all segments, several at a time, in order of their beginning.
fn walk_all(
    dir: &Path,
    numbers: &[u64],
    heads: &[Checkpoint],
    marks: &[Checkpoint],
    threads: usize,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Vec<Walked>, VerifyError> {
    let paths: Vec<PathBuf> = numbers.iter().map(|&number| segment::path(dir, number)).collect();
    let mut total = 0;
    for path in &paths {
        total += std::fs::metadata(path).map_err(AuditError::io(path, "inspect"))?.len();
    }
    let next = AtomicUsize::new(0);
    let done = AtomicU64::new(0);
    let results = Mutex::new(paths.iter().map(|_| None).collect::<Vec<_>>());
    let walk_some = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(at) else { return };
            let is_last = at + 1 == paths.len();
            let walked = walk::walk(path, &heads[at], marks, is_last, &|bytes| {
                progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
            });
            if walked.is_err() {
                // What comes later is of no interest.
                next.store(paths.len(), Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(walked);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..wanted_threads(threads, paths.len()) {
            scope.spawn(walk_some);
        }
        walk_some();
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut all = Vec::with_capacity(results.len());
    for result in results.into_iter().flatten() {
        all.push(result?);
    }
    Ok(all)
}

fn wanted_threads(threads: usize, segments: usize) -> usize {
    threads.clamp(1, segments.max(1))
}

/// Each segment has to end where the next begins. Tells the last one's path.
fn joined(
    dir: &Path,
    numbers: &[u64],
    heads: &[Checkpoint],
    walked: &[Walked],
) -> Result<PathBuf, VerifyError> {
    for (at, pair) in numbers.windows(2).enumerate() {
        let (end, begin) = (&walked[at], &heads[at + 1]);
        if end.tree == begin.tree {
            continue;
        }
        let (last, first) = (end.tree.size(), begin.tree.size() + 1);
        let what = if last + 1 < first {
            format!("the records {} to {} are missing between this segment and the next", last + 1, first - 1)
        } else {
            format!("the segment ends with record {last}, and the next one begins with {first}")
        };
        return Err(Bad {
            line: Some(end.lines),
            seq: Some(last + 1),
            ..Bad::file(&segment::path(dir, pair[0]), what)
        }
        .into());
    }
    Ok(segment::path(dir, numbers[numbers.len() - 1]))
}

#[cfg(test)]
mod tests;
