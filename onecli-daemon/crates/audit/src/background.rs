//! Work that the writer waits for without standing still: fdatasync(2) for `durability = "relaxed"`, reading what is to go.

use std::io;
use std::sync::mpsc::{self, Receiver, TryRecvError};

/// Work that may be under way, on a thread of its own.
#[derive(Debug)]
pub(super) struct Background<T> {
    running: Option<Receiver<T>>,
}

impl<T> Default for Background<T> {
    fn default() -> Background<T> {
        Background { running: None }
    }
}

impl<T: Send + 'static> Background<T> {
    /// Is some under way?
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Begins it; what came of an earlier one is no longer told.
    pub(super) fn start(&mut self, name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<()> {
        let (done, result) = mpsc::channel();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ = done.send(work());
        })?;
        self.running = Some(result);
        Ok(())
    }

    /// What came of it, once.
    pub(super) fn finished(&mut self) -> Option<io::Result<T>> {
        let result = self.running.take()?;
        match result.try_recv() {
            Ok(done) => Some(Ok(done)),
            Err(TryRecvError::Disconnected) => Some(Err(io::Error::other("the thread that did it is gone"))),
            Err(TryRecvError::Empty) => {
                self.running = Some(result);
                None
            }
        }
    }
}
