//! What the daemon remembers: agents, sessions, secrets (sealed), grants, rules, audit rows.
//!
//! The request path never comes here: it reads a snapshot in memory, compiled from [`Store::load`] after each
//! change that [`Store::subscribe`] tells of. No value is ever stored in the clear.

#![forbid(unsafe_code)]

mod error;
mod keys;
mod leases;
mod runners;
mod sqlite;
mod uses;

#[cfg(test)]
mod contract;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use error::StoreError;
pub use keys::{KeyStore, Rewrap, SlotRow, VaultChange, VersionRow};
pub use leases::{LeaseRow, LeaseStore};
pub use runners::{RunnerChange, RunnerRow, RunnerStore};
pub use sqlite::SqliteStore;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use onecli_model::{
    Agent, AgentId, CgroupName, Egress, Factors, LogId, RequestId, Rule, RuleId, Secret, SecretId, Terms,
    TokenHash,
};
use tokio::sync::watch;

/// Everything that decides about requests, as it stood at one moment.
#[derive(Debug, Clone, Default)]
pub struct StoredState {
    /// All agents, by name.
    pub agents: Vec<StoredAgent>,
    /// All sessions that were not pruned yet. Some may have expired: compare [`Session::expires`] at each use.
    pub sessions: Vec<Session>,
    /// All secrets with their current version, by name.
    pub secrets: Vec<Secret>,
    /// Values that were replaced and are still kept, by name of the secret: at most one of each.
    pub kept: Vec<KeptVersion>,
    /// All grants.
    pub grants: Vec<GrantRow>,
    /// Grants that were taken back, of agents and secrets that are still there.
    pub former_grants: Vec<GrantRow>,
    /// All rules, by number.
    pub rules: Vec<Rule>,
    /// When secrets were last injected, as far as the audit rows say.
    pub last_uses: HashMap<SecretId, Timestamp>,
}

/// The version of a secret that the current one replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptVersion {
    /// The secret as it was, with the sealed value in a form that does not open as the current one.
    pub secret: Secret,
    /// When it is erased.
    pub until: Timestamp,
}

/// An agent and the keyed hash of its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAgent {
    /// The agent.
    pub agent: Agent,
    /// The hash of its own token.
    pub token_hash: TokenHash,
}

/// A change of an agent: what is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentChange {
    /// What it must prove.
    pub factors: Option<Factors>,
    /// Its managed cgroup.
    pub cgroup: Option<CgroupName>,
    /// The user its processes run as, if any.
    pub user: Option<Option<String>>,
    /// What happens to hosts that no grant names.
    pub egress: Option<Egress>,
    /// Whether its commands may change git configuration and hooks.
    pub allow_git_config: Option<bool>,
}

/// A token minted for one `run` or one `agent env`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The hash of the session token.
    pub token_hash: TokenHash,
    /// Whose it is.
    pub agent: AgentId,
    /// From this moment on it is worth nothing.
    pub expires: Timestamp,
    /// The user whose `onecli run` it was minted for, by uid; `None` for one of `agent env`.
    pub launched_by: Option<u32>,
}

/// One agent may use one secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrantRow {
    /// Who.
    pub agent: AgentId,
    /// What.
    pub secret: SecretId,
}

/// An audit record as the store holds it: the columns that are searched, and the whole record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// The order of arrival in the store, which gives it; what is inserted says 0.
    pub id: u64,
    /// The log that it is of: several hosts may share a store.
    pub log: LogId,
    /// Position in that log, from 1; unique there. At most `i64::MAX`.
    pub seq: u64,
    /// When the record was written, to the microsecond.
    pub time: Timestamp,
    /// The request; absent on records of the log about itself.
    pub request_id: Option<RequestId>,
    /// `decision`, `outcome` or `alert`.
    pub event: String,
    /// Name of the agent, where it is known. No reference: the rows of a removed agent stay.
    pub agent: Option<String>,
    /// Host of the request.
    pub host: Option<String>,
    /// `inject`, `forward`, `tunnel` or `deny`.
    pub verdict: Option<String>,
    /// Code of a refusal.
    pub code: Option<String>,
    /// The user whose `onecli run` started the command that made the request, by uid.
    pub launched_by: Option<u32>,
    /// The record as it stands in the log file, without the line end.
    pub json: String,
}

