//! Signing checkpoints and putting them where they are looked for, on a thread of its own: nobody who waits for a record
//! waits for this.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::checkpoint::{Checkpoint, Signer};
use super::error::AuditError;
use super::segment;

/// The thread that publishes. Dropping it publishes what was handed to it and ends it.
#[derive(Debug)]
pub(super) struct Publisher {
    checkpoints: Option<Sender<Checkpoint>>,
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
            let _ = checkpoints.send(checkpoint);
        }
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
    queue: &Receiver<Checkpoint>,
    told: &watch::Sender<Option<Arc<str>>>,
) {
    let mut failing = false;
    while let Ok(mut checkpoint) = queue.recv() {
        // The last one says it all.
        while let Ok(later) = queue.try_recv() {
            checkpoint = later;
        }
        let note = signer.sign(&checkpoint);
        match segment::replace_file(&segment::checkpoint_path(dir), note.as_bytes()) {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::error!(%error, "a checkpoint of the audit log cannot be written");
            }
            Err(_) => {}
        }
        told.send_replace(Some(note.into()));
    }
}
