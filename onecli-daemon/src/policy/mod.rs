//! Who may do what: identities, decisions and grants. Pure functions over a snapshot; no I/O.

mod decide;
mod grant;
mod identity;
mod snapshot;

pub use decide::{Decision, RequestFacts, Route};
pub use grant::{Grant, Watch};
pub use identity::{Evidence, Identity, Mode};
pub use snapshot::{AgentInput, Snapshot, SnapshotInput, TokenInput};

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::with_session;
