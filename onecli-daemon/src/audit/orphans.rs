//! Decisions of a daemon that was killed before it could tell what came of them.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::AuditError;
use super::reader::{Entries, Position};
use super::record::{Event, Record, Verdict};
use super::segment;
use crate::model::RequestId;

/// How much of the log's end is looked through, in bytes: some ten thousand records, read in less than half a second.
const LOOKED_AT: u64 = 8 << 20;
/// The most that are given an outcome.
const MOST: usize = 4096;

/// The last decisions of requests and tunnels that were let through, and of which the end of the log tells no outcome,
/// oldest first. One that lies further back, of a tunnel that was open long, is not found.
///
/// # Errors
/// [`AuditError::Io`].
pub(super) fn find(dir: &Path) -> Result<Vec<Record>, AuditError> {
    let Some(start) = start(dir)? else { return Ok(Vec::new()) };
    let mut open: BTreeMap<RequestId, (u64, Record)> = BTreeMap::new();
    for line in Entries::resume(dir, start, 0) {
        let entry = match line {
            Ok(line) => line.entry,
            // The first is half a line where reading begins inside a segment.
            Err(AuditError::BadLine { .. }) => continue,
            Err(error) => return Err(error),
        };
        let Some(id) = entry.record.request_id else { continue };
        match (entry.record.event, entry.record.verdict) {
            (Event::Decision, Some(Verdict::Inject | Verdict::Forward | Verdict::Tunnel)) => {
                open.insert(id, (entry.seq, entry.record));
            }
            (Event::Outcome, _) => {
                open.remove(&id);
            }
            _ => {}
        }
    }
    let mut open: Vec<(u64, Record)> = open.into_values().collect();
    open.sort_by_key(|(seq, _)| *seq);
    Ok(open.into_iter().take(MOST).map(|(_, record)| record).collect())
}

/// Where the last [`LOOKED_AT`] bytes of the log begin.
fn start(dir: &Path) -> Result<Option<Position>, AuditError> {
    let mut wanted = LOOKED_AT;
    let mut start = None;
    for number in segment::list(dir)?.into_iter().rev() {
        let path = segment::path(dir, number);
        let len = std::fs::metadata(&path).map_err(AuditError::io(&path, "inspect"))?.len();
        start = Some(Position { segment: number, offset: len.saturating_sub(wanted) });
        if len >= wanted {
            break;
        }
        wanted -= len;
    }
    Ok(start)
}
