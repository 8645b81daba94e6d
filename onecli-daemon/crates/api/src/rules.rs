//! Questions and answers about rules, decisions and approvals.

use jiff::Timestamp;
use onecli_model::{Action, AgentName, RequestId, Rule, RuleId, RuleText, SecretName, Terms};
use serde::{Deserialize, Serialize};

/// `rule add`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleAdd {
    /// The agent it is for; absent for all.
    #[serde(default)]
    pub agent: Option<AgentName>,
    /// What it matches and does.
    pub terms: Terms,
}

/// What an agent was refused since a point in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// The first few targets.
    pub targets: Vec<RefusedTarget>,
    /// How many others there are.
    pub others: usize,
}

/// Where an agent was refused something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedTarget {
    /// The host as the audit log has it: the agent chose it.
    pub host: String,
    /// The port; `null` for a name that was looked up and not connected to.
    pub port: Option<u16>,
    /// The code of the first refusal.
    pub code: String,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// Its number.
    pub id: RuleId,
    /// The agent it is for; `null` for all.
    pub agent: Option<AgentName>,
    /// `allow`, `deny`, `limit` or `approve`.
    pub action: Action,
    /// A host or a pattern of hosts, `*` for all; `null` where it is for addresses.
    pub host: Option<String>,
    /// A port; `null` for all.
    pub port: Option<u16>,
    /// Methods; empty for all.
    pub methods: Vec<String>,
    /// Path patterns; empty for all.
    pub paths: Vec<String>,
    /// A network.
    pub address: Option<String>,
    /// How many in what time.
    pub rate: Option<String>,
    /// Does what is allowed pass unread even where a secret is stored for the host?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tunnel: bool,
    /// What to know about it; only in the answer to `rule add`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl RuleView {
    /// A rule with the name of its agent.
    pub fn new(rule: &Rule, agent: Option<AgentName>) -> RuleView {
        let text = RuleText::from(rule.terms.clone());
        RuleView {
            id: rule.id,
            agent,
            action: text.action,
            host: text.host,
            port: rule.terms.port(),
            methods: text.methods,
            paths: text.paths,
            address: text.address,
            rate: text.rate,
            tunnel: text.tunnel,
            warnings: Vec::new(),
        }
    }

    /// Does it have these terms, for whichever agent?
    pub fn has_terms(&self, terms: &Terms) -> bool {
        let own = RuleText {
            action: self.action,
            host: self.host.clone(),
            port: Some(self.port.map_or_else(|| "*".to_owned(), |port| port.to_string())),
            methods: self.methods.clone(),
            paths: self.paths.clone(),
            address: self.address.clone(),
            rate: self.rate.clone(),
            tunnel: self.tunnel,
        };
        Terms::try_from(own).as_ref() == Ok(terms)
    }
}

/// `why` and `rule test`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// Who would ask.
    pub agent: AgentName,
    /// With which method.
    pub method: String,
    /// For what: `https://HOST[:PORT]/PATH` or `http://...`.
    pub url: String,
    /// Headers that name a further resource, as `NAME: VALUE`.
    #[serde(default)]
    pub headers: Vec<String>,
}

/// What would be decided about a request, and why. Nothing is resolved or sent for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who would ask.
    pub agent: AgentName,
    /// The method as it is matched.
    pub method: String,
    /// Host and port as they are matched.
    pub authority: String,
    /// The canonical path.
    pub path: String,
    /// `inject`, `forward`, `tunnel` or `deny`.
    pub decision: String,
    /// What decides: `grant`, `allow 7`, `egress deny`.
    pub because: Option<String>,
    /// The code of a refusal.
    pub code: Option<String>,
    /// What is refused.
    pub message: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// The credentials that are put in.
    pub secrets: Vec<SecretName>,
    /// What the agent must present besides where it runs: each secret's placeholder.
    pub needs: Vec<String>,
    /// What happens if it presents nothing.
    pub otherwise: Option<String>,
    /// The rule by which a person is asked first.
    pub approve: Option<RuleId>,
    /// The limits that the request counts for.
    pub limits: Vec<RuleId>,
    /// Networks that rules open for it besides the public ones, or close.
    pub addresses: Vec<String>,
    /// Everything that was looked at.
    pub considered: Vec<ConsideredView>,
}

/// A rule or a secret that a decision looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsideredView {
    /// `deny 7`, or `secret openai`.
    pub subject: String,
    /// Does it apply?
    pub applies: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// What an agent was refused, as the rule that would allow it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedRule {
    /// How often it was refused.
    pub count: u64,
    /// With which code.
    pub code: String,
    /// Why it should not be run as it is, if so.
    #[serde(default)]
    pub doubt: Option<String>,
    /// The rule.
    pub rule: RuleText,
}

/// A request that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalView {
    /// The number to answer it by.
    pub id: String,
    /// Whose request.
    pub agent: AgentName,
    /// The rule that wants it asked.
    pub rule: RuleId,
    /// The request in the audit log.
    pub request_id: RequestId,
    /// Its method.
    pub method: String,
    /// Host and port.
    pub authority: String,
    /// Its canonical path.
    pub path: String,
    /// Its query.
    pub query: Option<String>,
    /// The credentials that it will get.
    pub secrets: Vec<SecretName>,
    /// SHA-256 over its head and its body, in hex.
    pub digest: String,
    /// Length of its body; none where that streams, and is not in the digest.
    #[serde(default)]
    pub body_bytes: Option<u64>,
    /// When it was asked.
    pub since: Timestamp,
    /// When it is refused if nobody answers.
    pub until: Timestamp,
}
