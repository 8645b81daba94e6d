//! The audit log: who asked for what, what was decided, what came of it. Never a value.
//!
//! JSON lines in segment files, each line on the disk before the caller goes on. [`AuditLog`] writes,
//! [`Entries`] reads. Lines are bound to each other, all of them to a Merkle tree, and the tree's root to signed
//! checkpoints ([`Verifier`]).

#![forbid(unsafe_code)]

mod alerts;
mod background;
mod checkpoint;
mod encode;
mod error;
mod fold;
mod log;
mod orphans;
mod publish;
mod quota;
mod reader;
mod record;
mod recover;
mod retention;
mod segment;
mod text;
mod tree;
mod verify;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

pub use alerts::TARGET as ALERT_TARGET;
pub use checkpoint::{NoteError, Signer, Verifier, from_one_line, on_one_line};
pub use encode::Link;
pub use error::AuditError;
pub use fold::{FOLD_WINDOW, Fold, Repeated};
pub use log::{AuditLog, Begin, Durability, Durable, Known, Settings};
pub use quota::{Quota, QuotaExceeded, QuotaLimits};
pub use reader::{Entries, Line, Position};
pub use record::{Entry, Event, Mode, Record, Verdict};
pub use recover::log_in;
pub use retention::Retention;
pub use text::Text;
pub use verify::{Bad, Findings, Verification, Verified, VerifyError, verify};
