//! Reading of the log, for shipping and offline use.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::encode;
use super::error::AuditError;
use super::record::Entry;
use super::segment;

/// The most bytes in a line. Longer lines are not records: the fields are bounded ([`super::Text::MAX`]).
const LINE: u64 = 256 << 10;

/// A record and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The record.
    pub entry: Entry,
    /// The line as in the file, without its line feed.
    pub json: String,
}

/// A position between two lines of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

impl Position {
    /// The beginning of a segment.
    pub(super) fn start_of(segment: u64) -> Position {
        Position { segment, offset: 0 }
    }

    /// The number of the segment.
    pub fn segment(self) -> u64 {
        self.segment
    }
}

/// The records of a log in order, read on demand. After `None` the caller may continue later, because the log may
/// have grown. A line that is not a record yields [`AuditError::BadLine`]; later lines can still be read.
///
/// A running writer may cut off and rewrite bytes beyond its last durable number. So do not retain an iterator that
/// has read up to there: store its [`Position`] and resume.
#[derive(Debug)]
pub struct Entries {
    dir: PathBuf,
    position: Position,
    reader: Option<BufReader<File>>,
    after: u64,
}

impl Entries {
    /// The records of the log in `dir` with numbers larger than `seq`.
    ///
    /// # Errors
    /// [`AuditError::Io`] if the directory cannot be read.
    pub fn after(dir: &Path, seq: u64) -> Result<Entries, AuditError> {
        let numbers = segment::list(dir)?;
        let mut position = Position { segment: numbers.first().copied().unwrap_or(0), offset: 0 };
        for &number in numbers.iter().rev() {
            let start = Position { segment: number, offset: 0 };
            let first = Entries::resume(dir, start, 0).next();
            if matches!(first, Some(Ok(line)) if line.entry.seq <= seq.saturating_add(1)) {
                position = start;
                break;
            }
        }
        Ok(Entries::resume(dir, position, seq))
    }

    /// The records from a position on whose numbers are larger than `seq`.
    pub fn resume(dir: &Path, position: Position, seq: u64) -> Entries {
        Entries { dir: dir.to_owned(), position, reader: None, after: seq }
    }

    /// The position of the next line.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Reads the next line of the current segment, or continues with the next one. Returns `None` at the end of the
    /// log.
    fn read_line(&mut self) -> Result<Option<(Position, Vec<u8>)>, AuditError> {
        loop {
            let at = self.position;
            let path = segment::path(&self.dir, at.segment);
            let mut line = Vec::new();
            if let Some(reader) = self.reader(&path)? {
                let failed = AuditError::io(&path, "read");
                reader.take(LINE).read_until(b'\n', &mut line).map_err(failed)?;
            }
            if line == b"\n" {
                line.clear();
            } else if line.last() == Some(&b'\n') || line.len() as u64 == LINE {
                self.position.offset += line.len() as u64;
                return Ok(Some((at, line)));
            }
            // The rest of the segment is room, or not a whole line. If no other segment follows, this is the end of
            // the log, or a running write. Bytes read ahead may be overwritten, so the reader is dropped.
            self.reader = None;
            let Some(next) = segment::list(&self.dir)?.into_iter().find(|&number| number > at.segment) else {
                return Ok(None);
            };
            self.position = Position { segment: next, offset: 0 };
            if segment::without_room(&line) > 0 {
                return Ok(Some((at, line)));
            }
        }
    }

    fn reader(&mut self, path: &Path) -> Result<Option<&mut BufReader<File>>, AuditError> {
        if self.reader.is_none() {
            let mut file = match segment::open_for_reading(path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(AuditError::io(path, "open")(error)),
            };
            file.seek(SeekFrom::Start(self.position.offset)).map_err(AuditError::io(path, "read"))?;
            self.reader = Some(BufReader::with_capacity(64 << 10, file));
        }
        Ok(self.reader.as_mut())
    }
}

impl Iterator for Entries {
    type Item = Result<Line, AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (at, mut line) = match self.read_line() {
                Ok(found) => found?,
                Err(error) => return Some(Err(error)),
            };
            let whole = line.pop_if(|last| *last == b'\n').is_some();
            let parsed = if whole {
                encode::decode(&line).and_then(|entry| {
                    Ok((entry, String::from_utf8(line).map_err(|error| error.to_string())?))
                })
            } else {
                Err("the line has no line end".to_owned())
            };
            match parsed {
                Ok((entry, _)) if entry.seq <= self.after => {}
                Ok((entry, json)) => return Some(Ok(Line { entry, json })),
                Err(reason) => {
                    let path = segment::path(&self.dir, at.segment);
                    return Some(Err(AuditError::BadLine { path, offset: at.offset, reason }));
                }
            }
        }
    }
}
