//! Identification of agents: from the kernel's record and a token, never from data that the agent chooses.

use std::sync::Arc;

use jiff::Timestamp;
use onecli_model::{Agent, CgroupName, Code, Factors, Refusal, TokenHash};

use super::snapshot::Snapshot;

/// How a connection reached the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CaptureMode {
    /// The kernel redirected it.
    Transparent,
    /// The client uses the daemon as its proxy.
    Explicit,
}

/// The evidence that a connection provides about its client.
#[derive(Debug, Clone)]
pub struct ClientEvidence {
    /// How it reached the daemon.
    pub mode: CaptureMode,
    /// The managed cgroup it came from, according to the kernel.
    pub cgroup: Option<CgroupName>,
    /// The hash of the token in `Proxy-Authorization`.
    pub token: Option<TokenHash>,
}

/// An authenticated agent. Only [`Snapshot::identify`] creates one.
#[derive(Debug, Clone)]
pub struct Identity {
    agent: Arc<Agent>,
    proven: Factors,
    mode: CaptureMode,
}

impl Identity {
    /// The agent.
    pub fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// The factors that the connection proved. A placeholder in a request may add the token factor.
    pub fn proven(&self) -> Factors {
        self.proven
    }

    /// How the connection reached the daemon.
    pub fn mode(&self) -> CaptureMode {
        self.mode
    }

    /// The identity of root's test requests, which no connection sends.
    pub(super) fn of_tester(agent: Arc<Agent>) -> Identity {
        let proven = agent.factors;
        Identity { agent, proven, mode: CaptureMode::Explicit }
    }
}

impl Snapshot {
    /// Finds the agent behind `evidence` (the table of factors in ARCHITECTURE.md).
    ///
    /// Transparent connections need a known cgroup; explicit ones need every factor that the agent requires.
    ///
    /// # Errors
    /// A [`Refusal`] that names the missing or wrong proof.
    pub fn identify(&self, evidence: &ClientEvidence, now: Timestamp) -> Result<Identity, Refusal> {
        let by_cgroup = match &evidence.cgroup {
            Some(cgroup) => Some(self.agent_of_cgroup(cgroup).ok_or_else(|| {
                Refusal::new(
                    Code::AgentUnknown,
                    format!("the cgroup '{cgroup}' belongs to no agent"),
                    "start the program with 'onecli run --agent NAME', or add an agent with --cgroup",
                )
            })?),
            None => None,
        };
        let by_token = match &evidence.token {
            Some(token) => Some(self.agent_of_token(token, now).ok_or_else(|| {
                Refusal::new(
                    Code::TokenUnknown,
                    "the token is unknown, rotated or expired",
                    "get a new one with 'onecli agent rotate NAME'",
                )
            })?),
            None => None,
        };
        let (agent, proven) = match (by_cgroup, by_token) {
            (Some(here), Some(owner)) if here.id != owner.id => {
                return Err(Refusal::new(
                    Code::TokenForeign,
                    format!(
                        "the token does not belong to agent '{}', whose cgroup the connection came from",
                        here.name
                    ),
                    "use the agent's own token",
                ));
            }
            (Some(agent), Some(_)) => (agent, Factors::BOTH),
            (Some(agent), None) => (agent, Factors::CGROUP),
            (None, Some(agent)) => (agent, Factors::TOKEN),
            (None, None) if evidence.mode == CaptureMode::Explicit => return Err(token_wanted()),
            (None, None) => {
                return Err(Refusal::new(
                    Code::FlowUnknown,
                    "the kernel has no record of this connection",
                    "only processes in a managed cgroup may connect here: use 'onecli run --agent NAME'",
                ));
            }
        };
        if !agent.enabled {
            return Err(Refusal::new(
                Code::AgentDisabled,
                format!("agent '{}' is disabled", agent.name),
                format!("an administrator can enable it: onecli agent enable {}", agent.name),
            ));
        }
        if evidence.mode == CaptureMode::Explicit && !proven.satisfies(agent.factors) {
            return Err(if proven.token { cgroup_wanted(agent) } else { token_wanted() });
        }
        Ok(Identity { agent: Arc::clone(agent), proven, mode: evidence.mode })
    }

    /// The agent that `evidence` points to: that of the cgroup according to the kernel, else that of the token,
    /// live or expired. It is for records of refusals before identification, and implies no permission.
    pub fn likely_agent(&self, evidence: &ClientEvidence) -> Option<&Arc<Agent>> {
        let by_cgroup = evidence.cgroup.as_ref().and_then(|cgroup| self.agent_of_cgroup(cgroup));
        by_cgroup.or_else(|| self.owner_of_token(evidence.token.as_ref()?))
    }

    /// The uid of the user whose `onecli run` the token in `evidence` was minted for. It is for the record and
    /// implies no permission.
    pub fn launched_by(&self, evidence: &ClientEvidence) -> Option<u32> {
        self.launcher_of_token(evidence.token.as_ref()?)
    }

    /// The end of the session whose token is in `evidence`; an agent's own token has no end.
    pub fn session_end(&self, evidence: &ClientEvidence) -> Option<Timestamp> {
        self.end_of_token(evidence.token.as_ref()?)
    }
}

fn token_wanted() -> Refusal {
    Refusal::new(
        Code::ProxyAuthRequired,
        "this proxy requires an agent's token",
        "set HTTPS_PROXY=http://x:TOKEN@HOST:PORT, with the token of 'onecli agent add' or 'onecli agent rotate'",
    )
}

fn cgroup_wanted(agent: &Agent) -> Refusal {
    Refusal::new(
        Code::FactorMissing,
        format!(
            "agent '{}' requires {}, and this connection did not come from its cgroup",
            agent.name, agent.factors
        ),
        format!(
            "start the program with 'onecli run --agent {0}', or allow the token alone: onecli agent add NAME --factors token",
            agent.name
        ),
    )
}