/// Which audit rows to list. `Default` lists the first hundred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only of this agent.
    pub agent: Option<String>,
    /// Only of this host, in canonical form.
    pub host: Option<String>,
    /// Only with this verdict.
    pub verdict: Option<String>,
    /// Only with this code.
    pub code: Option<String>,
    /// Only with this event.
    pub event: Option<String>,
    /// Only of this request.
    pub request_id: Option<RequestId>,
    /// Only rows that arrived after the one with this id.
    pub after_id: Option<u64>,
    /// Only at or after this time.
    pub since: Option<Timestamp>,
    /// Only before this time.
    pub until: Option<Timestamp>,
    /// Only of commands that this uid launched.
    pub launched_by: Option<u32>,
    /// Not of commands that another uid launched; those of which no uid is known are listed.
    pub not_by_others: Option<u32>,
    /// Looks at so many of the newest rows of [`agent`](Self::agent) and [`launched_by`](Self::launched_by), and applies all other
    /// conditions to these: a bound of the work that does not depend on how many rows there are.
    pub looked_at: Option<u32>,
    /// At most so many rows.
    pub limit: u32,
    /// The newest rows, newest first; else the oldest, oldest first.
    pub newest_first: bool,
}

impl Default for AuditQuery {
    fn default() -> AuditQuery {
        AuditQuery {
            agent: None,
            host: None,
            verdict: None,
            code: None,
            event: None,
            request_id: None,
            after_id: None,
            since: None,
            until: None,
            launched_by: None,
            not_by_others: None,
            looked_at: None,
            limit: 100,
            newest_first: false,
        }
    }
}

/// A database. Every method is one transaction: it happens as a whole and is on the disk when it returns, or it
/// did not happen.
#[async_trait]
pub trait Store: KeyStore + LeaseStore + RunnerStore {
    /// Reads the whole state in one consistent read.
    ///
    /// # Errors
    /// [`StoreError::BadRow`] where a row does not parse: a state with a row left out would decide wrongly.
    async fn load(&self) -> Result<StoredState, StoreError>;

    /// Counts changes of what [`Store::load`] returns. Raised after the commit and before the call that made the
    /// change returns; a value may stand for several changes.
    fn subscribe(&self) -> watch::Receiver<u64>;

    /// Are there no agents and no secrets?
    async fn is_empty(&self) -> Result<bool, StoreError>;

    /// Adds an agent and the hash of its token.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where the name, the cgroup or the user is another agent's.
    async fn add_agent(&self, agent: &Agent, token: &TokenHash) -> Result<(), StoreError>;

    /// Replaces an agent's token and ends its sessions, whose placeholders the new generation makes void.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] where `generation` does not follow the stored one.
    async fn set_token(&self, id: AgentId, token: &TokenHash, generation: u32) -> Result<(), StoreError>;

    /// Enables or disables an agent.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn set_agent_enabled(&self, id: AgentId, enabled: bool) -> Result<(), StoreError>;

    /// Changes the fields of an agent that `change` names, and no other.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Taken`] where the cgroup or the user is another agent's.
    async fn change_agent(&self, id: AgentId, change: &AgentChange) -> Result<(), StoreError>;

    /// Removes an agent with its grants, rules and sessions. Its audit rows stay.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn remove_agent(&self, id: AgentId) -> Result<(), StoreError>;

    /// Adds a session of an agent.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where the agent is gone.
    async fn add_session(
        &self,
        agent: AgentId,
        token: &TokenHash,
        expires: Timestamp,
        launched_by: Option<u32>,
    ) -> Result<(), StoreError>;

    /// Removes the sessions that have expired at `now`; tells how many.
    async fn prune_sessions(&self, now: Timestamp) -> Result<u64, StoreError>;

