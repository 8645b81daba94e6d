//! Serves the kernel's requests for the disk.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::{Mutex, MutexGuard};

use super::fault::Fault;

/// The kernel caches no attributes, because tests change them behind its back.
const TTL: Duration = Duration::ZERO;
const ROOT: u64 = 1;
/// Reported free space, in blocks of 4 KiB.
const BLOCKS: u64 = 1 << 20;

/// The content of the disk, and its fault.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) fault: Option<Fault>,
    files: BTreeMap<u64, Content>,
    names: BTreeMap<OsString, u64>,
    /// The names at the last sync of the directory.
    synced_names: BTreeMap<OsString, u64>,
    made: u64,
}

#[derive(Debug, Default)]
struct Content {
    data: Vec<u8>,
    mode: u16,
    /// Changes since the last sync, oldest first.
    unsynced: Vec<Change>,
}

/// The data to undo one change: the previous bytes from `at` on, and the previous length of the file.
#[derive(Debug)]
struct Change {
    at: usize,
    over: Vec<u8>,
    len: usize,
    /// The number of bytes written; 0 if only the length was set.
    wrote: usize,
}

impl Content {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len();
        let over = self.data.get(at..end.min(self.data.len())).unwrap_or_default().to_vec();
        self.unsynced.push(Change { at, over, len: self.data.len(), wrote: bytes.len() });
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[at..end].copy_from_slice(bytes);
    }

    fn set_len(&mut self, len: usize) {
        let over = self.data.get(len..).unwrap_or_default().to_vec();
        self.unsynced.push(Change { at: len, over, len: self.data.len(), wrote: 0 });
        self.data.resize(len, 0);
    }

    /// Undoes all changes but a number of the oldest, and the second half of the last remaining one.
    fn lose(&mut self, kept: usize) {
        while let Some(Change { at, over, len, wrote }) = self.unsynced.pop() {
            let torn = self.unsynced.len() < kept;
            let stays = match (torn, wrote) {
                (true, 0) => break,
                (true, wrote) => wrote / 2,
                (false, _) => 0,
            };
            self.data.resize(self.data.len().max(at + over.len()), 0);
            if let Some(over) = over.get(stays..) {
                self.data[at + stays..at + stays + over.len()].copy_from_slice(over);
            }
            self.data.truncate(len.max(at + stays));
            if torn {
                break;
            }
        }
        self.unsynced.clear();
    }
}

impl State {
    /// Discards unsynced changes, except for some at the beginning.
    pub(super) fn lose(&mut self, chance: u64) {
        self.names.clone_from(&self.synced_names);
        for content in self.files.values_mut() {
            let changes = u64::try_from(content.unsynced.len()).expect("a length");
            content.lose(usize::try_from(chance % (changes + 1)).expect("smaller than a length"));
        }
    }

    fn attributes(&self, ino: u64) -> Option<FileAttr> {
        let (kind, perm, size) = match self.files.get(&ino) {
            Some(content) => (FileType::RegularFile, content.mode, content.data.len() as u64),
            None if ino == ROOT => (FileType::Directory, 0o700, 0),
            None => return None,
        };
        let linked = ino == ROOT || self.names.values().any(|named| *named == ino);
        Some(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: u32::from(linked),
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn changeable(&self) -> Result<(), Errno> {
        self.fault.and_then(Fault::of_change).map_or(Ok(()), Err)
    }

    fn file(&mut self, ino: INodeNo) -> Result<&mut Content, Errno> {
        self.files.get_mut(&ino.0).ok_or(Errno::ENOENT)
    }

    fn sync(&mut self) -> Result<(), Errno> {
        match self.fault {
            Some(Fault::Sync) => Err(Errno::EIO),
            _ => self.changeable(),
        }
    }
}

/// Serves the kernel's requests.
pub(super) struct Server {
    pub(super) state: Arc<Mutex<State>>,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Sleeps as a slow disk would, without holding the lock on the state.
    fn linger(&self) {
        let fault = self.state().fault;
        if let Some(Fault::Slow(time)) = fault {
            std::thread::sleep(time);
        }
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("64 bits")
}

fn tell(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.state();
        match state.names.get(name).and_then(|ino| state.attributes(*ino)) {
            Some(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.state().attributes(ino.0) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state();
        if let Err(errno) = state.changeable() {
            return reply.error(errno);
        }
        if let Ok(file) = state.file(ino) {
            if let Some(mode) = mode {
                file.mode = u16::try_from(mode & 0o7777).expect("twelve bits");
            }
            if let Some(size) = size {
                file.set_len(index(size));
            }
        }
        match state.attributes(ino.0) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn create(&self, _: &Request, _: INodeNo, name: &OsStr, mode: u32, _: u32, _: i32, reply: ReplyCreate) {
        let mut state = self.state();
        if let Err(errno) = state.changeable() {
            return reply.error(errno);
        }
        state.made += 1;
        let ino = ROOT + state.made;
        let mode = u16::try_from(mode & 0o7777).expect("twelve bits");
        state.files.insert(ino, Content { mode, ..Content::default() });
        state.names.insert(name.to_owned(), ino);
        let attributes = state.attributes(ino).expect("just created");
        reply.created(&TTL, &attributes, Generation(0), FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Bypasses the page cache, which would survive a power failure.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.state().file(ino) {
            Ok(file) => {
                let rest = file.data.get(index(offset)..).unwrap_or_default();
                reply.data(&rest[..rest.len().min(index(size.into()))]);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.state();
        let refused = state.changeable().err();
        let taken = match (refused, state.fault) {
            (Some(_), Some(Fault::Middle)) => &data[..data.len() / 2],
            (Some(_), _) => &[],
            (None, _) => data,
        };
        let written = state.file(ino).map(|file| file.write(index(offset), taken));
        match refused.map_or(written, Err) {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("at most 16 MiB")),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.linger();
        let mut state = self.state();
        let synced = state.sync().and_then(|()| state.file(ino).map(|file| file.unsynced.clear()));
        tell(reply, synced);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.linger();
        let mut state = self.state();
        let state = &mut *state;
        tell(reply, state.sync().map(|()| state.synced_names.clone_from(&state.names)));
    }

    fn unlink(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = self.state();
        let removed = state.changeable().and_then(|()| state.names.remove(name).ok_or(Errno::ENOENT));
        tell(reply, removed.map(drop));
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        name: &OsStr,
        _: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut state = self.state();
        let moved = state.changeable().and_then(|()| state.names.remove(name).ok_or(Errno::ENOENT));
        let moved = moved.map(|ino| state.names.insert(new_name.to_owned(), ino));
        tell(reply, moved.map(|_| ()));
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let state = self.state();
        let own = [(OsStr::new("."), ROOT), (OsStr::new(".."), ROOT)].into_iter();
        let files = state.names.iter().map(|(name, ino)| (name.as_os_str(), *ino));
        for (at, (name, ino)) in own.chain(files).enumerate().skip(index(offset)) {
            let kind = if ino == ROOT { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(ino), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, 4096, 255, 4096);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsynced_data_is_lost() {
        let lost = |kept: usize| {
            let mut content = Content::default();
            content.write(0, b"synced..");
            content.unsynced.clear();
            content.write(6, b"AAAA");
            content.set_len(7);
            content.write(7, b"BBBB");
            content.lose(kept);
            String::from_utf8(content.data).unwrap()
        };
        assert_eq!(lost(0), "synced..");
        assert_eq!(lost(1), "syncedAA");
        assert_eq!(lost(2), "syncedA");
        assert_eq!(lost(3), "syncedABB");
    }
}
