//! What the handlers share.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use onecli_audit::AuditError;
use onecli_model::ids::new_uuid;
use onecli_model::{Agent, AgentName, Clock, Random, Secret, SecretName};
use onecli_policy::{Approvals, Snapshot};
use onecli_store::{KeptVersion, Store, StoredState};
use onecli_vault::Vault;
use onecli_vault::backends::hashicorp::HashiCorp;
use tokio::sync::{Mutex, MutexGuard, Semaphore, watch};
use uuid::Uuid;

use super::error::AdminError;
use super::host::Host;
use super::rates::Rates;
use super::runner::{self, Runners};

/// The parts of the daemon that the admin API works on.
#[derive(Clone)]
pub struct Handles {
    /// Agents, secrets, grants, sessions, audit rows.
    pub store: Arc<dyn Store>,
    /// Seals values, hashes tokens, derives placeholders.
    pub vault: Arc<Vault>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for tokens and ids.
    pub random: Arc<dyn Random>,
    /// How far the audit log is, and how far of it is in the store.
    pub audit: AuditProgress,
    /// The running daemon.
    pub host: Arc<dyn Host>,
    /// The policy in force, to explain decisions by.
    pub policy: watch::Receiver<Arc<Snapshot>>,
    /// Requests that wait for a person.
    pub approvals: Arc<Approvals>,
    /// The cgroup whose children are agents, below the cgroup2 mount: peers in it are refused.
    pub agents_root: String,
    /// How long replaced values are kept; zero for not at all.
    pub keep_replaced: Duration,
    /// The vault server, where one is configured.
    pub server: Option<Arc<HashiCorp>>,
    /// Why no command of the host is run, where none is.
    pub commands_off: Option<String>,
    /// Uids of OneCLI's own processes, which no agent may run as.
    pub own_uids: Vec<u32>,
}

/// How far the audit log is: sequence numbers, as they grow, and what keeps them from growing.
#[derive(Debug, Clone)]
pub struct AuditProgress {
    /// The last record that is on disk (`AuditLog::subscribe`).
    pub durable: watch::Receiver<u64>,
    /// The last record that can be listed (`Shipper::subscribe`).
    pub shipped: watch::Receiver<u64>,
    /// Why the log cannot be written right now (`AuditLog::fault`).
    pub fault: watch::Receiver<Option<AuditError>>,
    /// Why its records cannot be brought into the store right now (`Shipper::fault`).
    pub shipping_fault: watch::Receiver<Option<String>>,
}

/// How many clients may follow the audit log at once.
const MAX_FOLLOWERS: usize = 16;

pub(super) struct State {
    pub(super) handles: Handles,
    pub(super) started: Timestamp,
    pub(super) followers: Arc<Semaphore>,
    /// Who may run agents.
    pub(super) runners: Runners,
    /// Bounds the questions of runners.
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

    /// Remembers the counters, for the rates in `status`.
    pub(super) fn remember_counters(&self) {
        self.rates.remember(self.handles.clock.instant(), self.handles.host.counters());
    }

    /// Changes are made one after the other: each is judged by the state that it changes.
    pub(super) async fn begin_change(&self) -> Result<Change<'_>, AdminError> {
        let turn = self.changes.lock().await;
        Ok(Change { state: self, stored: self.load().await?, _turn: turn })
    }

    /// When a value that is replaced now is erased; `None` where none is kept.
    pub(super) fn kept_until(&self) -> Option<Timestamp> {
        let keep = self.handles.keep_replaced;
        let until = self.handles.clock.now().checked_add(keep).ok();
        until.filter(|_| !keep.is_zero())
    }

    pub(super) async fn load(&self) -> Result<StoredState, AdminError> {
        Ok(self.handles.store.load().await?)
    }

    /// A new id: UUID version 7 (RFC 9562 section 5.7).
    pub(super) fn new_id(&self) -> Result<Uuid, AdminError> {
        Ok(new_uuid(self.handles.clock.now(), self.handles.random.as_ref())?)
    }
}

/// A turn to change what is stored.
pub(super) struct Change<'s> {
    state: &'s State,
    /// What is stored as the turn begins.
    pub(super) stored: StoredState,
    _turn: MutexGuard<'s, ()>,
}

impl Change<'_> {
    /// Waits until the next request is judged by what is stored now (invariant 11), and tells the daemon's log what
    /// was changed. Who did it is in the log's span.
    pub(super) async fn in_force(self, change: &'static str, subject: &str) -> Result<(), AdminError> {
        tracing::info!(change, subject, "admin change");
        self.state.handles.host.reload().await.map_err(AdminError::Reload)
    }
}

/// Looks up by name.
pub(super) trait Find {
    /// # Errors
    /// [`AdminError::NotFound`].
    fn agent(&self, name: &AgentName) -> Result<&Agent, AdminError>;

    /// # Errors
    /// [`AdminError::NotFound`].
    fn secret(&self, name: &SecretName) -> Result<&Secret, AdminError>;

    /// The value that the current one of a secret replaced, if it is kept.
    fn kept(&self, secret: &Secret) -> Option<&KeptVersion>;

    /// The secrets an agent may use, by name.
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
