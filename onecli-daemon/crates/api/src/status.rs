//! Answers about the daemon itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// When this daemon began to serve.
    pub started: Timestamp,
    /// Whether connections of managed cgroups are redirected.
    pub transparent: Transparent,
    /// What is wrong with the redirect right now, if anything.
    pub transparent_fault: Option<String>,
    /// Where the explicit proxy listens.
    pub explicit: Option<SocketAddr>,
    /// What is wrong with the database right now: with reading it, or with a change: one tried for this answer, or
    /// the last records that were brought into it.
    pub store_fault: Option<String>,
    /// The audit log.
    pub audit: AuditStatus,
    /// Agents stored; absent where the database cannot be read.
    pub agents: Option<usize>,
    /// Secrets stored; absent where the database cannot be read.
    pub secrets: Option<usize>,
    /// Requests that wait for an approval.
    #[serde(default)]
    pub approvals_waiting: usize,
    /// Counters by name.
    pub counters: BTreeMap<String, u64>,
    /// Growth of each counter per second, over the last minute. Empty in the daemon's first second.
    #[serde(default)]
    pub rates: BTreeMap<String, f64>,
}

/// The audit log, in `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditStatus {
    /// Why it cannot be written right now, if it cannot: requests are refused meanwhile.
    pub fault: Option<String>,
    /// Number of the last record on disk.
    pub durable: u64,
    /// Number of the last record that can be listed.
    pub shipped: u64,
    /// Why records cannot be brought into the database right now, if they cannot.
    pub shipping_fault: Option<String>,
}

/// Whether connections of managed cgroups are redirected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Transparent {
    /// They are.
    Available,
    /// They are not; agents that require the cgroup factor cannot run.
    Off {
        /// Why not.
        reason: String,
        /// What the operator can do about it.
        fix: String,
    },
}
