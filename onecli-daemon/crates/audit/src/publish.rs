//! The publisher of checkpoints. It signs and writes them on a separate thread, so that no caller that waits for a
//! record waits for a checkpoint.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::checkpoint::{Checkpoint, Signer};
use super::error::AuditError;
use super::segment;

/// A checkpoint, and the sender that reports when it is on disk.
type Submission = (Checkpoint, Option<SyncSender<Result<(), AuditError>>>);

/// The publisher thread. Dropping this handle publishes the queued checkpoints and ends the thread.
#[derive(Debug)]
pub(super) struct Publisher {
    checkpoints: Option<Sender<Submission>>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Starts a publisher that writes to `dir` and sends each note to the watch channel.
    pub(super) fn start(
        dir: &Path,
        signer: Arc<Signer>,
        notes: watch::Sender<Option<Arc<str>>>,
    ) -> Result<Publisher, AuditError> {
        let (checkpoints, queue) = mpsc::channel();
        let path = dir.to_owned();
        let thread = std::thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || publish(&path, &signer, &queue, &notes))
            .map_err(AuditError::io(dir, "start the publisher of"))?;
        Ok(Publisher { checkpoints: Some(checkpoints), thread: Some(thread) })
    }

    /// Queues a checkpoint of records that are on disk.
    pub(super) fn publish(&self, checkpoint: Checkpoint) {
        if let Some(checkpoints) = &self.checkpoints {
            // The thread cannot end before this handle is dropped.
            let _ = checkpoints.send((checkpoint, None));
        }
    }

    /// Queues a checkpoint of records that are on disk, and returns once the checkpoint is on disk too.
    ///
    /// # Errors
    /// [`AuditError::Io`]: the checkpoint on disk does not cover them.
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

fn publish(
    dir: &Path,
    signer: &Signer,
    queue: &Receiver<Submission>,
    notes: &watch::Sender<Option<Arc<str>>>,
) {
    let mut failing = false;
    while let Ok((mut checkpoint, waits)) = queue.recv() {
        let mut waiting = Vec::from_iter(waits);
        // The last checkpoint covers all earlier ones.
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
        notes.send_replace(Some(note.into()));
    }
}
