//! Opening of the database that a URL names.

use std::path::PathBuf;
use std::sync::Arc;

use super::store::SqliteStore;
use crate::{Store, StoreError};

/// Opens the store that a URL names and migrates its schema. The only supported form is `sqlite:///PATH`.
///
/// # Errors
/// [`StoreError`]: an unsupported URL, a file or directory that other users can read, a database of a newer
/// version.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(SqliteStore::open(&sqlite_path(url)?).await?))
}

/// The database file that a URL names.
///
/// # Errors
/// [`StoreError::Url`].
pub fn sqlite_path(url: &str) -> Result<PathBuf, StoreError> {
    url.strip_prefix("sqlite://")
        .filter(|path| path.starts_with('/') && !path.contains('?'))
        .map(PathBuf::from)
        .ok_or_else(|| StoreError::Url { url: redact(url) })
}

/// A store URL without a possible password: everything between `://` and the last `@` is removed.
fn redact(url: &str) -> String {
    let text = match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://..@{rest}"),
        _ => url.to_owned(),
    };
    text.chars().take(200).flat_map(char::escape_default).collect()
}
