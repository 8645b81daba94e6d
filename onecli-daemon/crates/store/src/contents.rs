//! What the store contains, as the rest of the daemon reads and changes it.

use std::collections::HashMap;

use jiff::Timestamp;
use onecli_model::{Agent, AgentId, CgroupName, Egress, Factors, Rule, Secret, SecretId, TokenHash};

/// The state that decisions about requests depend on, at one moment.
#[derive(Debug, Clone, Default)]
pub struct StoreContents {
    /// All agents, by name.
    pub agents: Vec<StoredAgent>,
    /// All sessions that are not pruned. Some may have expired: compare [`Session::expires`] at each use.
    pub sessions: Vec<Session>,
    /// All secrets with their current version, by name.
    pub secrets: Vec<Secret>,
    /// Replaced values that are still retained, by name of the secret: at most one for each.
    pub replaced_versions: Vec<ReplacedVersion>,
    /// All grants.
    pub grants: Vec<GrantRow>,
    /// Revoked grants of agents and secrets that still exist.
    pub former_grants: Vec<GrantRow>,
    /// All rules, by number.
    pub rules: Vec<Rule>,
    /// The last injection of each secret, according to the audit rows.
    pub last_uses: HashMap<SecretId, Timestamp>,
}

/// The version of a secret that the current one replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplacedVersion {
    /// The secret as it was. Its sealed value has a form that cannot be opened as the current one.
    pub secret: Secret,
    /// The time at which it is erased.
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

/// A change of an agent. Fields with `None` stay unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentChange {
    /// The factors that the agent must prove.
    pub factors: Option<Factors>,
    /// Its managed cgroup.
    pub cgroup: Option<CgroupName>,
    /// The user its processes run as, if any.
    pub user: Option<Option<String>>,
    /// The default for hosts that no grant names.
    pub egress: Option<Egress>,
    /// Whether its commands may change git configuration and hooks.
    pub allow_git_config: Option<bool>,
}

/// A token minted for one `run` or one `agent env`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The hash of the session token.
    pub token_hash: TokenHash,
    /// The agent it belongs to.
    pub agent: AgentId,
    /// The time from which on it is invalid.
    pub expires: Timestamp,
    /// The uid of the user whose `onecli run` it was minted for; `None` for a token of `agent env`.
    pub launched_by: Option<u32>,
}

/// A grant: one agent may use one secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrantRow {
    /// The agent.
    pub agent: AgentId,
    /// The secret.
    pub secret: SecretId,
}
