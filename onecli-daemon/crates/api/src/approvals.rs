//! Approvals in detail, and as they come and go.

use serde::{Deserialize, Serialize};

use super::ApprovalView;

/// `approval show`: the request as the answer is bound to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalDetail {
    /// What is asked. Its digest covers what follows.
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
    /// Its value. Fields that may carry a credential show their placeholders, and `[7 bytes]` in place of anything else.
    pub value: String,
}

/// A body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyView {
    /// Its length; `None` where it streams, and is neither shown nor part of the digest.
    pub bytes: Option<u64>,
    /// SHA-256 over it alone, in hex.
    pub sha256: Option<String>,
    /// All of it, where it is text in UTF-8; at most 64 KiB.
    pub text: Option<String>,
}

/// A line of `approval watch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ApprovalEvent {
    /// A request waits.
    Waiting(Box<ApprovalView>),
    /// Everything that waited at the beginning was reported.
    Ready,
    /// A request waits no more.
    Ended {
        /// The number that it had.
        id: String,
        /// What came of it.
        outcome: ApprovalOutcome,
        /// Who answered, by uid.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
    },
}

/// Why a request waits no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalOutcome {
    /// An administrator allowed it.
    Allowed,
    /// An administrator denied it.
    Denied,
    /// Nobody answered in time.
    TimedOut,
    /// A change of the policy refuses it.
    Revoked,
    /// The agent went away.
    Withdrawn,
    /// The daemon stopped. Only the client reports this.
    DaemonStopped,
}

impl ApprovalOutcome {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            ApprovalOutcome::Allowed => "allowed",
            ApprovalOutcome::Denied => "denied",
            ApprovalOutcome::TimedOut => "timed out",
            ApprovalOutcome::Revoked => "refused by a change of the policy",
            ApprovalOutcome::Withdrawn => "withdrawn: the agent went away",
            ApprovalOutcome::DaemonStopped => "gone: the daemon was stopped",
        }
    }
}
