//! Decisions without an outcome, because the daemon was killed before it could write one.

use std::collections::BTreeMap;
use std::path::Path;

use onecli_model::RequestId;

use super::checkpoint::Signer;
use super::encode;
use super::error::AuditError;
use super::fields::Record;
use super::record::{Event, Verdict};
use super::segment::{self, WritePosition};
use super::walk;

/// The part of the log's end that is searched, in bytes: some ten thousand records, read in less than half a
/// second.
const SEARCH_BYTES: usize = 8 << 20;
/// The most decisions that receive an outcome.
const MAX_FOUND: usize = 4096;

/// Finds the last decisions, with their numbers and oldest first, of allowed requests and tunnels that have no
/// outcome at the end of the log. A decision further back, of a long-lived tunnel, is not found. The new outcomes
/// are signed, so only lines are read that are proven to precede `place`, where the log continues. If the files
/// were changed, nothing is read.
///
/// # Errors
/// [`AuditError::Io`].
pub(super) fn find(
    dir: &Path,
    signer: &Signer,
    place: WritePosition,
) -> Result<Vec<(u64, Record)>, AuditError> {
    let mut open: BTreeMap<RequestId, (u64, Record)> = BTreeMap::new();
    for text in proven(dir, signer, place)?.iter().rev() {
        for line in text.split(|byte| *byte == b'\n') {
            // The first one is half a line if reading begins inside a segment.
            let Ok(entry) = encode::decode(line) else { continue };
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
    }
    let mut open: Vec<(u64, Record)> = open.into_values().collect();
    open.sort_by_key(|(seq, _)| *seq);
    open.truncate(MAX_FOUND);
    Ok(open)
}

/// The last [`SEARCH_BYTES`] bytes of the log, latest segment first.
fn proven(dir: &Path, signer: &Signer, place: WritePosition) -> Result<Vec<Vec<u8>>, AuditError> {
    let WritePosition::In { number: mut next, end } = place else { return Ok(Vec::new()) };
    let read = |number: u64| {
        let path = segment::path(dir, number);
        std::fs::read(&path).map_err(AuditError::io(&path, "read"))
    };
    let mut text = read(next)?;
    text.truncate(usize::try_from(end).unwrap_or(usize::MAX));
    let mut texts = Vec::new();
    let mut wanted = SEARCH_BYTES;
    loop {
        let start = text.len().saturating_sub(wanted);
        wanted -= text.len() - start;
        texts.push(text.split_off(start));
        let before = segment::list(dir)?.into_iter().rev().find(|&number| number < next);
        match before {
            Some(before) if wanted > 0 && walk::is_as_signed(dir, before, next, signer) => {
                text = read(before)?;
                next = before;
            }
            _ => return Ok(texts),
        }
    }
}
