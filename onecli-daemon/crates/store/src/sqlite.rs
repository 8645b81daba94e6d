//! The store in one SQLite file. WAL with `synchronous=FULL`: a commit is on disk when the call returns.

mod audit;
mod erase;
mod file;
mod flags;
mod keys;
mod leases;
mod meta;
mod migrate;
mod pool;
mod require;
mod rows;
mod rules;
mod runners;
mod store;
mod url;
mod versions;

#[cfg(any(test, feature = "testing"))]
mod testing;
#[cfg(test)]
mod tests;

pub use store::SqliteStore;
pub use url::{open, sqlite_path};
