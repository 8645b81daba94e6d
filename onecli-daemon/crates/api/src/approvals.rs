//! Approvals in detail, and the stream of approval events.

use serde::{Deserialize, Serialize};

use super::rules::ApprovalView;

/// `approval show`: the request that an answer applies to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalDetail {
    /// The pending approval. Its digest covers the fields below.
    #[serde(flatten)]
    pub approval: ApprovalView,
    /// The header fields, in the order of the digest.
    pub headers: Vec<HeaderView>,
    /// The body.
    pub body: BodyView,
}

/// One header field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderView {
    /// Its name.
    pub name: String,
    /// The field's value. Fields that may carry a credential show only their placeholders; any other content is shown
    /// as `[7 bytes]`.
    pub value: String,
}

/// The body of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyView {
    /// Its length; `None` for a streaming body, which is neither shown nor part of the digest.
    pub bytes: Option<u64>,
    /// SHA-256 of the body alone, in hex.
    pub sha256: Option<String>,
    /// The complete body if it is UTF-8 text of at most 64 KiB.
    pub text: Option<String>,
}

/// One line of `approval watch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ApprovalEvent {
    /// A request awaits approval.
    Waiting(Box<ApprovalView>),
    /// All requests that were pending at the start have been reported.
    Ready,
    /// A request is no longer pending.
    Ended {
        /// The id under which it was pending.
        id: String,
        /// The outcome.
        outcome: ApprovalOutcome,
        /// The uid that answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
    },
}

/// Why a request is no longer pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalOutcome {
    /// An administrator allowed it.
    Allowed,
    /// An administrator denied it.
    Denied,
    /// No administrator answered in time.
    TimedOut,
    /// A policy change now refuses it.
    Revoked,
    /// The agent disconnected.
    Withdrawn,
    /// The daemon stopped. Only the CLI reports this outcome.
    DaemonStopped,
}

impl ApprovalOutcome {
    /// Returns the outcome as displayed text.
    pub fn as_str(self) -> &'static str {
        match self {
            ApprovalOutcome::Allowed => "allowed",
            ApprovalOutcome::Denied => "denied",
            ApprovalOutcome::TimedOut => "timed out",
            ApprovalOutcome::Revoked => "refused by a policy change",
            ApprovalOutcome::Withdrawn => "withdrawn: the agent disconnected",
            ApprovalOutcome::DaemonStopped => "lost: the daemon stopped",
        }
    }
}
