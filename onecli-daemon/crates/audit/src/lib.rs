//! The audit log: which agent asked for what, the decision, and the outcome. It never contains a secret value.
//!
//! The log consists of JSON lines in segment files. Each line is on disk before the caller continues. [`AuditLog`]
//! writes lines and [`Entries`] reads them. Each line is linked to the one before it, a Merkle tree covers all
//! lines, and signed checkpoints cover the tree's root ([`Verifier`]).

#![forbid(unsafe_code)]

#[macro_use]
mod define;
mod alerts;
mod background;
mod checkpoint;
mod codes;
mod encode;
mod error;
mod field;
mod fields;
mod finding;
mod fold;
mod link;
mod log;
mod publish;
mod queue;
mod quota;
mod reader;
mod record;
mod recover;
mod retention;
mod segment;
mod settings;
mod text;
mod tree;
mod unfinished;
mod verify;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

pub use alerts::TARGET as ALERT_TARGET;
pub use checkpoint::{NoteError, Signer, Verifier, from_single_line, to_single_line};
pub use error::AuditError;
pub use field::{Field, Ocsf, fields};
pub use fields::{HttpFields, Record};
pub use finding::Finding;
pub use fold::{FOLD_WINDOW, Fold, Repeated};
pub use link::Link;
pub use log::{AuditLog, LogStart};
pub use queue::Durable;
pub use quota::{Quota, QuotaExceeded, QuotaLimits};
pub use reader::{Entries, Line, Position};
pub use record::{ConnectionMode, Entry, Event, Verdict};
pub use recover::log_id_in;
pub use retention::Retention;
pub use settings::{Durability, LastKnown, Settings};
pub use text::Text;
pub use verify::{Findings, Verification, Verified, VerifyError, verify};
