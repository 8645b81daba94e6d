//! Removal of old segments. Only complete segments are removed: the signed head of the first remaining segment
//! states what preceded it.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use onecli_model::LogId;

use super::checkpoint::{Checkpoint, Signer};
use super::error::AuditError;
use super::segment;
use super::walk;

/// How much of the log is retained. `None` means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Segments whose records are all older than this are removed.
    pub age: Option<Duration>,
    /// The oldest segments are removed while all files together exceed this size, in bytes.
    pub bytes: Option<u64>,
}

/// Segments that may be removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expired {
    segments: Vec<u64>,
    /// The number of the last record in them.
    pub(super) through: u64,
    /// A segment that is due for removal but differs from what was signed.
    pub(super) kept: Option<u64>,
}

/// Finds the expired segments of the log `log`. The current segment is never among them. A segment that differs
/// from what was signed is not either, nor is any later one: the record of a removal must not excuse a change to
/// the files. Reads all expired segments.
///
/// # Errors
/// [`AuditError::Io`].
pub(super) fn expired(
    dir: &Path,
    retention: &Retention,
    now: Timestamp,
    log: LogId,
    signer: &Signer,
) -> Result<Expired, AuditError> {
    let numbers = segment::list(dir)?;
    // Files that were enlarged or added from outside cause no removal.
    let size = |number: u64| -> Result<u64, AuditError> {
        let path = segment::path(dir, number);
        let found = std::fs::metadata(&path).map_err(AuditError::io(&path, "inspect"))?;
        let ours = head(dir, number, signer).is_some();
        Ok(if ours { found.len().min(segment::SEGMENT_BYTES) } else { 0 })
    };
    let mut total = 0;
    for &number in &numbers {
        total += size(number)?;
    }
    let before = retention
        .age
        .and_then(|age| SignedDuration::try_from(age).ok().and_then(|age| now.checked_sub(age).ok()));
    let mut expired = Expired::default();
    for pair in numbers.windows(2) {
        let too_much = retention.bytes.is_some_and(|most| total > most);
        let (Some(own), Some(next)) = (head(dir, pair[0], signer), head(dir, pair[1], signer)) else {
            // Its age is unknown.
            expired.kept = (too_much || before.is_some()).then_some(pair[0]);
            break;
        };
        let too_old = before.is_some_and(|before| next.time < before);
        if !too_old && !too_much {
            break;
        }
        // A previous log that could not be continued may end anywhere.
        let former = own.log != log && own.log != next.log;
        if !former && !walk::is_as_signed(dir, pair[0], pair[1], signer) {
            expired.kept = Some(pair[0]);
            break;
        }
        total -= size(pair[0])?;
        expired.segments.push(pair[0]);
        if own.log == log && next.log == log {
            expired.through = next.tree.size();
        }
    }
    Ok(expired)
}

impl Expired {
    /// Reports whether there is nothing to remove.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Removes the segments, oldest first.
    pub(super) fn remove(&self, dir: &Path) -> Result<(), AuditError> {
        for &number in &self.segments {
            for path in [segment::path(dir, number), segment::head_path(dir, number)] {
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(AuditError::io(&path, "remove")(error));
                    }
                    _ => {}
                }
            }
        }
        tracing::info!(
            segments = self.segments.len(),
            through = self.through,
            "old audit segments were removed"
        );
        Ok(())
    }
}

fn head(dir: &Path, number: u64, signer: &Signer) -> Option<Checkpoint> {
    signer.read(&segment::head_path(dir, number))
}
