//! The files of the log: `00000001.jsonl`, `00000002.jsonl`, ... Whole lines are appended and never changed. The
//! remains of a failed write are cut off before the next write. Each segment has a head, such as `00000001.head`: a
//! signed checkpoint of everything before the segment.
//!
//! Behind the records of the last segment there is room: empty lines that were written ahead. So a record's write
//! changes no file size, and its fdatasync waits for no journal (measured on ext4: 130 to 170 us instead of 250).
//! Readers of JSON lines skip empty lines. `tail -f` does not see records written over them; `onecli audit tail -f`
//! does.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use onecli_sys::PrivateDir;

use super::error::AuditError;

/// The size at which a segment is full.
pub(super) const SEGMENT_BYTES: u64 = 64 << 20;
/// The bound on segment numbers. Files with a larger number are ignored.
const LAST: u64 = 99_999_999;
/// The room made at a time, in writes as large as the present one, within the bounds of [`ROOM`]. Under load a
/// small room would be used up at once, and each new one costs a commit of the file system's journal.
const AHEAD: usize = 32;
const ROOM: std::ops::RangeInclusive<usize> = 64 << 10..=1 << 20;

/// The path of a segment.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.jsonl"))
}

/// The path of a segment's head.
pub(super) fn head_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.head"))
}

