//! Changes of an agent.

use onecli_model::{Agent, CgroupName, Egress, Factors};
use serde::{Deserialize, Serialize};

use super::AgentView;

/// `agent set`: what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSet {
    /// What it must prove.
    #[serde(default)]
    pub factors: Option<Factors>,
    /// Its managed cgroup.
    #[serde(default)]
    pub cgroup: Option<CgroupName>,
    /// The user its processes run as.
    #[serde(default)]
    pub user: Option<String>,
    /// It has no user any more: each run names one.
    #[serde(default)]
    pub no_user: bool,
    /// What happens to hosts that neither a rule nor a grant names.
    #[serde(default)]
    pub egress: Option<Egress>,
    /// Whether it may change the configuration and the hooks of git repositories in a project.
    #[serde(default)]
    pub allow_git_config: Option<bool>,
}

/// An agent after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentChanged {
    /// The agent.
    #[serde(flatten)]
    pub agent: AgentView,
    /// What is different now; empty where it was so already.
    pub changes: Vec<FieldChange>,
}

/// One field that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Its name, as in [`AgentSet`].
    pub field: String,
    /// What it was.
    pub from: String,
    /// What it is.
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
