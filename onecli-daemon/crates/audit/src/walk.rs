//! Verification of one segment, line by line, from its signed head to its end.

use std::ops::RangeInclusive;
use std::path::Path;

use super::checkpoint::{Checkpoint, Signer};
use super::encode::{self, LinePrefix};
use super::error::AuditError;
use super::finding::Finding;
use super::link::Link;
use super::segment;
use super::text::Text;
use super::tree::{Tree, leaf_hash};

/// The interval of progress reports, in bytes.
const STEP: usize = 4 << 20;

/// The largest segment. Larger files are not read into memory.
const LARGEST: u64 = 2 * segment::SEGMENT_BYTES;

/// Reports whether a segment's lines connect its signed head to that of the `next` one.
pub(super) fn is_as_signed(dir: &Path, number: u64, next: u64, signer: &Signer) -> bool {
    let head = |number| signer.read(&segment::head_path(dir, number));
    let (Some(begin), Some(end)) = (head(number), head(next)) else { return false };
    let walked = walk(&segment::path(dir, number), &begin, &[], false, &|_| {});
    begin.log == end.log && walked.is_ok_and(|walked| walked.tree == end.tree)
}

/// The reason why a walk failed.
#[derive(Debug)]
pub(super) enum WalkError {
    Audit(AuditError),
    Finding(Box<Finding>),
}

impl From<AuditError> for WalkError {
    fn from(error: AuditError) -> WalkError {
        WalkError::Audit(error)
    }
}

impl From<Finding> for WalkError {
    fn from(finding: Finding) -> WalkError {
        WalkError::Finding(Box::new(finding))
    }
}

/// The result of a walk.
#[derive(Debug)]
pub(super) struct Walked {
    /// The tree at the segment's end.
    pub(super) tree: Tree,
    /// The number of lines.
    pub(super) lines: u64,
    /// Statements of the segment about the log, from signed records only: an attacker with write access could add
    /// others.
    pub(super) statements: LogStatements,
    /// Bytes at its end that are not a whole record.
    pub(super) unfinished: u64,
}

/// Walks from `head`. `marks` are signed checkpoints in order of their size; those inside the segment must agree.
pub(super) fn walk(
    path: &Path,
    head: &Checkpoint,
    marks: &[&Checkpoint],
    is_last: bool,
    progress: &dyn Fn(u64),
) -> Result<Walked, WalkError> {
    let len = std::fs::metadata(path).map_err(AuditError::io(path, "inspect"))?.len();
    if len > LARGEST {
        return Err(Finding::file(path, format!("a segment cannot have {len} bytes")).into());
    }
    let bytes = std::fs::read(path).map_err(AuditError::io(path, "read"))?;
    let mut walker = Walker {
        path,
        bytes: &bytes,
        tree: head.tree.clone(),
        prev: head.prev,
        lines: 0,
        before: None,
        proven: head.tree.size(),
        marks: marks.iter().copied().skip_while(|mark| mark.tree.size() <= head.tree.size()).peekable(),
    };
    let mut offset = 0;
    let mut reported = 0;
    while let Some(len) = memchr::memchr(b'\n', &bytes[offset..]).filter(|len| *len > 0) {
        let line = &bytes[offset..offset + len];
        let after = offset + len + 1;
        if !walker.line(line, after)? {
            break;
        }
        offset = after;
        if offset - reported >= STEP {
            progress((offset - reported) as u64);
            reported = offset;
        }
    }
    progress((bytes.len() - reported) as u64);
    let unfinished = segment::without_room(&bytes[offset..]);
    // Only one thing may follow the records: a line cut short, in the current segment, behind everything that was
    // signed.
    let cut_short = memchr::memchr(b'\n', &bytes[offset..]).is_none_or(|end| end >= unfinished);
    let beyond = walker.marks.peek().is_none();
    if unfinished > 0 && !(is_last && cut_short && beyond) {
        return Err(walker.finding(None, "this is not a record of this log").into());
    }
    Ok(Walked {
        statements: LogStatements::read(&bytes[..offset], walker.proven),
        tree: walker.tree,
        lines: walker.lines,
        unfinished: unfinished as u64,
    })
}

/// Statements of records about the log itself.
#[derive(Debug, Default)]
pub(super) struct LogStatements {
    /// Records of removed segments: each record's number, and the number of the last removed record.
    pruned: Vec<(u64, u64)>,
    /// Ranges of records that a daemon found unsigned and continued from.
    unsigned: Vec<RangeInclusive<u64>>,
}

