//! Background work of the writer: fdatasync(2) for `durability = "relaxed"`, and reading expired segments.

use std::io;
use std::sync::mpsc::{self, Receiver, TryRecvError};

/// At most one running job, on its own thread.
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
    /// Reports whether a job is running.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts a job. The result of an earlier job is discarded.
    pub(super) fn start(&mut self, name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<()> {
        let (done, result) = mpsc::channel();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ = done.send(work());
        })?;
        self.running = Some(result);
        Ok(())
    }

    /// Returns the job's result, once.
    pub(super) fn finished(&mut self) -> Option<io::Result<T>> {
        let result = self.running.take()?;
        match result.try_recv() {
            Ok(done) => Some(Ok(done)),
            Err(TryRecvError::Disconnected) => Some(Err(io::Error::other("the thread has ended"))),
            Err(TryRecvError::Empty) => {
                self.running = Some(result);
                None
            }
        }
    }
}
