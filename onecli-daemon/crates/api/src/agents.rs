//! Agents: their form in requests and responses.

use std::fmt;

use onecli_model::{Agent, AgentId, AgentName, CgroupName, Egress, Factors, Runner};
use serde::{Deserialize, Serialize};

use super::grants::GrantView;

/// `agent add`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentAdd {
    /// The agent's name.
    pub name: AgentName,
    /// The factors that it must present. Default: token and cgroup; without eBPF, the token only.
    #[serde(default)]
    pub factors: Option<Factors>,
    /// Its managed cgroup. Default: derived from its name.
    #[serde(default)]
    pub cgroup: Option<CgroupName>,
    /// The user that its processes run as. The user must exist, must not be uid 0, and must belong to no other agent.
    #[serde(default)]
    pub user: Option<String>,
    /// How the daemon treats hosts that neither a rule nor a grant names.
    #[serde(default)]
    pub egress: Egress,
    /// The runners, besides administrators, that may start commands as the agent.
    #[serde(default)]
    pub runners: Vec<Runner>,
    /// Whether it may change the configuration and hooks of git repositories in a project.
    #[serde(default)]
    pub allow_git_config: bool,
}

/// An agent in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// The agent's name.
    pub name: AgentName,
    /// Its id in the store.
    pub id: AgentId,
    /// Whether the agent is enabled.
    pub enabled: bool,
    /// The factors that it must present.
    pub factors: Factors,
    /// Its managed cgroup, below the agents root.
    pub cgroup: CgroupName,
    /// The user its processes run as.
    pub user: Option<String>,
    /// How the daemon treats hosts that neither a rule nor a grant names.
    pub egress: Egress,
    /// The generation of its token: 1 for the first, plus 1 for each rotation.
    pub generation: u32,
    /// Whether it may change the configuration and hooks of git repositories in a project.
    #[serde(default)]
    pub allow_git_config: bool,
}

/// An agent with its grants and runners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentDetail {
    /// The agent.
    #[serde(flatten)]
    pub agent: AgentView,
    /// Its grants, sorted by secret name.
    pub secrets: Vec<GrantView>,
    /// The runners, besides administrators, that may start commands as the agent.
    #[serde(default)]
    pub runners: Vec<Runner>,
    /// The runners that may also see requests of runs started by others.
    #[serde(default)]
    pub see_all: Vec<Runner>,
}

/// A removed agent. Its token, sessions, grants and placeholders are deleted; its audit records remain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRemoved {
    /// The agent before the removal.
    #[serde(flatten)]
    pub agent: AgentDetail,
    /// The reason why its cgroup still exists, if it does. The daemon refuses everything from the processes in it.
    pub cgroup_left: Option<String>,
}

/// An agent with its token. The token is shown only in this response.
#[derive(Clone, Serialize, Deserialize)]
pub struct AgentToken {
    /// The agent.
    #[serde(flatten)]
    pub agent: AgentView,
    /// Its token.
    pub token: String,
}

impl fmt::Debug for AgentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentToken").field("agent", &self.agent).finish_non_exhaustive()
    }
}

/// `agent set`. Absent fields stay unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSet {
    /// The factors that the agent must present.
    #[serde(default)]
    pub factors: Option<Factors>,
    /// Its managed cgroup.
    #[serde(default)]
    pub cgroup: Option<CgroupName>,
    /// The user that its processes run as.
    #[serde(default)]
    pub user: Option<String>,
    /// Remove the agent's user: each run then names one.
    #[serde(default)]
    pub no_user: bool,
    /// How the daemon treats hosts that neither a rule nor a grant names.
    #[serde(default)]
    pub egress: Option<Egress>,
    /// Whether it may change the configuration and hooks of git repositories in a project.
    #[serde(default)]
    pub allow_git_config: Option<bool>,
}

/// An agent after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentChanged {
    /// The agent.
    #[serde(flatten)]
    pub agent: AgentView,
    /// The fields that changed; empty if the agent already had the requested settings.
    pub changes: Vec<FieldChange>,
}

/// One field that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The field's name, as in [`AgentSet`].
    pub field: String,
    /// The old value.
    pub from: String,
    /// The new value.
    pub to: String,
}

impl From<&Agent> for AgentView {
    fn from(agent: &Agent) -> AgentView {
        AgentView {
            name: agent.name.clone(),
            id: agent.id,
            enabled: agent.enabled,
            factors: agent.factors,
            cgroup: agent.cgroup.clone(),
            user: agent.user.clone(),
            egress: agent.egress,
            generation: agent.generation,
            allow_git_config: agent.allow_git_config,
        }
    }
}