impl LogStatements {
    /// Reads the records up to number `proven`.
    fn read(bytes: &[u8], proven: u64) -> LogStatements {
        let mut statements = LogStatements::default();
        // No text from an agent contains this, because quotes are escaped.
        for at in memchr::memmem::find_iter(bytes, b"\"code\":\"audit_") {
            let start = memchr::memrchr(b'\n', &bytes[..at]).map_or(0, |end| end + 1);
            let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |end| at + end);
            let Ok(entry) = encode::decode(&bytes[start..end]) else { continue };
            if entry.seq <= proven {
                statements.pruned.extend(entry.record.pruned_through().map(|through| (entry.seq, through)));
                statements.unsigned.extend(entry.unsigned());
            }
        }
        statements
    }

    /// The number of the last record that retention removed. Statements in records that were unsigned when they
    /// were written are ignored in `all`.
    pub(super) fn pruned_through(all: &[&LogStatements]) -> u64 {
        let unsigned: Vec<_> = all.iter().flat_map(|statements| &statements.unsigned).collect();
        let believed = |seq: u64| !unsigned.iter().any(|range| range.contains(&seq));
        let pruned = all.iter().flat_map(|statements| &statements.pruned).filter(|(seq, _)| believed(*seq));
        pruned.map(|(_, through)| *through).max().unwrap_or(0)
    }
}

struct Walker<'w, I: Iterator<Item = &'w Checkpoint>> {
    path: &'w Path,
    bytes: &'w [u8],
    tree: Tree,
    prev: Link,
    lines: u64,
    /// The previous line.
    before: Option<&'w [u8]>,
    /// The number of the last record that a signature covers.
    proven: u64,
    marks: std::iter::Peekable<I>,
}

impl<'w, I: Iterator<Item = &'w Checkpoint>> Walker<'w, I> {
    /// Processes the next line; `after` is the offset of the one behind it. Returns false if it is not a record.
    fn line(&mut self, line: &'w [u8], after: usize) -> Result<bool, WalkError> {
        let Some(start) = LinePrefix::read(line) else { return Ok(false) };
        let expected = self.tree.size() + 1;
        if start.seq != expected {
            let what = if start.seq > expected {
                format!("the records {expected} to {} are missing before this one", start.seq - 1)
            } else {
                format!("record {} stands where record {expected} belongs", start.seq)
            };
            return Err(self.finding(Some(start), &what).into());
        }
        let hash = leaf_hash(line);
        let own = Link::of(&hash);
        if start.prev != self.prev {
            return Err(self.unlinked(start, own, after).into());
        }
        self.tree.push(hash);
        (self.prev, self.before) = (own, Some(line));
        self.lines += 1;
        while let Some(mark) = self.marks.next_if(|mark| mark.tree.size() <= self.tree.size()) {
            if mark.tree != self.tree {
                return Err(self.disagrees(mark).into());
            }
            self.proven = mark.tree.size();
        }
        Ok(true)
    }

    /// Builds the finding for a line that is not linked to the one before. The line behind it shows which of the
    /// two was changed.
    fn unlinked(&self, start: LinePrefix<'_>, own: Link, after: usize) -> Finding {
        let rest = &self.bytes[after..];
        let next = memchr::memchr(b'\n', rest).and_then(|end| LinePrefix::read(&rest[..end]));
        let before = self.before.and_then(LinePrefix::read);
        match before {
            Some(before) if next.is_none_or(|next| next.prev == own) => {
                let mut finding = self.finding(
                    Some(before),
                    "the record was changed: the next one is linked to a different record",
                );
                finding.line = Some(self.lines);
                finding
            }
            _ => self.finding(
                Some(start),
                "the record was changed or replaced: it is not linked to the one before it",
            ),
        }
    }

    /// Builds the finding for records that differ from what was signed although all links fit: an attacker rewrote
    /// the links.
    fn disagrees(&self, mark: &Checkpoint) -> Finding {
        let (first, last) = (self.proven + 1, mark.tree.size());
        let line = self.lines - (last - first);
        let mut finding = self.finding(None, &format!(
            "the records {first} to {last} differ from those signed at {:.6}: one of them was changed, and \
             the links behind it were rewritten; this is the first unproven record",
            mark.time
        ));
        let text = self.bytes.split(|byte| *byte == b'\n').nth(usize::try_from(line - 1).unwrap_or(0));
        finding.time = text.and_then(LinePrefix::read).map(|start| String::from(Text::new(start.time)));
        (finding.line, finding.seq) = (Some(line), Some(first));
        finding
    }

    /// Builds a finding for the next line.
    fn finding(&self, start: Option<LinePrefix<'_>>, what: &str) -> Finding {
        Finding {
            line: Some(self.lines + 1),
            seq: Some(start.map_or(self.tree.size() + 1, |start| start.seq)),
            time: start.map(|start| String::from(Text::new(start.time))),
            ..Finding::file(self.path, what)
        }
    }
}
