//! fdatasync(2) beside the writer, for `durability = "relaxed"`.

use std::fs::File;
use std::io;
use std::sync::mpsc::{self, Receiver, TryRecvError};

/// A sync that may be under way.
#[derive(Debug, Default)]
pub(super) struct BackgroundSync {
    running: Option<(Receiver<io::Result<()>>, u64)>,
}

impl BackgroundSync {
    /// Is one under way?
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Begins one; when it is done, the records up to `seq` are on the disk.
    pub(super) fn start(&mut self, file: File, seq: u64) -> io::Result<()> {
        let (done, result) = mpsc::channel();
        std::thread::Builder::new().name("audit-sync".to_owned()).spawn(move || {
            let _ = done.send(file.sync_data());
        })?;
        self.running = Some((result, seq));
        Ok(())
    }

    /// What came of it, once: the number up to which records are on the disk.
    pub(super) fn finished(&mut self) -> Option<io::Result<u64>> {
        let (result, seq) = self.running.take()?;
        match result.try_recv() {
            Ok(result) => Some(result.map(|()| seq)),
            Err(TryRecvError::Disconnected) => Some(Err(io::Error::other("the thread that syncs is gone"))),
            Err(TryRecvError::Empty) => {
                self.running = Some((result, seq));
                None
            }
        }
    }
}
