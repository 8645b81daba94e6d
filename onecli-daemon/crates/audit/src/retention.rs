//! Which segments are kept no longer. Whole ones only: the signed head of the first that stays says what went before it.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use onecli_model::LogId;

use super::checkpoint::{Checkpoint, Signer};
use super::error::AuditError;
use super::segment;
use super::walk;

/// Code of the record that tells of removed segments. Its count is the number of the last record that went.
pub(super) const CODE_PRUNED: &str = "audit_pruned";

/// Code of the record that tells that a segment is not as it was signed, and so neither it nor any later one goes for its age
/// or size. Its count is the segment's number.
pub(super) const CODE_KEPT: &str = "audit_kept";

/// How much of the log's past is kept. `None`: all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Segments whose records are all older than this go.
    pub age: Option<Duration>,
    /// The oldest segments go while the files together are larger than this, in bytes.
    pub bytes: Option<u64>,
}

/// Segments that are kept no longer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expired {
    segments: Vec<u64>,
    /// The number of their last record.
    pub(super) through: u64,
    /// A segment that should go, and does not because it is not as it was signed.
    pub(super) kept: Option<u64>,
}

/// Finds them in the log `log`. The segment that is written to is never among them, nor one that is not as it was signed,
/// or comes after such: the record of what was removed is to excuse nobody who changed the files. Reads all that goes.
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
    // What somebody made larger, or put there, makes nothing go.
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
            // Its age is not known.
            expired.kept = (too_much || before.is_some()).then_some(pair[0]);
            break;
        };
        let too_old = before.is_some_and(|before| next.time < before);
        if !too_old && !too_much {
            break;
        }
        // A former log that nobody could go on with ends somewhere.
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
    /// Is nothing to go?
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Removes them, oldest first.
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
