//! Offline verification of a log against its signatures.
//!
//! Each segment is hashed from its signed head on, several segments at a time. The result must agree with the next
//! head, with the last checkpoint, and with the checkpoints of witnesses. If it does not, the links between lines
//! identify the changed record. If an attacker also rewrites the links, the first checkpoint that disagrees narrows
//! the change to an interval of records. A finding in one segment hides no finding in another.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use jiff::Timestamp;
use onecli_model::LogId;
use parking_lot::Mutex;
use serde::Serialize;

use super::checkpoint::{Checkpoint, NoteError, Verifier};
use super::error::AuditError;
use super::finding::Finding;
use super::segment;
use super::walk::{self, LogStatements, WalkError, Walked};

/// The input of a verification.
#[derive(Debug, Clone)]
pub struct Verification {
    /// The log's directory.
    pub dir: PathBuf,
    /// The log's public key. `None`: the key in the log's directory, if the operator has no copy elsewhere.
    pub key: Option<Verifier>,
    /// Signed checkpoints retained elsewhere. A checkpoint of a log that has no records here is an error.
    pub witnessed: Vec<String>,
    /// The first segment to verify, behind known damage. `None`: all segments, and the first one must begin where
    /// the log states that it was pruned.
    pub from: Option<u64>,
    /// The number of segments read at a time.
    pub threads: usize,
}

/// The result for a log without findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The log.
    pub log: LogId,
    /// The key that verified it.
    pub key: String,
    /// True if the key comes from the log's own directory. An attacker who can replace the directory can also
    /// replace the key.
    pub key_from_log: bool,
    /// The number of the first record present.
    pub first: u64,
    /// The number of the last record.
    pub last: u64,
    /// The number of segment files.
    pub segments: usize,
    /// The first segment verified, if the caller requested one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// The number of the last record that a checkpoint covers. Later records are linked, but not yet signed.
    pub signed: u64,
    /// The time at which that checkpoint was signed.
    pub signed_at: Timestamp,
    /// The number of witnesses' checkpoints that the log agrees with.
    pub witnessed: usize,
    /// Bytes at the end that are not a whole record: a running write, or one cut off by a power failure.
    pub unfinished: u64,
}

/// All findings in the order of segments, one for each segment: the first problem in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// The first findings, at least one and at most [`Findings::MOST`].
    pub findings: Vec<Finding>,
    /// The number of further findings.
    pub more: usize,
    /// The first segment from which on nothing was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub good_from: Option<u64>,
}

impl Findings {
    /// The most findings that are listed.
    pub const MOST: usize = 100;
}

/// The reason why a log is not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file cannot be read.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The log differs from what was signed.
    #[error("the log differs from what was signed: {} findings", .0.findings.len() + .0.more)]
    Findings(Box<Findings>),
    /// No segment has the requested number.
    #[error("there is no segment {from} in {}; 'ls' shows their numbers", dir.display())]
    NoSegment {
        /// The requested number.
        from: u64,
        /// The directory that was searched.
        dir: PathBuf,
    },
}

