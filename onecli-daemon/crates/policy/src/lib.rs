//! Policy: identities, decisions and grants, as pure functions over a snapshot. Two kinds of state survive a
//! snapshot: the counts of limits, and the requests that wait for approval. No I/O.

#![forbid(unsafe_code)]

mod approvals;
mod decide;
mod denials;
mod grant;
mod host_index;
mod identity;
mod limits;
mod named;
mod placeholders;
mod refusals;
mod route;
mod rules;
mod scope;
mod secret_test;
mod snapshot;
mod trace;

pub use approvals::{
    ApprovalAnswer, ApprovalChange, ApprovalEnd, ApprovalError, ApprovalId, ApprovalRequest, Approvals,
    NotPending, PER_MINUTE, PendingApproval,
};
pub use decide::{Decision, DecisionOutcome, DecisionReason, RequestFacts};
pub use grant::{Grant, ScrubGrant, SentAs};
pub use host_index::HostGroups;
pub use identity::{CaptureMode, ClientEvidence, Identity};
pub use limits::{Exceeded, Limits};
pub use route::Route;
pub use scope::widened;
pub use secret_test::TestPermit;
pub use snapshot::{AgentInput, Snapshot, SnapshotInput, TokenInput};
pub use trace::{Considered, Subject, Trace};

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