    /// Adds a secret and its first sealed value.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where the name is another secret's.
    async fn add_secret(&self, secret: &Secret) -> Result<(), StoreError>;

    /// Makes `secret` the current version of its secret: its value, class, target, placement, profile and variables. Name and
    /// state stay. All other versions are erased; `kept` takes the place of the version before.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] where the version does not follow the current one, or `kept` is not
    /// of the version before.
    async fn add_version(&self, secret: &Secret, kept: Option<&KeptVersion>) -> Result<(), StoreError>;

    /// Erases kept versions whose time is over at `now`, after it moved ends later than `latest` to `latest`. Returns how many.
    async fn prune_kept(&self, now: Timestamp, latest: Timestamp) -> Result<u64, StoreError>;

    /// Enables or disables a secret.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn set_secret_enabled(&self, id: SecretId, enabled: bool) -> Result<(), StoreError>;

    /// Removes a secret with all its versions and grants.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn remove_secret(&self, id: SecretId) -> Result<(), StoreError>;

    /// Lets an agent use a secret; no error where it may already.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for either.
    async fn grant(&self, agent: AgentId, secret: SecretId) -> Result<(), StoreError>;

    /// Takes a grant back; tells whether there was one. That there was is kept: see [`StoredState::former_grants`].
    async fn ungrant(&self, agent: AgentId, secret: SecretId) -> Result<bool, StoreError>;

    /// Adds a rule, for one agent or for all. Numbers count up, and are never used again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where the agent is gone.
    async fn add_rule(&self, agent: Option<AgentId>, terms: &Terms) -> Result<RuleId, StoreError>;

    /// Removes a rule.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn remove_rule(&self, id: RuleId) -> Result<(), StoreError>;

    /// Adds audit rows; rows whose log and sequence number are there already are left as they are.
    async fn insert_audit(&self, rows: &[AuditRow]) -> Result<(), StoreError>;

    /// The largest sequence number among the audit rows of a log; 0 where there are none.
    async fn last_audit_seq(&self, log: LogId) -> Result<u64, StoreError>;

    /// That row's number, and its line as the log had it when it was brought here; `None` where there is none.
    async fn last_audit_line(&self, log: LogId) -> Result<Option<(u64, String)>, StoreError>;

    /// The id of the row that arrived last; 0 where there is none. On a store that several hosts write to, one that is
    /// under way may still get a smaller id.
    async fn last_audit_id(&self) -> Result<u64, StoreError>;

    /// Removes the audit rows of a log up to a sequence number.
    async fn prune_audit(&self, log: LogId, through: u64) -> Result<(), StoreError>;

    /// Lists audit rows.
    async fn list_audit(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError>;

    /// One of the store's own facts, such as the id of the vault's key.
    async fn get_meta(&self, key: &str) -> Result<Option<String>, StoreError>;

    /// Changes a fact that means nothing, to see whether changes reach the disk.
    ///
    /// # Errors
    /// As any change would fail now.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Sets facts, all of them or none; what is there is replaced.
    async fn set_meta(&self, entries: &[(&str, &str)]) -> Result<(), StoreError>;
}

/// Opens the store that a URL names and brings its tables up to date. `sqlite:///PATH` is what there is.
///
/// # Errors
/// [`StoreError`]: a URL of another kind, a file or directory that others can read, a database of a newer version.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(SqliteStore::open(&sqlite_path(url)?).await?))
}

/// The database file that a URL names.
///
/// # Errors
/// [`StoreError::Url`].
pub fn sqlite_path(url: &str) -> Result<PathBuf, StoreError> {
    url.strip_prefix("sqlite://")
        .filter(|path| path.starts_with('/') && !path.contains('?'))
        .map(PathBuf::from)
        .ok_or_else(|| StoreError::Url { url: redact(url) })
}

/// A store URL without what may be a password: everything between `://` and the last `@` is left out.
fn redact(url: &str) -> String {
    let text = match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://..@{rest}"),
        _ => url.to_owned(),
    };
    text.chars().take(200).flat_map(char::escape_default).collect()
}
