//! Decisions of a daemon that was killed before it could tell what came of them.

use std::collections::BTreeMap;
use std::path::Path;

use onecli_model::RequestId;

use super::checkpoint::Signer;
use super::encode;
use super::error::AuditError;
use super::record::{Event, Record, Verdict};
use super::segment::{self, Place};
use super::walk;

/// How much of the log's end is looked through, in bytes: some ten thousand records, read in less than half a second.
const LOOKED_AT: usize = 8 << 20;
/// The most that are given an outcome.
const MOST: usize = 4096;

/// With their numbers, the last decisions of requests and tunnels that were let through, and of which the end of the log tells no outcome,
/// oldest first. One that lies further back, of a tunnel that was open long, is not found. What is told is signed again,
/// so only lines are read that lead to where the log goes on (`place`): nothing where it was found changed.
///
/// # Errors
/// [`AuditError::Io`].
pub(super) fn find(dir: &Path, signer: &Signer, place: Place) -> Result<Vec<(u64, Record)>, AuditError> {
    let mut open: BTreeMap<RequestId, (u64, Record)> = BTreeMap::new();
    for text in proven(dir, signer, place)?.iter().rev() {
        for line in text.split(|byte| *byte == b'\n') {
            // The first is half a line where reading begins inside a segment.
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
    open.truncate(MOST);
    Ok(open)
}

/// The last [`LOOKED_AT`] bytes of the log, latest segment first.
fn proven(dir: &Path, signer: &Signer, place: Place) -> Result<Vec<Vec<u8>>, AuditError> {
    let Place::In { number: mut next, end } = place else { return Ok(Vec::new()) };
    let read = |number: u64| {
        let path = segment::path(dir, number);
        std::fs::read(&path).map_err(AuditError::io(&path, "read"))
    };
    let mut text = read(next)?;
    text.truncate(usize::try_from(end).unwrap_or(usize::MAX));
    let mut texts = Vec::new();
    let mut wanted = LOOKED_AT;
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
