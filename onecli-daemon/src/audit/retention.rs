//! Which segments are kept no longer. Whole ones only: the signed head of the first that stays says what went before it.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::checkpoint::Checkpoint;
use super::error::AuditError;
use super::segment;

/// Code of the record that tells of removed segments. Its count is the number of the last record that went.
pub(super) const CODE_PRUNED: &str = "audit_pruned";

/// How much of the log's past is kept. `None`: all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Segments whose records are all older than this go.
    pub age: Option<Duration>,
    /// The oldest segments go while the files together are larger than this, in bytes.
    pub bytes: Option<u64>,
}

/// Segments that are kept no longer.
#[derive(Debug, PartialEq, Eq)]
pub struct Expired {
    segments: Vec<u64>,
    /// The number of their last record.
    pub through: u64,
    /// The bytes they hold.
    pub bytes: u64,
}

/// Finds them. The segment that is written to is never among them.
///
/// # Errors
/// [`AuditError::Io`].
pub fn expired(dir: &Path, retention: &Retention, now: Timestamp) -> Result<Option<Expired>, AuditError> {
    let numbers = segment::list(dir)?;
    let size = |number: u64| {
        let path = segment::path(dir, number);
        std::fs::metadata(&path).map(|found| found.len()).map_err(AuditError::io(&path, "inspect"))
    };
    let mut total = 0;
    for &number in &numbers {
        total += size(number)?;
    }
    let before = retention
        .age
        .and_then(|age| SignedDuration::try_from(age).ok().and_then(|age| now.checked_sub(age).ok()));
    let mut expired = Expired { segments: Vec::new(), through: 0, bytes: 0 };
    for pair in numbers.windows(2) {
        let Some(next) = head(dir, pair[1]) else { break };
        let too_old = before.is_some_and(|before| next.time < before);
        let too_much = retention.bytes.is_some_and(|most| total > most);
        if !too_old && !too_much {
            break;
        }
        let bytes = size(pair[0])?;
        total -= bytes;
        expired.bytes += bytes;
        expired.segments.push(pair[0]);
        expired.through = next.tree.size();
    }
    Ok((!expired.segments.is_empty()).then_some(expired))
}

impl Expired {
    /// How many segments.
    pub fn segments(&self) -> usize {
        self.segments.len()
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

/// What a head says, unproven: whoever can write here can remove segments too.
fn head(dir: &Path, number: u64) -> Option<Checkpoint> {
    let note = std::fs::read_to_string(segment::head_path(dir, number)).ok()?;
    note.rsplit_once("\n\n")?.0.parse().ok()
}
