//! Changes of an agent.

use onecli_model::{Agent, CgroupName, Egress, Factors};
use serde::{Deserialize, Serialize};

use super::AgentView;

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
