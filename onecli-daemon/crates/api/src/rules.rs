//! Requests and responses about rules, decisions and approvals.

use jiff::Timestamp;
use onecli_model::{Action, AgentName, RequestId, Rule, RuleId, RuleSpec, RuleText, SecretName};
use serde::{Deserialize, Serialize};

/// `rule add`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleAdd {
    /// The agent that it applies to; absent for all agents.
    #[serde(default)]
    pub agent: Option<AgentName>,
    /// The conditions and the action of the rule.
    pub terms: RuleSpec,
}

/// An agent's refused requests since a point in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// The first few targets.
    pub targets: Vec<RefusedTarget>,
    /// The number of further targets.
    pub others: usize,
}

/// A target that the daemon refused to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedTarget {
    /// The host as recorded in the audit log. The agent chose this text.
    pub host: String,
    /// The port; `null` for a name that was resolved but not connected to.
    pub port: Option<u16>,
    /// The code of the first refusal.
    pub code: String,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// The rule's number.
    pub id: RuleId,
    /// The agent that it applies to; `null` for all agents.
    pub agent: Option<AgentName>,
    /// `allow`, `deny`, `limit` or `approve`.
    pub action: Action,
    /// A host or a host pattern, `*` for all; `null` if the rule is for addresses.
    pub host: Option<String>,
    /// A port; `null` for all.
    pub port: Option<u16>,
    /// HTTP methods; empty for all.
    pub methods: Vec<String>,
    /// Path patterns; empty for all.
    pub paths: Vec<String>,
    /// A network.
    pub address: Option<String>,
    /// The number of requests per period.
    pub rate: Option<String>,
    /// Whether allowed traffic passes uninspected even if a secret is stored for the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tunnel: bool,
    /// Warnings about the rule; present only in the response to `rule add`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl RuleView {
    /// Builds the view of a rule with the name of its agent.
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

    /// Returns whether the rule has these terms, regardless of its agent.
    pub fn has_terms(&self, terms: &RuleSpec) -> bool {
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
        RuleSpec::try_from(own).as_ref() == Ok(terms)
    }
}

/// `why` and `rule test`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// The agent that would send the request.
    pub agent: AgentName,
    /// The HTTP method.
    pub method: String,
    /// The URL: `https://HOST[:PORT]/PATH` or `http://...`.
    pub url: String,
    /// Headers that name a further resource, as `NAME: VALUE`.
    #[serde(default)]
    pub headers: Vec<String>,
}

/// The decision for a hypothetical request, and the reasons. Nothing is resolved or sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The agent that would send the request.
    pub agent: AgentName,
    /// The method in the form that rules match.
    pub method: String,
    /// Host and port in the form that rules match.
    pub authority: String,
    /// The canonical path.
    pub path: String,
    /// `inject`, `forward`, `tunnel` or `deny`.
    pub decision: String,
    /// The deciding rule or setting: `grant`, `allow 7`, `egress deny`.
    pub because: Option<String>,
    /// The reason code of a refusal.
    pub code: Option<String>,
    /// The message of a refusal.
    pub message: Option<String>,
    /// The next step for the user.
    pub hint: Option<String>,
    /// The secrets whose credentials would be injected.
    pub secrets: Vec<SecretName>,
    /// The placeholders that the agent must present in addition to its location, one per secret.
    pub needs: Vec<String>,
    /// The decision if the agent presents no placeholder.
    pub otherwise: Option<String>,
    /// The rule that requires an approval.
    pub approve: Option<RuleId>,
    /// The rate limits that the request counts towards.
    pub limits: Vec<RuleId>,
    /// Networks that rules allow in addition to public addresses, or block.
    pub addresses: Vec<String>,
    /// Every rule and secret that was considered.
    pub considered: Vec<ConsideredView>,
}

/// A rule or secret that was considered for a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsideredView {
    /// `deny 7`, or `secret openai`.
    pub subject: String,
    /// Whether it applies.
    pub applies: bool,
    /// Why it does not apply.
    pub reason: Option<String>,
}

/// A rule that would allow a refused request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedRule {
    /// The number of refusals.
    pub count: u64,
    /// The reason code of the refusals.
    pub code: String,
    /// Why the rule should not be added as it is, if there is a reason.
    #[serde(default)]
    pub doubt: Option<String>,
    /// The rule.
    pub rule: RuleText,
}

/// A request that awaits approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalView {
    /// The id with which to answer it.
    pub id: String,
    /// The agent that sent the request.
    pub agent: AgentName,
    /// The rule that requires the approval.
    pub rule: RuleId,
    /// The request's id in the audit log.
    pub request_id: RequestId,
    /// Its method.
    pub method: String,
    /// Host and port.
    pub authority: String,
    /// Its canonical path.
    pub path: String,
    /// Its query.
    pub query: Option<String>,
    /// The secrets whose credentials will be injected.
    pub secrets: Vec<SecretName>,
    /// SHA-256 of its head and body, in hex.
    pub digest: String,
    /// The length of its body; none for a streaming body, which is not part of the digest.
    #[serde(default)]
    pub body_bytes: Option<u64>,
    /// The time of the request.
    pub since: Timestamp,
    /// The time at which the daemon refuses the request if no administrator has answered.
    pub until: Timestamp,
}
