//! `backup`: a consistent copy of the store, sent to the caller. The copy does not contain the key.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use tokio::io::AsyncReadExt;

use crate::context::AdminContext;
use crate::error::AdminError;

/// The file name prefix of copies in the data directory while they are created and sent.
const PREFIX: &str = "backup-";
/// Bytes sent at a time.
const CHUNK: usize = 64 * 1024;

/// Creates a copy and returns its bytes as a stream. The file is already unlinked when this returns, so it disappears
/// after sending.
pub(crate) async fn copy(
    context: &AdminContext,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, AdminError> {
    let directory = context.handles.host.data_dir();
    let path = directory.join(format!("{PREFIX}{}.db", context.new_id()?));
    let unnamed = Unnamed(path);
    let failed = |error: io::Error| {
        AdminError::Host(format!("cannot make a copy in {}: {error}", directory.display()))
    };
    // Only the daemon may access the file before it has any content.
    let file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unnamed.0).map_err(failed)?;
    drop(file);
    context.handles.store.copy_to(&unnamed.0).await?;
    let file = File::open(&unnamed.0).map_err(failed)?;
    drop(unnamed);
    tracing::info!("backup created");
    context.handles.host.record("backup_taken", "a copy of the store");
    let file = tokio::fs::File::from_std(file);
    Ok(stream::try_unfold(file, |mut file| async move {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut chunk).await?;
        Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    }))
}

/// A file that is removed on drop.
struct Unnamed(PathBuf);

impl Drop for Unnamed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Removes copies that an earlier daemon process could not finish sending.
pub fn remove_left_over(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