/// The path of the last checkpoint.
pub(super) fn checkpoint_path(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

/// The path of the verifier key.
pub(super) fn key_path(dir: &Path) -> PathBuf {
    dir.join("public-key")
}

/// The numbers of the existing segments, in order.
pub(super) fn list(dir: &Path) -> Result<Vec<u64>, AuditError> {
    let failed = AuditError::io(dir, "list");
    let mut numbers = Vec::new();
    for file in std::fs::read_dir(dir).map_err(&failed)? {
        numbers.extend(file.map_err(&failed)?.file_name().to_str().and_then(number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The number of the segment with this file name; `None` for any other name, including `1.jsonl`.
fn number(name: &str) -> Option<u64> {
    let stem = name.strip_suffix(".jsonl").filter(|stem| stem.len() == 8)?;
    let digits = stem.bytes().all(|byte| byte.is_ascii_digit());
    stem.parse().ok().filter(|number| digits && *number < LAST)
}

/// Locks the log for this process. The kernel releases the lock when the process ends.
pub(super) fn lock(dir: &Path) -> Result<File, AuditError> {
    let lock = File::open(dir).map_err(AuditError::io(dir, "open"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(AuditError::Locked { path: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(AuditError::io(dir, "lock")(error)),
    }
}

/// Replaces a small file: writes a second file and renames it, so that after a crash or a power failure either the
/// old or the new content exists. If the file is new, its directory entry is on disk when this returns.
pub(super) fn replace_file(path: &Path, content: &[u8]) -> Result<(), AuditError> {
    let beside = path.with_added_extension("new");
    let failed = AuditError::io(path, "write");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(&failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(&failed)?;
    let first = !path.exists();
    std::fs::rename(&beside, path).map_err(&failed)?;
    match path.parent().filter(|_| first) {
        Some(dir) => sync_directory(dir),
        None => Ok(()),
    }
}

pub(super) fn sync_directory(dir: &Path) -> Result<(), AuditError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(AuditError::io(dir, "sync"))
}

/// Saves bytes that are not part of the log beside their segment: as `00000001.aside`, then `.aside-2` and so on.
pub(super) fn save_aside(dir: &Path, number: u64, bytes: &[u8]) -> Result<PathBuf, AuditError> {
    let mut nth = 1;
    loop {
        let suffix = if nth == 1 { "aside".to_owned() } else { format!("aside-{nth}") };
        let path = dir.join(format!("{number:08}.{suffix}"));
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = opened.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
        match written {
            Ok(()) => return sync_directory(dir).map(|()| path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => nth += 1,
            Err(error) => return Err(AuditError::io(&path, "write")(error)),
        }
    }
}

/// The end of the records, without the room behind them.
pub(super) fn without_room(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| !matches!(byte, b'\n' | 0)).map_or(0, |last| last + 1)
}

/// The position at which writing continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WritePosition {
    /// In this segment, at this offset.
    In { number: u64, end: u64 },
    /// In a new segment with this number.
    New { number: u64 },
}

/// Creates the head of a new segment.
pub(super) type MakeHead<'h> = &'h dyn Fn() -> String;

/// The segments of one log, open for writing by one process.
pub(super) struct Segments {
    dir: PathBuf,
    _lock: File,
    number: u64,
    /// The end of the records in the current segment.
    end: u64,
    /// The file size: `end` and the room behind it.
    len: u64,
    /// The current segment. After a failure it is `None` until it was reopened and cut back to `end`.
    file: Option<File>,
    max: u64,
}

impl Segments {
    /// Continues at `place`; the bytes behind it are cut off.
    pub(super) fn open(
        dir: &PrivateDir,
        lock: File,
        place: WritePosition,
        max: u64,
        head: MakeHead<'_>,
    ) -> Result<Segments, AuditError> {
        let (WritePosition::In { number, .. } | WritePosition::New { number }) = place;
        let dir = dir.path().to_owned();
        let mut segments = Segments { dir, _lock: lock, number, end: 0, len: 0, file: None, max };
        match place {
            WritePosition::In { end, .. } => {
                segments.end = end;
                segments.reopen(head)?;
            }
            WritePosition::New { number } => segments.begin(number, head)?,
        }
        Ok(segments)
    }

    /// Appends whole lines. With `sync`, returns when they are on disk.
    ///
    /// # Errors
    /// No part of `lines` is then in the log. The next call retries everything.
    pub(super) fn append(&mut self, lines: &[u8], sync: bool, head: MakeHead<'_>) -> Result<(), AuditError> {
        self.ready(head)?;
        if self.end > 0 && self.end + lines.len() as u64 > self.max {
            self.finish()?;
            self.begin(self.number + 1, head)?;
        }
        self.put(lines, sync)
    }

    /// [`Segments::append`] with a sync, even if the segment is full: no head is signed between the existing
    /// records and these.
    pub(super) fn append_here(&mut self, lines: &[u8], head: MakeHead<'_>) -> Result<(), AuditError> {
        self.ready(head)?;
        self.put(lines, true)
    }

    /// Reopens the file if it was removed or changed: writes to such a file would succeed without an error.
    fn ready(&mut self, head: MakeHead<'_>) -> Result<(), AuditError> {
        let untouched =
            |file: &File| file.metadata().is_ok_and(|found| found.nlink() > 0 && found.len() == self.len);
        if !self.file.as_ref().is_some_and(untouched) {
            self.file = None;
            self.reopen(head)?;
        }
        Ok(())
    }

    fn put(&mut self, lines: &[u8], sync: bool) -> Result<(), AuditError> {
        let path = path(&self.dir, self.number);
        let Some(file) = &self.file else { return Err(AuditError::Closed) };
        let written = write(file, self.end, self.len, self.max, lines);
        match written.and_then(|len| if sync { file.sync_data().map(|()| len) } else { Ok(len) }) {
            Ok(len) => {
                self.end += lines.len() as u64;
                self.len = len;
                Ok(())
            }
            Err(error) => {
                // Best effort, to free space on a full disk. `reopen` enforces it.
                let _ = file.set_len(self.end);
                self.file = None;
                Err(AuditError::io(&path, "write")(error))
            }
        }
    }

    /// A handle of the current segment, for a sync on another thread.
    pub(super) fn handle(&self) -> Option<io::Result<File>> {
        self.file.as_ref().map(File::try_clone)
    }

    /// The current segment's number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Removes the room and syncs the file, before another segment begins or the log ends.
    pub(super) fn finish(&mut self) -> Result<(), AuditError> {
        let Some(file) = &self.file else { return Ok(()) };
        let path = path(&self.dir, self.number);
        file.set_len(self.end).map_err(AuditError::io(&path, "cut"))?;
        self.len = self.end;
        file.sync_all().map_err(AuditError::io(&path, "sync"))
    }

    /// Opens the current segment and cuts it back to the end of the log.
    fn reopen(&mut self, head: MakeHead<'_>) -> Result<(), AuditError> {
        let path = path(&self.dir, self.number);
        let opened = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.go_on(&path, head),
            Err(error) => return Err(AuditError::io(&path, "open")(error)),
        };
        let len = file.metadata().map_err(AuditError::io(&path, "inspect"))?.len();
        if len < self.end {
            return self.go_on(&path, head);
        }
        file.set_len(self.end).map_err(AuditError::io(&path, "cut"))?;
        file.sync_all().map_err(AuditError::io(&path, "sync"))?;
        self.len = self.end;
        self.file = Some(file);
        Ok(())
    }

    /// Continues in a new segment if the current one lost records that were on disk.
    fn go_on(&mut self, path: &Path, head: MakeHead<'_>) -> Result<(), AuditError> {
        tracing::error!(path = %path.display(), "audit records were removed from the disk; continuing in a new segment");
        self.begin(self.number + 1, head)
    }

    fn begin(&mut self, mut number: u64, head: MakeHead<'_>) -> Result<(), AuditError> {
        let path = loop {
            let path = path(&self.dir, number);
            // A file with content belongs to another writer. An empty file is left from an attempt that failed
            // half-way.
            match std::fs::symlink_metadata(&path) {
                Ok(found) if found.len() > 0 || !found.is_file() => number += 1,
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(AuditError::io(&path, "inspect")(error));
                }
                _ => break path,
            }
        };
        replace_file(&head_path(&self.dir, number), head().as_bytes())?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(AuditError::io(&path, "create"))?;
        sync_directory(&self.dir)?;
        (self.number, self.end, self.len, self.file) = (number, 0, 0, Some(file));
        Ok(())
    }
}

/// Writes `lines` at `end`, into the room of the file of length `len`, or extends the file with more room. Returns
/// the new length.
fn write(file: &File, end: u64, len: u64, max: u64, lines: &[u8]) -> io::Result<u64> {
    let after = end + lines.len() as u64;
    if after <= len {
        return file.write_all_at(lines, end).map(|()| len);
    }
    let wanted = (lines.len() * AHEAD).clamp(*ROOM.start(), *ROOM.end());
    let room = usize::try_from(max.saturating_sub(after)).map_or(wanted, |left| left.min(wanted));
    let mut with_room = lines.to_vec();
    with_room.resize(lines.len() + room, b'\n');
    match file.write_all_at(&with_room, end) {
        Ok(()) => Ok(after + room as u64),
        // The disk may have space for the lines, but not for the room.
        Err(error) if room > 0 && matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => {
            file.set_len(end)?;
            file.write_all_at(lines, end).map(|()| after)
        }
        Err(error) => Err(error),
    }
}

/// Opens a segment for reading; a symbolic link is refused.
pub(super) fn open_for_reading(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)
}

#[cfg(test)]
impl Segments {
    /// Makes the next write fail as a bad disk does.
    pub(super) fn break_file(&mut self) {
        self.file = Some(open_for_reading(&path(&self.dir, self.number)).unwrap());
    }
}
