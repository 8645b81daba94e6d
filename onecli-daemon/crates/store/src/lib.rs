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
pub use sqlite::{SqliteStore, open, sqlite_path};
pub use store::Store;
