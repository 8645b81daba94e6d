//! The daemon's persistent state: agents, sessions, secrets (sealed), grants, rules, audit rows.
//!
//! The request path never uses the store. It reads a snapshot in memory, which is compiled from [`Store::load`]
//! after each change that [`Store::subscribe`] announces. Values are never stored in the clear.

#![forbid(unsafe_code)]

mod audit;
mod contents;
mod error;
mod keys;
mod leases;
mod runners;
mod sqlite;
mod store;
mod uses;

#[cfg(test)]
mod contract;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use audit::{AuditQuery, AuditRow};
pub use contents::{AgentChange, GrantRow, ReplacedVersion, Session, StoreContents, StoredAgent};
pub use error::StoreError;
pub use keys::{KeyStore, Rewrap, SlotRow, VaultChange, VersionRow};
pub use leases::{LeaseRow, LeaseStore};
pub use runners::{RunnerChange, RunnerRow, RunnerStore};
pub use sqlite::SqliteStore;
pub use store::Store;

use std::path::PathBuf;
use std::sync::Arc;

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
