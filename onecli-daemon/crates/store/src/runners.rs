//! Users and groups that may start commands as an agent.

use async_trait::async_trait;
use jiff::Timestamp;
use onecli_model::{AgentId, AgentName, Runner};

use super::StoreError;

/// One entry: who may run which agent, and which records of the audit log this person may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerRow {
    /// The agent.
    pub agent: AgentId,
    /// Its name.
    pub name: AgentName,
    /// The user or group.
    pub runner: Runner,
    /// May this runner also read records of the agent's other runs?
    pub sees_all: bool,
    /// When the entry was made. Records from before are not for this runner: a uid may have belonged to another person.
    pub since: Timestamp,
}

/// A change of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerChange {
    /// Adds the entry, or changes the one that exists.
    Allow {
        /// When a new entry is made; an existing one keeps its time.
        since: Timestamp,
        /// [`RunnerRow::sees_all`]; `None` keeps it, and is `false` in a new entry.
        sees_all: Option<bool>,
    },
    /// Removes the entry.
    Deny,
}

/// The table of runners.
#[async_trait]
pub trait RunnerStore: Send + Sync + std::fmt::Debug {
    /// Who besides administrators may start commands as an agent, in the order of their names.
    async fn runners(&self, agent: AgentId) -> Result<Vec<Runner>, StoreError>;

    /// All entries of all agents.
    async fn all_runners(&self) -> Result<Vec<RunnerRow>, StoreError>;

    /// Changes one entry; reports whether that changed anything. An agent that is gone has no runners.
    async fn set_runner(
        &self,
        agent: AgentId,
        runner: &Runner,
        change: RunnerChange,
    ) -> Result<bool, StoreError>;
}
