//! `backup`: a consistent copy of the store, sent to whoever asked. The key is not in it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use tokio::io::AsyncReadExt;

use super::error::AdminError;
use super::state::State;

/// What copies are called in the data directory, while they are made and sent.
const PREFIX: &str = "backup-";
/// Bytes sent at a time.
const CHUNK: usize = 64 * 1024;

/// Makes a copy and gives its bytes. It has no name any more when this returns, and is gone when it was sent.
pub(super) async fn copy(
    state: &State,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, AdminError> {
    let directory = state.handles.host.data_dir();
    let path = directory.join(format!("{PREFIX}{}.db", state.new_id()?));
    let unnamed = Unnamed(path);
    let failed = |error: io::Error| {
        AdminError::Host(format!("cannot make a copy in {}: {error}", directory.display()))
    };
    // Ours alone before there is anything in it.
    let file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unnamed.0).map_err(failed)?;
    drop(file);
    state.handles.store.copy_to(&unnamed.0).await?;
    let file = File::open(&unnamed.0).map_err(failed)?;
    drop(unnamed);
    tracing::info!("a backup is taken");
    state.handles.host.record("backup_taken", "a copy of the store");
    let file = tokio::fs::File::from_std(file);
    Ok(stream::try_unfold(file, |mut file| async move {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut chunk).await?;
        Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    }))
}

/// A file that goes away whatever happens.
struct Unnamed(PathBuf);

impl Drop for Unnamed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Removes copies that a former daemon did not live to send.
pub fn remove_left_over(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
