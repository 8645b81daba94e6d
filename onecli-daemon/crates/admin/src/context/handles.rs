//! The parts of the daemon that the admin API uses.

use std::sync::Arc;
use std::time::Duration;

use onecli_audit::AuditError;
use onecli_model::{Clock, Random};
use onecli_policy::{Approvals, Snapshot};
use onecli_store::Store;
use onecli_vault::Vault;
use onecli_vault::sources::hashicorp::HashiCorp;
use tokio::sync::watch;

use crate::host::DaemonControl;

/// The parts of the daemon that the admin API uses.
#[derive(Clone)]
pub struct Handles {
    /// The store: agents, secrets, grants, sessions, audit rows.
    pub store: Arc<dyn Store>,
    /// The vault, which seals values, hashes tokens and derives placeholders.
    pub vault: Arc<Vault>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness for tokens and ids.
    pub random: Arc<dyn Random>,
    /// The progress of the audit log, on disk and in the store.
    pub audit: AuditProgress,
    /// The running daemon.
    pub host: Arc<dyn DaemonControl>,
    /// The active policy, used to explain decisions.
    pub policy: watch::Receiver<Arc<Snapshot>>,
    /// Requests that await approval.
    pub approvals: Arc<Approvals>,
    /// The cgroup whose children are agents, below the cgroup2 mount. Peers in it are refused.
    pub agents_root: String,
    /// The time for which replaced values are retained; zero to retain none.
    pub keep_replaced: Duration,
    /// The vault server, if one is configured.
    pub server: Option<Arc<HashiCorp>>,
    /// The reason why the daemon runs no commands on the host, if it runs none.
    pub commands_off: Option<String>,
    /// Uids of OneCLI's own processes, which no agent may run as.
    pub own_uids: Vec<u32>,
}

/// The progress of the audit log: growing sequence numbers, and the faults that stop them.
#[derive(Debug, Clone)]
pub struct AuditProgress {
    /// The last record that is on disk (`AuditLog::subscribe`).
    pub durable: watch::Receiver<u64>,
    /// The last record that can be listed (`Shipper::subscribe`).
    pub shipped: watch::Receiver<u64>,
    /// The fault that prevents writes to the log now (`AuditLog::fault`).
    pub fault: watch::Receiver<Option<AuditError>>,
    /// The fault that prevents shipping of records to the store now (`Shipper::fault`).
    pub shipping_fault: watch::Receiver<Option<String>>,
}
