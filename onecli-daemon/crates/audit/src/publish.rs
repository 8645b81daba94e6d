//! Signing checkpoints and putting them where they are looked for, on a thread of its own: nobody who waits for a record
//! waits for this.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::checkpoint::{Checkpoint, Signer};
use super::error::AuditError;
use super::segment;

/// A checkpoint, and who waits until it is on the disk.
type Handed = (Checkpoint, Option<SyncSender<Result<(), AuditError>>>);

/// The thread that publishes. Dropping it publishes what was handed to it and ends it.
#[derive(Debug)]
pub(super) struct Publisher {
    checkpoints: Option<Sender<Handed>>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Publishes in `dir` and to those who watch `told`.
    pub(super) fn start(
        dir: &Path,
        signer: Arc<Signer>,
        told: watch::Sender<Option<Arc<str>>>,
    ) -> Result<Publisher, AuditError> {
        let (checkpoints, queue) = mpsc::channel();
        let path = dir.to_owned();
        let thread = std::thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || publish(&path, &signer, &queue, &told))
            .map_err(AuditError::io(dir, "start the publisher of"))?;
        Ok(Publisher { checkpoints: Some(checkpoints), thread: Some(thread) })
    }

    /// Hands over a checkpoint of records that are on the disk.
    pub(super) fn publish(&self, checkpoint: Checkpoint) {
        if let Some(checkpoints) = &self.checkpoints {
            // The thread ends with us, not before.
            let _ = checkpoints.send((checkpoint, None));
        }
    }

    /// Hands over a checkpoint of records that are on the disk, and returns once it is there too.
    ///
    /// # Errors
    /// [`AuditError::Io`]: what is on the disk does not cover them.
    pub(super) fn publish_now(&self, checkpoint: Checkpoint) -> Result<(), AuditError> {
        let (ack, done) = mpsc::sync_channel(1);
        let checkpoints = self.checkpoints.as_ref().ok_or(AuditError::Closed)?;
        checkpoints.send((checkpoint, Some(ack))).map_err(|_| AuditError::Closed)?;
        done.recv().map_err(|_| AuditError::Closed)?
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.checkpoints = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn publish(dir: &Path, signer: &Signer, queue: &Receiver<Handed>, told: &watch::Sender<Option<Arc<str>>>) {
    let mut failing = false;
    while let Ok((mut checkpoint, waits)) = queue.recv() {
        let mut waiting = Vec::from_iter(waits);
        // The last one says it all.
        while let Ok((later, waits)) = queue.try_recv() {
            checkpoint = later;
            waiting.extend(waits);
        }
        let note = signer.sign(&checkpoint);
        let written = segment::replace_file(&segment::checkpoint_path(dir), note.as_bytes());
        if let Err(error) = &written
            && !failing
        {
            tracing::error!(%error, "a checkpoint of the audit log cannot be written");
        }
        failing = written.is_err();
        for ack in waiting {
            let _ = ack.send(written.clone());
        }
        told.send_replace(Some(note.into()));
    }
}
