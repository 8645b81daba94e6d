//! Responses about the daemon itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The time at which this daemon began to serve.
    pub started: Timestamp,
    /// Whether connections of managed cgroups are redirected.
    pub transparent: Transparent,
    /// The current fault of the redirect, if there is one.
    pub transparent_fault: Option<String>,
    /// The address of the explicit proxy.
    pub explicit: Option<SocketAddr>,
    /// The current fault of the database, if there is one. It comes from a read, from the small write made for this
    /// response, or from the last attempt to ship audit records.
    pub store_fault: Option<String>,
    /// The audit log.
    pub audit: AuditStatus,
    /// The number of stored agents; absent if the database cannot be read.
    pub agents: Option<usize>,
    /// The number of stored secrets; absent if the database cannot be read.
    pub secrets: Option<usize>,
    /// The number of requests that await approval.
    #[serde(default)]
    pub approvals_waiting: usize,
    /// Counters by name.
    pub counters: BTreeMap<String, u64>,
    /// The growth of each counter per second over the last minute. Empty in the daemon's first second.
    #[serde(default)]
    pub rates: BTreeMap<String, f64>,
}

/// The audit log, in `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditStatus {
    /// Why the log cannot be written now, if it cannot. The daemon refuses requests meanwhile.
    pub fault: Option<String>,
    /// The number of the last record on disk.
    pub durable: u64,
    /// The number of the last record that can be listed.
    pub shipped: u64,
    /// Why records cannot be shipped to the database now, if they cannot.
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
