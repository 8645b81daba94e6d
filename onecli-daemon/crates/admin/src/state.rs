//! State shared by the handlers.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use onecli_audit::AuditError;
use onecli_model::ids::new_uuid;
use onecli_model::{Agent, AgentName, Clock, Random, Secret, SecretName};
use onecli_policy::{Approvals, Snapshot};
use onecli_store::{KeptVersion, Store, StoredState};
use onecli_vault::Vault;
use onecli_vault::sources::hashicorp::HashiCorp;
use tokio::sync::{Mutex, MutexGuard, Semaphore, watch};
use uuid::Uuid;

use super::error::AdminError;
use super::host::Host;
use super::rates::Rates;
use super::runner::{self, Runners};

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
    pub host: Arc<dyn Host>,
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

/// The number of clients that may follow the audit log at the same time.
const MAX_FOLLOWERS: usize = 16;

pub(super) struct State {
    pub(super) handles: Handles,
    pub(super) started: Timestamp,
    pub(super) followers: Arc<Semaphore>,
    /// The users and groups that may run agents.
    pub(super) runners: Runners,
    /// Limits concurrent queries of runners.
    pub(super) runner_turns: Semaphore,
    pub(super) rates: Rates,
    changes: Mutex<()>,
}

impl State {
    pub(super) fn new(handles: Handles) -> State {
        let started = handles.clock.now();
        State {
            runners: Runners::new(handles.store.as_ref()),
            runner_turns: Semaphore::new(runner::AT_ONCE),
            handles,
            started,
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            rates: Rates::default(),
            changes: Mutex::new(()),
        }
    }

    /// Stores a reading of the counters, for the rates in `status`.
    pub(super) fn remember_counters(&self) {
        self.rates.remember(self.handles.clock.instant(), self.handles.host.counters());
    }

    /// Starts a change. Changes are made one at a time, so each one is checked against the state that it changes.
    pub(super) async fn begin_change(&self) -> Result<Change<'_>, AdminError> {
        let turn = self.changes.lock().await;
        Ok(Change { state: self, stored: self.load().await?, _turn: turn })
    }

    /// Returns the time at which a value replaced now is erased; `None` if none is retained.
    pub(super) fn kept_until(&self) -> Option<Timestamp> {
        let keep = self.handles.keep_replaced;
        let until = self.handles.clock.now().checked_add(keep).ok();
        until.filter(|_| !keep.is_zero())
    }

    pub(super) async fn load(&self) -> Result<StoredState, AdminError> {
        Ok(self.handles.store.load().await?)
    }

    /// Returns a new id: UUID version 7 (RFC 9562 section 5.7).
    pub(super) fn new_id(&self) -> Result<Uuid, AdminError> {
        Ok(new_uuid(self.handles.clock.now(), self.handles.random.as_ref())?)
    }
}

/// A turn to change stored data.
pub(super) struct Change<'s> {
    state: &'s State,
    /// The stored state at the start of the turn.
    pub(super) stored: StoredState,
    _turn: MutexGuard<'s, ()>,
}

impl Change<'_> {
    /// Waits until the next request uses the stored state (invariant 11), and logs the change. The log span contains
    /// the caller.
    pub(super) async fn in_force(self, change: &'static str, subject: &str) -> Result<(), AdminError> {
        tracing::info!(change, subject, "admin change");
        self.state.handles.host.reload().await.map_err(AdminError::Reload)
    }
}

/// Lookups by name.
pub(super) trait Find {
    /// # Errors
    /// [`AdminError::NotFound`].
    fn agent(&self, name: &AgentName) -> Result<&Agent, AdminError>;

    /// # Errors
    /// [`AdminError::NotFound`].
    fn secret(&self, name: &SecretName) -> Result<&Secret, AdminError>;

    /// Returns the retained value that the secret's current value replaced, if there is one.
    fn kept(&self, secret: &Secret) -> Option<&KeptVersion>;

    /// Returns the secrets that an agent may use, sorted by name.
    fn granted<'s>(&'s self, agent: &Agent) -> Vec<&'s Secret>;
}

impl Find for StoredState {
    fn agent(&self, name: &AgentName) -> Result<&Agent, AdminError> {
        self.agents
            .iter()
            .map(|stored| &stored.agent)
            .find(|agent| agent.name == *name)
            .ok_or_else(|| AdminError::not_found("agent", name))
    }

    fn secret(&self, name: &SecretName) -> Result<&Secret, AdminError> {
        self.secrets
            .iter()
            .find(|secret| secret.name == *name)
            .ok_or_else(|| AdminError::not_found("secret", name))
    }

    fn kept(&self, secret: &Secret) -> Option<&KeptVersion> {
        let is_before = |kept: &&KeptVersion| {
            kept.secret.id == secret.id && kept.secret.version.checked_add(1) == Some(secret.version)
        };
        self.kept.iter().find(is_before)
    }

    fn granted<'s>(&'s self, agent: &Agent) -> Vec<&'s Secret> {
        let is_granted = |secret: &&Secret| {
            self.grants.iter().any(|grant| grant.agent == agent.id && grant.secret == secret.id)
        };
        self.secrets.iter().filter(is_granted).collect()
    }
}
