//! The policy snapshot: the data for decisions, compiled into memory and replaced as a whole when the store
//! changes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use onecli_model::{
    Agent, AgentId, CgroupName, Host, HostPattern, Mint, Placeholder, Rule, Secret, SecretId, TokenHash,
};

use super::grant::{ScrubGrant, SentAs};
use super::host_index::{HostGroups, HostIndex};
use super::rules::RuleSet;

/// An agent with the hash of its own token.
#[derive(Debug, Clone)]
pub struct AgentInput {
    /// The agent.
    pub agent: Agent,
    /// The hash of the token that was issued when the agent was added or rotated.
    pub token: TokenHash,
}

/// A session token.
#[derive(Debug, Clone)]
pub struct TokenInput {
    /// The agent it belongs to.
    pub agent: AgentId,
    /// Its hash.
    pub token: TokenHash,
    /// The time at which it expires.
    pub expires: Timestamp,
    /// The uid of the user whose `onecli run` it was minted for.
    pub launched_by: Option<u32>,
}

/// The input of a snapshot.
#[derive(Debug, Default)]
pub struct SnapshotInput {
    /// Every agent, disabled ones too.
    pub agents: Vec<AgentInput>,
    /// Live session tokens.
    pub sessions: Vec<TokenInput>,
    /// Every secret, disabled ones too.
    pub secrets: Vec<Secret>,
    /// Replaced values that are retained: secrets as they were, never granted.
    pub replaced: Vec<Secret>,
    /// Grants: agent and secret.
    pub grants: Vec<(AgentId, SecretId)>,
    /// Revoked grants.
    pub former_grants: Vec<(AgentId, SecretId)>,
    /// Every rule.
    pub rules: Vec<Rule>,
}

/// The compiled policy. It is immutable; a change creates a new one.
#[derive(Debug, Default)]
pub struct Snapshot {
    agents: HashMap<AgentId, AgentView>,
    tokens: HashMap<TokenHash, TokenOwner>,
    cgroups: HashMap<CgroupName, AgentId>,
    /// The agent and the secret of each placeholder.
    placeholders: HashMap<Placeholder, (AgentId, Arc<Secret>)>,
    /// Every secret, disabled ones too, by the hosts that it is sent to; and replaced values, by theirs.
    stored: HostIndex<Stored>,
}

/// A secret at a host.
#[derive(Debug)]
struct Stored {
    secret: Arc<Secret>,
    sent: SentAs,
    port: u16,
    is_replaced: bool,
}

#[derive(Debug)]
pub(super) struct AgentView {
    pub(super) agent: Arc<Agent>,
    /// Granted and enabled secrets.
    pub(super) secrets: Vec<Arc<Secret>>,
    /// Secrets whose values the agent may have stored somewhere: their grants were revoked, or they were disabled.
    pub(super) former: Vec<Arc<Secret>>,
    /// The agent's rules, and those for all agents.
    pub(super) rules: RuleSet,
}

#[derive(Debug)]
struct TokenOwner {
    agent: AgentId,
    expires: Option<Timestamp>,
    launched_by: Option<u32>,
}

impl Snapshot {
    /// Compiles `input`; `placeholder` derives the placeholder of an agent, a secret and the agent's generation.
    pub fn compile(
        input: SnapshotInput,
        placeholder: &dyn Fn(AgentId, SecretId, u32) -> Placeholder,
    ) -> Snapshot {
        let secrets: HashMap<SecretId, Arc<Secret>> =
            input.secrets.into_iter().map(|s| (s.id, Arc::new(s))).collect();
        let grants: HashSet<(AgentId, SecretId)> = input.grants.into_iter().collect();
        let rules: Vec<Arc<Rule>> = input.rules.into_iter().map(Arc::new).collect();
        let mut snapshot = Snapshot::default();
        snapshot.index(secrets.values(), false);
        snapshot.index(input.replaced.into_iter().map(Arc::new).collect::<Vec<_>>().iter(), true);
        for AgentInput { agent, token } in input.agents {
            let owner = TokenOwner { agent: agent.id, expires: None, launched_by: None };
            snapshot.tokens.insert(token, owner);
            snapshot.cgroups.insert(agent.cgroup.clone(), agent.id);
            let rules = RuleSet::new(agent.id, &rules);
            let view = AgentView { agent: Arc::new(agent), secrets: Vec::new(), former: Vec::new(), rules };
            snapshot.agents.insert(view.agent.id, view);
        }
        for former in input.former_grants.into_iter().filter(|former| !grants.contains(former)) {
            if let (Some(view), Some(secret)) = (snapshot.agents.get_mut(&former.0), secrets.get(&former.1)) {
                view.former.push(Arc::clone(secret));
            }
        }
        for (agent, secret) in grants {
            if let (Some(view), Some(secret)) = (snapshot.agents.get_mut(&agent), secrets.get(&secret)) {
                if !secret.enabled {
                    view.former.push(Arc::clone(secret));
                    continue;
                }
                let stand_in = placeholder(agent, secret.id, view.agent.generation);
                snapshot.placeholders.insert(stand_in, (agent, Arc::clone(secret)));
                view.secrets.push(Arc::clone(secret));
            }
        }
        for view in snapshot.agents.values_mut() {
            view.secrets.sort_by(|a, b| a.name.cmp(&b.name));
        }
        for TokenInput { agent, token, expires, launched_by } in input.sessions {
            if snapshot.agents.contains_key(&agent) {
                let owner = TokenOwner { agent, expires: Some(expires), launched_by };
                snapshot.tokens.insert(token, owner);
            }
        }
        snapshot
    }

