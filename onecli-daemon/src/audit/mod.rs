//! The audit log: who asked for what, what was decided, what came of it. Never a value.
//!
//! JSON lines in segment files, each line on the disk before the caller goes on. [`AuditLog`] writes,
//! [`Entries`] reads.

mod encode;
mod error;
mod fold;
mod orphans;
mod reader;
mod record;
mod segment;
mod text;
mod writer;

#[cfg(test)]
mod tests;

pub use error::AuditError;
pub use fold::{FOLD_WINDOW, Fold, Repeated};
pub use reader::{Entries, Line, Position};
pub use record::{Entry, Event, Mode, Record, Verdict};
pub use text::Text;
pub use writer::{AuditLog, Durable};
