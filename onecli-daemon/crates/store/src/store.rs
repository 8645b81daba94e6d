//! The interface of a store, whatever its database.

use async_trait::async_trait;
use jiff::Timestamp;
use onecli_model::{Agent, AgentId, LogId, RuleId, RuleSpec, Secret, SecretId, TokenHash};
use tokio::sync::watch;

use super::audit::{AuditQuery, AuditRow};
use super::contents::{AgentChange, ReplacedVersion, StoreContents};
use super::error::StoreError;
use super::keys::KeyStore;
use super::leases::LeaseStore;
use super::runners::RunnerStore;

/// A database. Every method is one transaction: it is applied completely and on disk when the method returns, or
/// not at all.
#[async_trait]
pub trait Store: KeyStore + LeaseStore + RunnerStore {
    /// Reads the whole state in one consistent read.
    ///
    /// # Errors
    /// [`StoreError::BadRow`] if a row does not parse: a state without that row would lead to wrong decisions.
    async fn load(&self) -> Result<StoreContents, StoreError>;

    /// Counts changes of the state that [`Store::load`] returns. The count grows after the commit, before the call
    /// that made the change returns. One step may cover several changes.
    fn subscribe(&self) -> watch::Receiver<u64>;

    /// Reports whether there are neither agents nor secrets.
    async fn is_empty(&self) -> Result<bool, StoreError>;

    /// Adds an agent and the hash of its token.
    ///
    /// # Errors
    /// [`StoreError::Taken`] if another agent has the name, the cgroup or the user.
    async fn add_agent(&self, agent: &Agent, token: &TokenHash) -> Result<(), StoreError>;

    /// Replaces an agent's token and ends its sessions. The new generation invalidates their placeholders.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] if `generation` does not follow the stored one.
    async fn set_token(&self, id: AgentId, token: &TokenHash, generation: u32) -> Result<(), StoreError>;

    /// Enables or disables an agent.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn set_agent_enabled(&self, id: AgentId, enabled: bool) -> Result<(), StoreError>;

    /// Changes the fields of an agent that `change` names, and no other.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Taken`] if another agent has the cgroup or the user.
    async fn change_agent(&self, id: AgentId, change: &AgentChange) -> Result<(), StoreError>;

    /// Removes an agent with its grants, rules and sessions. Its audit rows stay.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn remove_agent(&self, id: AgentId) -> Result<(), StoreError>;

    /// Adds a session of an agent.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the agent does not exist.
    async fn add_session(
        &self,
        agent: AgentId,
        token: &TokenHash,
        expires: Timestamp,
        launched_by: Option<u32>,
    ) -> Result<(), StoreError>;

    /// Removes the sessions that have expired at `now`; returns their number.
    async fn prune_sessions(&self, now: Timestamp) -> Result<u64, StoreError>;

    /// Adds a secret and its first sealed value.
    ///
    /// # Errors
    /// [`StoreError::Taken`] if another secret has the name.
    async fn add_secret(&self, secret: &Secret) -> Result<(), StoreError>;

    /// Makes `secret` the current version of its secret: its value, class, target, placement, profile and
    /// variables. Name and state stay unchanged. All other versions are erased. If the caller passes a retained
    /// version, it replaces the stored previous one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] if the version does not follow the current one, or if the
    /// retained one is not the previous version.
    async fn add_version(
        &self,
        secret: &Secret,
        replaced: Option<&ReplacedVersion>,
    ) -> Result<(), StoreError>;

    /// Erases retained versions that have expired at `now`. Before that it moves expiry times later than `latest`
    /// to `latest`. Returns the number of erased versions.
    async fn prune_replaced(&self, now: Timestamp, latest: Timestamp) -> Result<u64, StoreError>;

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

    /// Grants a secret to an agent; no error if the grant exists.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for either.
    async fn grant(&self, agent: AgentId, secret: SecretId) -> Result<(), StoreError>;

    /// Revokes a grant; reports whether there was one. The store remembers it, see [`StoreContents::former_grants`].
    async fn ungrant(&self, agent: AgentId, secret: SecretId) -> Result<bool, StoreError>;

    /// Adds a rule, for one agent or for all. Numbers increase and are never reused.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the agent does not exist.
    async fn add_rule(&self, agent: Option<AgentId>, terms: &RuleSpec) -> Result<RuleId, StoreError>;

    /// Removes a rule.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn remove_rule(&self, id: RuleId) -> Result<(), StoreError>;

    /// Adds audit rows. Rows whose log and sequence number already exist stay unchanged.
    async fn insert_audit(&self, rows: &[AuditRow]) -> Result<(), StoreError>;

    /// The largest sequence number among the audit rows of a log; 0 if there are none.
    async fn last_audit_seq(&self, log: LogId) -> Result<u64, StoreError>;

    /// The number of that row, and its line as the log had it when it was inserted; `None` if there is no row.
    async fn last_audit_line(&self, log: LogId) -> Result<Option<(u64, String)>, StoreError>;

    /// The id of the row that arrived last; 0 if there is none. If several hosts write to the store, a row that is
    /// being inserted may still get a smaller id.
    async fn last_audit_id(&self) -> Result<u64, StoreError>;

    /// Removes the audit rows of a log up to a sequence number.
    async fn prune_audit(&self, log: LogId, through: u64) -> Result<(), StoreError>;

    /// Lists audit rows.
    async fn list_audit(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError>;

    /// One of the store's own facts, such as the id of the vault's key.
    async fn get_meta(&self, key: &str) -> Result<Option<String>, StoreError>;

    /// Changes a fact that has no meaning, to check that changes reach the disk.
    ///
    /// # Errors
    /// The error that any change would return now.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Sets facts atomically; existing ones are replaced.
    async fn set_meta(&self, entries: &[(&str, &str)]) -> Result<(), StoreError>;
}
