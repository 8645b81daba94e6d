//! Users and groups that may start commands as an agent.

use async_trait::async_trait;
use jiff::Timestamp;
use onecli_model::{AgentId, AgentName, Runner};

use super::error::StoreError;

/// One entry: a user or group that may run an agent, and the audit records that it may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerRow {
    /// The agent.
    pub agent: AgentId,
    /// Its name.
    pub name: AgentName,
    /// The user or group.
    pub runner: Runner,
    /// Whether this runner may also read records of the agent's other runs.
    pub sees_all: bool,
    /// The time at which the entry was created. This runner may not read earlier records, because a uid may have
    /// belonged to another user.
    pub since: Timestamp,
}

/// A change of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerChange {
    /// Adds the entry, or changes the one that exists.
    Allow {
        /// The creation time of a new entry; an existing one retains its time.
        since: Timestamp,
        /// [`RunnerRow::sees_all`]; `None` leaves it unchanged, and means `false` for a new entry.
        sees_all: Option<bool>,
    },
    /// Removes the entry.
    Deny,
}

/// The table of runners.
#[async_trait]
pub trait RunnerStore: Send + Sync + std::fmt::Debug {
    /// The runners that may start commands as an agent, besides administrators, in the order of their names.
    async fn runners(&self, agent: AgentId) -> Result<Vec<Runner>, StoreError>;

    /// All entries of all agents.
    async fn all_runners(&self) -> Result<Vec<RunnerRow>, StoreError>;

    /// Changes one entry; reports whether that changed anything. A removed agent has no runners.
    async fn set_runner(
        &self,
        agent: AgentId,
        runner: &Runner,
        change: RunnerChange,
    ) -> Result<bool, StoreError>;
}