/// Verifies a log, which may grow meanwhile. `progress` receives the bytes done and the total.
///
/// # Errors
/// [`VerifyError::Findings`] with all findings.
pub fn verify(wanted: &Verification, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Verified, VerifyError> {
    let path = segment::checkpoint_path(&wanted.dir);
    let before = std::fs::read(&path).ok();
    let verified = verify_once(wanted, progress);
    // Meanwhile a daemon may have continued a log that had ended.
    match verified {
        Err(VerifyError::Findings(_)) if std::fs::read(&path).ok() != before => verify_once(wanted, progress),
        verified => verified,
    }
}

fn verify_once(wanted: &Verification, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Verified, VerifyError> {
    let dir = &wanted.dir;
    // The checkpoint is read before the segments. They may grow meanwhile, and it must not be newer than they are.
    let note = std::fs::read_to_string(segment::checkpoint_path(dir));
    let mut numbers = segment::list(dir)?;
    if let Some(from) = wanted.from {
        numbers.retain(|number| *number >= from);
        if numbers.first() != Some(&from) {
            return Err(VerifyError::NoSegment { from, dir: dir.clone() });
        }
    }
    let key = wanted.key.map_or_else(|| key_in(dir), Ok)?;
    let mut log = Log::read(dir, numbers, key, note);
    log.with_witnesses(wanted);
    let walked = log.walk_all(wanted.threads, progress)?;
    let mut findings = std::mem::take(&mut log.findings);
    findings.extend(log.compare(wanted.from.is_none(), &walked));
    if !findings.is_empty() {
        return Err(found(findings, &log.numbers));
    }
    let last = walked.iter().rev().flatten().flatten().next();
    let first = log.heads.iter().flatten().next().map_or(0, |head| head.tree.size());
    Ok(Verified {
        log: key.log(),
        key: key.to_string(),
        key_from_log: wanted.key.is_none(),
        first: first + 1,
        last: last.map_or(0, |walked| walked.tree.size()),
        segments: log.numbers.len(),
        from: wanted.from,
        signed: log.marks.iter().map(|mark| mark.tree.size()).max().unwrap_or(0),
        signed_at: log.latest.map_or(Timestamp::UNIX_EPOCH, |latest| latest.time),
        witnessed: wanted.witnessed.len(),
        unfinished: last.map_or(0, |walked| walked.unfinished),
    })
}

/// The key in the log's directory.
fn key_in(dir: &Path) -> Result<Verifier, VerifyError> {
    let path = segment::key_path(dir);
    let text = std::fs::read_to_string(&path).map_err(AuditError::io(&path, "read"))?;
    let key: Result<Verifier, NoteError> = text.parse();
    key.map_err(|error| found(vec![(0, Finding::file(&path, error.to_string()))], &[]))
}

/// All findings in the order of their segments.
fn found(mut findings: Vec<(u64, Finding)>, numbers: &[u64]) -> VerifyError {
    findings.sort_by_key(|(segment, _)| *segment);
    let last = findings.last().map_or(0, |(segment, _)| *segment);
    let good_from = numbers.iter().copied().find(|number| *number > last);
    let more = findings.len().saturating_sub(Findings::MOST);
    findings.truncate(Findings::MOST);
    let findings = findings.into_iter().map(|(_, finding)| finding).collect();
    VerifyError::Findings(Box::new(Findings { findings, more, good_from }))
}

/// The files in the directory and the signed statements about them. `None` in `heads` is an invalid head.
struct Log<'d> {
    dir: &'d Path,
    key: Verifier,
    numbers: Vec<u64>,
    heads: Vec<Option<Checkpoint>>,
    /// The last checkpoint.
    latest: Option<Checkpoint>,
    /// All signed checkpoints, in order of size.
    marks: Vec<Checkpoint>,
    /// The findings, each with the number of its segment.
    findings: Vec<(u64, Finding)>,
}

type Walks = Vec<Option<Result<Walked, Finding>>>;

impl<'d> Log<'d> {
    fn read(dir: &'d Path, numbers: Vec<u64>, key: Verifier, note: std::io::Result<String>) -> Log<'d> {
        let path = segment::checkpoint_path(dir);
        let last = numbers.last().copied().unwrap_or(0);
        let mut findings = Vec::new();
        let latest = match note {
            Ok(note) => key.open(&note).map_err(|error| error.to_string()),
            Err(error) => {
                Err(format!("unreadable; without it a cut-off end of the log goes undetected: {error}"))
            }
        };
        let latest = latest.map_err(|what| findings.push((last, Finding::file(&path, what)))).ok();
        let heads: Vec<_> = numbers
            .iter()
            .map(|&number| head(dir, number, key).map_err(|finding| findings.push((number, finding))).ok())
            .collect();
        let mut marks: Vec<_> = latest.iter().chain(heads.iter().skip(1).flatten()).cloned().collect();
        marks.sort_by_key(|mark| mark.tree.size());
        Log { dir, key, numbers, heads, latest, marks, findings }
    }

    /// Adds the checkpoints of witnesses.
    fn with_witnesses(&mut self, wanted: &Verification) {
        let last = self.numbers.last().copied().unwrap_or(0);
        for note in &wanted.witnessed {
            let open = self.key.open_any(note).and_then(|mark| {
                let is_here = self.heads.iter().flatten().any(|head| head.log == mark.log);
                // If only a part is verified, the checkpoint may belong to an earlier part.
                let elsewhere = !is_here && mark.log != self.key.log() && wanted.from.is_none();
                if elsewhere { Err(NoteError::OtherLog(mark.log)) } else { Ok(mark) }
            });
            match open {
                Ok(mark) => self.marks.push(mark),
                Err(error) => {
                    let finding = Finding::file(Path::new("a witness's checkpoint"), error.to_string());
                    self.findings.push((last, finding));
                }
            }
        }
        self.marks.sort_by_key(|mark| mark.tree.size());
    }

    fn path(&self, at: usize) -> PathBuf {
        segment::path(self.dir, self.numbers[at])
    }

    /// Reports whether this is the last segment of its log.
    fn ends(&self, at: usize) -> bool {
        let next = self.heads.get(at + 1);
        next.is_none_or(|next| match (next, &self.heads[at]) {
            (Some(next), Some(own)) => next.log != own.log,
            _ => false,
        })
    }

    /// Walks all segments that have a head, several at a time.
    fn walk_all(&self, threads: usize, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Walks, VerifyError> {
        let mut total = 0;
        for at in 0..self.numbers.len() {
            let path = self.path(at);
            total += std::fs::metadata(&path).map_err(AuditError::io(&path, "inspect"))?.len();
        }
        let next = AtomicUsize::new(0);
        let done = AtomicU64::new(0);
        let results = Mutex::new(self.numbers.iter().map(|_| None).collect::<Vec<_>>());
        let walk_some = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(head) = self.heads.get(at) else { return };
                let Some(head) = head else { continue };
                let marks: Vec<_> = self.marks.iter().filter(|mark| mark.log == head.log).collect();
                let walked = walk::walk(&self.path(at), head, &marks, self.ends(at), &|bytes| {
                    progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
                });
                results.lock()[at] = Some(walked);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.clamp(1, self.numbers.len().max(1)) {
                scope.spawn(walk_some);
            }
            walk_some();
        });
        let results = results.into_inner();
        let walks = results.into_iter().map(|result| match result {
            Some(Err(WalkError::Audit(error))) => Err(VerifyError::Audit(error)),
            Some(Err(WalkError::Finding(finding))) => Ok(Some(Err(*finding))),
            Some(Ok(walked)) => Ok(Some(Ok(walked))),
            None => Ok(None),
        });
        walks.collect()
    }

    /// Compares the segments with each other and with the signed checkpoints.
    fn compare(&self, is_whole: bool, walks: &Walks) -> Vec<(u64, Finding)> {
        let mut findings = Vec::new();
        if is_whole {
            findings.extend(self.beginning(walks));
        }
        for (at, walked) in walks.iter().enumerate() {
            let number = self.numbers[at];
            match walked {
                Some(Err(finding)) => findings.push((number, finding.clone())),
                Some(Ok(walked)) => {
                    findings.extend(self.end_of(at, walked).map(|finding| (number, finding)));
                }
                None => {}
            }
        }
        if let Some(latest) = &self.latest
            && !self.heads.iter().flatten().any(|head| head.log == self.key.log())
            && self.heads.iter().all(Option::is_some)
        {
            let what = format!("the records 1 to {} of log {} are gone", latest.tree.size(), latest.log);
            findings.push((self.numbers.last().copied().unwrap_or(0), Finding::file(self.dir, what)));
        }
        findings
    }

    /// Checks the end of a segment: it must agree with the next segment's head. The last segment of a log must
    /// contain all signed records.
    fn end_of(&self, at: usize, walked: &Walked) -> Option<Finding> {
        let (path, end) = (self.path(at), walked.tree.size());
        let own = self.heads[at].as_ref()?;
        if !self.ends(at) {
            let begin = self.heads[at + 1].as_ref()?;
            if walked.tree == begin.tree {
                return None;
            }
            let first = begin.tree.size() + 1;
            let what = if end + 1 < first {
                format!(
                    "the records {} to {} are missing between this segment and the next",
                    end + 1,
                    first - 1
                )
            } else {
                format!("the segment ends with record {end}, and the next one begins with {first}")
            };
            return Some(Finding {
                line: Some(walked.lines),
                seq: Some(end + 1),
                ..Finding::file(&path, what)
            });
        }
        if let Some(mark) = self.marks.iter().find(|mark| mark.log == own.log && mark.tree.size() > end) {
            let what = format!(
                "the log ends with record {end}; a checkpoint signed at {:.6} covers {}: the end was cut off",
                mark.time,
                mark.tree.size()
            );
            return Some(Finding { seq: Some(end + 1), ..Finding::file(&path, what) });
        }
        if let Some(Some(next)) = self.heads.get(at + 1) {
            let what = format!(
                "log {} ends here with record {end}; a daemon could not continue it and began log {} with \
                 the next segment: its first record contains the reason",
                own.log, next.log
            );
            return Some(Finding { seq: Some(end), ..Finding::file(&path, what) });
        }
        let latest = self.latest.as_ref().filter(|latest| latest.ended && latest.log == own.log)?;
        let behind = end - latest.tree.size();
        (behind > 0 || walked.unfinished > 0).then(|| {
            let what = format!(
                "a stopped daemon ended the log with record {}, and no daemon has run since: {behind} \
                 records and {} bytes behind it were added by another process",
                latest.tree.size(),
                walked.unfinished
            );
            let line = Some((walked.lines + 1).saturating_sub(behind));
            Finding { line, seq: Some(latest.tree.size() + 1), ..Finding::file(&path, what) }
        })
    }

    /// Checks that a record reports the removal of everything before the first segment.
    fn beginning(&self, walks: &Walks) -> Option<(u64, Finding)> {
        let Some(number) = self.numbers.first() else {
            let last = self.latest.as_ref().map_or(0, |latest| latest.tree.size());
            return Some((0, Finding::file(self.dir, format!("the records 1 to {last} are gone"))));
        };
        let own = self.heads[0].as_ref()?;
        let same = self.heads.iter().zip(walks).filter_map(|(head, walked)| {
            let is_same = head.as_ref().is_some_and(|head| head.log == own.log);
            walked.as_ref().filter(|_| is_same)?.as_ref().ok()
        });
        let pruned =
            LogStatements::pruned_through(&same.map(|walked| &walked.statements).collect::<Vec<_>>());
        let first = own.tree.size();
        (first > pruned).then(|| {
            let what = format!(
                "the records {} to {first} are missing, and no record reports that retention removed them",
                pruned + 1
            );
            (*number, Finding::file(&self.path(0), what))
        })
    }
}

/// Reads the head of a segment, of this log or of a previous one.
fn head(dir: &Path, number: u64, key: Verifier) -> Result<Checkpoint, Finding> {
    let path = segment::head_path(dir, number);
    let note = std::fs::read_to_string(&path).map_err(|error| {
        Finding::file(&path, format!("the segment's signed head cannot be read: {error}"))
    })?;
    key.open_any(&note).map_err(|error| Finding::file(&path, error.to_string()))
}

#[cfg(test)]
mod tests;
