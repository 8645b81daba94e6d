//! The files of the log: `00000001.jsonl`, `00000002.jsonl`, ... Only ever appended to, in whole lines; what a
//! failed write left behind is cut off before the next.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::encode;
use super::error::AuditError;
use super::record::Entry;
use crate::model::PrivateDir;

/// A segment is full at this size.
pub(super) const SEGMENT_BYTES: u64 = 64 << 20;

/// The path of a segment.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.jsonl"))
}

/// The numbers of the segments that are there, in order.
pub(super) fn list(dir: &Path) -> Result<Vec<u64>, AuditError> {
    let failed = AuditError::io(dir, "list");
    let mut numbers = Vec::new();
    for file in std::fs::read_dir(dir).map_err(&failed)? {
        let name = file.map_err(&failed)?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        numbers.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The segments of one log, open for appending by one process.
pub(super) struct Segments {
    dir: PathBuf,
    /// Locked, so that no second daemon writes here. Freed by the kernel when the process ends.
    _lock: File,
    number: u64,
    /// How much of the current segment is on the disk.
    durable: u64,
    /// The current segment; `None` after a failure, until it was opened and cut back to `durable`.
    file: Option<File>,
    max: u64,
}

/// What was found when a log was opened.
pub(super) struct Found {
    /// Sequence number of the last record; 0 in a new log.
    pub(super) last_seq: u64,
    /// Bytes of an unfinished write that were cut off.
    pub(super) cut: u64,
}

impl Segments {
    /// Opens the log in `dir`, cuts off a torn end, and tells where it ends.
    pub(super) fn open(dir: &PrivateDir, max: u64) -> Result<(Segments, Found), AuditError> {
        let dir = dir.path();
        let lock = File::open(dir).map_err(AuditError::io(dir, "open"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AuditError::Locked { path: dir.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(AuditError::io(dir, "lock")(error)),
        }
        let numbers = list(dir)?;
        let number = numbers.last().copied().unwrap_or(1);
        let mut segments = Segments { dir: dir.to_owned(), _lock: lock, number, durable: 0, file: None, max };
        let mut found = Found { last_seq: 0, cut: 0 };
        for &earlier in numbers.iter().rev() {
            let path = path(dir, earlier);
            let mut file = open_for_reading(&path).map_err(AuditError::io(&path, "open"))?;
            let len = file.metadata().map_err(AuditError::io(&path, "inspect"))?.len();
            let (last, end) = last_entry(&mut file, len).map_err(AuditError::io(&path, "read"))?;
            if earlier == number {
                segments.durable = end;
                found.cut = len - end;
            }
            if let Some(last) = last {
                found.last_seq = last.seq;
                break;
            }
        }
        if numbers.is_empty() {
            segments.create(number)?;
        } else {
            segments.reopen()?;
        }
        Ok((segments, found))
    }

    /// Appends whole lines and returns when they are on the disk.
    ///
    /// # Errors
    /// Nothing of `lines` is part of the log then. The next call tries everything again.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), AuditError> {
        // A file that somebody removed or changed takes writes without a word.
        let untouched =
            |file: &File| file.metadata().is_ok_and(|found| found.nlink() > 0 && found.len() == self.durable);
        if !self.file.as_ref().is_some_and(untouched) {
            self.file = None;
            self.reopen()?;
        }
        if self.durable > 0 && self.durable + lines.len() as u64 > self.max {
            self.create(self.number + 1)?;
        }
        let path = path(&self.dir, self.number);
        let Some(file) = &mut self.file else { return Err(AuditError::Closed) };
        match file.write_all(lines).and_then(|()| file.sync_data()) {
            Ok(()) => {
                self.durable += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Best effort, to give back what a full disk lacks; `reopen` insists on it.
                let _ = file.set_len(self.durable);
                self.file = None;
                Err(AuditError::io(&path, "write")(error))
            }
        }
    }

    /// Opens the current segment and cuts it back to what is known to be on the disk.
    fn reopen(&mut self) -> Result<(), AuditError> {
        let path = path(&self.dir, self.number);
        let opened = OpenOptions::new().append(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.replace(&path),
            Err(error) => return Err(AuditError::io(&path, "open")(error)),
        };
        let len = file.metadata().map_err(AuditError::io(&path, "inspect"))?.len();
        if len < self.durable {
            return self.replace(&path);
        }
        file.set_len(self.durable).map_err(AuditError::io(&path, "cut"))?;
        file.sync_all().map_err(AuditError::io(&path, "sync"))?;
        self.file = Some(file);
        Ok(())
    }

    /// Goes on in a new segment where the current one lost records that were on the disk.
    fn replace(&mut self, path: &Path) -> Result<(), AuditError> {
        tracing::error!(path = %path.display(), "audit records were removed from the disk; going on in a new segment");
        self.create(self.number + 1)
    }

    fn create(&mut self, mut number: u64) -> Result<(), AuditError> {
        let file = loop {
            let path = path(&self.dir, number);
            let created = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .map_err(AuditError::io(&path, "create"))?;
            // One with content is not ours to write to; an empty one is left from a create that failed half-way.
            if created.metadata().map_err(AuditError::io(&path, "inspect"))?.len() == 0 {
                break created;
            }
            number += 1;
        };
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(AuditError::io(&self.dir, "sync"))?;
        (self.number, self.durable, self.file) = (number, 0, Some(file));
        Ok(())
    }
}

/// Opens a segment for reading; a symbolic link is refused.
pub(super) fn open_for_reading(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// The last entry of a segment and the offset behind it. What follows that offset is no complete entry.
fn last_entry(file: &mut File, len: u64) -> io::Result<(Option<Entry>, u64)> {
    let mut window = 64 << 10;
    loop {
        let start = len.saturating_sub(window);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        file.take(len - start).read_to_end(&mut bytes)?;
        // Without the segment's beginning, the first line of the window may be half a line.
        let first =
            if start == 0 { 0 } else { memchr::memchr(b'\n', &bytes).map_or(bytes.len(), |at| at + 1) };
        let mut end = bytes.len();
        while let Some(line_end) = memchr::memrchr(b'\n', &bytes[first..end]).map(|at| first + at) {
            let line = memchr::memrchr(b'\n', &bytes[first..line_end]).map_or(first, |at| first + at + 1);
            if let Ok(entry) = encode::decode(&bytes[line..line_end]) {
                return Ok((Some(entry), start + line_end as u64 + 1));
            }
            end = line;
        }
        if start == 0 {
            return Ok((None, 0));
        }
        window *= 4;
    }
}

#[cfg(test)]
impl Segments {
    /// Makes the next write fail as a bad disk does.
    pub(super) fn break_file(&mut self) {
        self.file = Some(open_for_reading(&path(&self.dir, self.number)).unwrap());
    }
}