    fn index<'s>(&mut self, secrets: impl Iterator<Item = &'s Arc<Secret>>, is_replaced: bool) {
        let mut secrets: Vec<&Arc<Secret>> = secrets.collect();
        secrets.sort_by_key(|secret| secret.id);
        for secret in secrets {
            let stored = |sent, port| Stored { secret: Arc::clone(secret), sent, port, is_replaced };
            for pattern in secret.target.host.iter() {
                self.stored.insert(pattern, stored(SentAs::Placed, secret.target.port));
            }
            if let Some(endpoint) = secret.profile.mint.as_ref().and_then(Mint::endpoint) {
                let pattern = HostPattern::Exact(endpoint.host().clone());
                self.stored.insert(&pattern, stored(SentAs::ToEndpoint, endpoint.port()));
            }
        }
    }

    /// The groups of secrets that are sent to this host, for any agent.
    pub fn stored_at(&self, host: &Host) -> HostGroups {
        self.stored.find(host)
    }

    /// The secrets of these groups, each once.
    pub fn stored_values(&self, groups: &HostGroups) -> Vec<ScrubGrant> {
        let mut seen = HashSet::new();
        let is_new = |stored: &&Stored| seen.insert((stored.secret.id, stored.secret.version, stored.sent));
        let grant = |stored: &Stored| {
            let make = if stored.is_replaced { ScrubGrant::replaced } else { ScrubGrant::new };
            make(Arc::clone(&stored.secret), stored.sent)
        };
        self.stored.items(groups).filter(is_new).map(grant).collect()
    }

    /// The secret, if its value is sent to this host.
    pub(super) fn stored_secret(&self, host: &Host, id: SecretId) -> Option<Arc<Secret>> {
        let groups = self.stored.find(host);
        let is_placed = |stored: &&Stored| stored.secret.id == id && stored.sent == SentAs::Placed;
        self.stored.items(&groups).find(is_placed).map(|stored| Arc::clone(&stored.secret))
    }

    /// Reports whether a secret is sent to this host, on this port.
    pub(super) fn is_stored_on(&self, host: &Host, port: u16) -> bool {
        let groups = self.stored.find(host);
        self.stored.items(&groups).any(|stored| stored.port == port)
    }

    pub(super) fn agent(&self, id: AgentId) -> Option<&AgentView> {
        self.agents.get(&id)
    }

    /// The agent bound to a managed cgroup.
    pub fn agent_of_cgroup(&self, cgroup: &CgroupName) -> Option<&Arc<Agent>> {
        self.agents.get(self.cgroups.get(cgroup)?).map(|view| &view.agent)
    }

    pub(super) fn agent_of_token(&self, token: &TokenHash, now: Timestamp) -> Option<&Arc<Agent>> {
        if self.tokens.get(token)?.expires.is_some_and(|end| end <= now) {
            return None;
        }
        self.owner_of_token(token)
    }

    /// The agent that the token belongs to, even if it has expired.
    pub(super) fn owner_of_token(&self, token: &TokenHash) -> Option<&Arc<Agent>> {
        self.agents.get(&self.tokens.get(token)?.agent).map(|view| &view.agent)
    }

    pub(super) fn launcher_of_token(&self, token: &TokenHash) -> Option<u32> {
        self.tokens.get(token)?.launched_by
    }

    pub(super) fn end_of_token(&self, token: &TokenHash) -> Option<Timestamp> {
        self.tokens.get(token)?.expires
    }

    pub(super) fn owner_of_placeholder(&self, placeholder: &Placeholder) -> Option<(AgentId, SecretId)> {
        self.placeholders.get(placeholder).map(|(agent, secret)| (*agent, secret.id))
    }

    /// The agent and the secret that this placeholder belongs to.
    pub(super) fn placeholder(&self, text: &str) -> Option<&(AgentId, Arc<Secret>)> {
        self.placeholders.get(text)
    }

    /// Reports whether the agent may use all of these secrets, in these versions.
    pub fn grants(&self, agent: AgentId, secrets: &[(SecretId, u32)]) -> bool {
        let Some(view) = self.agents.get(&agent) else { return secrets.is_empty() };
        let is_granted = |(id, version): &(SecretId, u32)| {
            view.secrets.iter().any(|s| s.id == *id && s.version == *version)
        };
        secrets.iter().all(is_granted)
    }

    /// Reports whether a secret of this agent can match the host, on any port.
    pub(super) fn may_match(&self, agent: AgentId, host: &Host) -> bool {
        self.agents.get(&agent).is_some_and(|view| view.secrets.iter().any(|s| s.target.host.matches(host)))
    }
}

impl AgentView {
    /// A secret for this host that the agent could use earlier.
    pub(super) fn former_at(&self, host: &Host) -> Option<&Secret> {
        self.former.iter().find(|secret| secret.target.host.matches(host)).map(AsRef::as_ref)
    }

    /// The secrets whose values must not come back from this host, on any port or path.
    pub(super) fn watched(&self, host: &Host) -> impl Iterator<Item = &Arc<Secret>> {
        self.secrets.iter().chain(&self.former).filter(|secret| secret.target.host.matches(host))
    }
}
