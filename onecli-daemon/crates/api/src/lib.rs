//! Requests and responses of the admin socket, shared by the daemon and the CLI.
//!
//! HTTP/1.1 over a Unix socket, one request per connection, JSON bodies. Paths are in [`routes`]; every error is an
//! [`ErrorBody`].

#![forbid(unsafe_code)]

mod agents;
mod approvals;
mod audit;
mod doctor;
mod edit;
mod env;
mod environment;
mod keys;
mod rules;
mod running;
mod secret_test;
mod session;
mod status;
mod value;
mod vault;

pub use agents::{AgentChanged, AgentSet, FieldChange};
pub use approvals::{ApprovalDetail, ApprovalEvent, ApprovalOutcome, BodyView, HeaderView};
pub use audit::{AuditFilter, AuditQuery};
pub use doctor::Doctor;
pub use edit::{DROPS_KEPT_VALUE, SecretEdit, SecretEdited, SecretRotate, VALUE_REQUIRED};
pub use env::{EnvName, EnvNameError, EnvNames};
pub use environment::{AgentEnv, AgentEnvRequest};
pub use keys::{
    Ca, CaCertificate, KeyRotate, KeyRotated, KeyView, RecoveryKey, RekeyView, SlotAdd, SlotAdded, SlotView,
    WireKey,
};
pub use rules::{
    ApprovalView, ConsideredView, Explain, Explanation, LearnedRule, Refusals, RefusedTarget, RuleAdd,
    RuleView,
};
pub use running::RunningAgent;
pub use secret_test::{SecretTest, SecretTested};
pub use session::{Caller, Session, SessionRequest};
pub use status::{AuditStatus, Status, Transparent};
pub use value::WireValue;
pub use vault::{Import, ImportEnd, ImportHow, Imported, NamedValue, VaultImport, VaultView};

use std::fmt;

use jiff::Timestamp;
use onecli_model::{
    AgentId, AgentName, CgroupName, Egress, Factors, HostSet, MethodSet, PathPattern, Placement, Profile,
    Runner, SecretId, SecretName, ValueClass,
};
use serde::{Deserialize, Serialize};

/// The path of the admin socket unless `--socket` or `ONECLI_SOCKET` names another.
pub const DEFAULT_SOCKET: &str = "/run/onecli/admin.sock";

/// Paths of the API. Names contain no character that needs escaping.
pub mod routes {
    use jiff::Timestamp;
    use onecli_model::{AgentName, RuleId, Runner, SecretName};

    /// `GET`: [`super::Status`].
    pub const STATUS: &str = "/v1/status";
    /// `GET`: a list of [`super::RunningAgent`].
    pub const RUNNING: &str = "/v1/running";
    /// `GET`: [`super::Doctor`].
    pub const DOCTOR: &str = "/v1/doctor";
    /// `GET`: [`super::Ca`].
    pub const CA: &str = "/v1/ca";
    /// `POST`: the [`super::Ca`] after the rotation.
    pub const CA_ROTATE: &str = "/v1/ca/rotate";
    /// `POST`: the [`super::Ca`] after the rotation.
    pub const CA_FINISH: &str = "/v1/ca/finish";
    /// `GET`: [`super::KeyView`].
    pub const KEY: &str = "/v1/key";
    /// `POST` [`super::SlotAdd`]: [`super::SlotAdded`].
    pub const KEY_SLOTS: &str = "/v1/key/slots";
    /// `POST` [`super::KeyRotate`]: [`super::KeyRotated`].
    pub const KEY_ROTATE: &str = "/v1/key/rotate";
    /// `GET`: a copy of the store, a SQLite database.
    pub const BACKUP: &str = "/v1/backup";
    /// `GET`: a list of [`super::AgentView`]. `POST` [`super::AgentAdd`]: [`super::AgentToken`].
    pub const AGENTS: &str = "/v1/agents";
    /// `GET`: a list of [`super::SecretView`]. `POST` [`super::SecretAdd`]: [`super::SecretView`].
    pub const SECRETS: &str = "/v1/secrets";
    /// `POST` [`super::Import`]: a list of [`super::Imported`].
    pub const SECRETS_IMPORT: &str = "/v1/secrets-import";
    /// `GET`: [`super::VaultView`].
    pub const VAULT: &str = "/v1/vault";
    /// `POST` [`super::VaultImport`]: a list of [`super::Imported`].
    pub const VAULT_IMPORT: &str = "/v1/vault/import";
    /// `GET`, with [`super::AuditQuery`] as the query: records as JSON lines, oldest first.
    pub const AUDIT: &str = "/v1/audit";

    /// `GET`: a list of [`super::RuleView`]. `POST` [`super::RuleAdd`]: [`super::RuleView`].
    pub const RULES: &str = "/v1/rules";
    /// `POST` [`super::Explain`]: [`super::Explanation`].
    pub const EXPLAIN: &str = "/v1/explain";
    /// `GET`: a list of [`super::ApprovalView`].
    pub const APPROVALS: &str = "/v1/approvals";
    /// `GET`: [`super::ApprovalEvent`]s as JSON lines, until the client hangs up.
    pub const APPROVALS_WATCH: &str = "/v1/approvals-watch";

    /// The query of a `DELETE` of an agent that also kills the agent's processes.
    pub const KILL: &str = "kill=true";

    /// `GET`: [`super::AgentDetail`]. `DELETE`, with the query [`KILL`] or none: [`super::AgentRemoved`].
    pub fn agent(name: &AgentName) -> String {
        format!("{AGENTS}/{name}")
    }

    /// `POST`: `rotate` ([`super::AgentToken`]), `enable`, `disable` ([`super::AgentView`]), `set`
    /// ([`super::AgentSet`]: [`super::AgentChanged`]), `session` ([`super::SessionRequest`]:
    /// [`super::Session`]), `env` ([`super::AgentEnvRequest`]: [`super::AgentEnv`]).
    pub fn agent_action(name: &AgentName, action: &str) -> String {
        format!("{AGENTS}/{name}/{action}")
    }

    /// The query of a `PUT` of a runner that changes whether the runner may see every run; `true` or `false` follows.
    pub const SEE_ALL: &str = "see_all=";
    /// The query with which a runner requests data about every run of the agent, not only its own runs.
    pub const EVERY_RUN: &str = "every_run=true";

    /// `PUT`, with the query [`SEE_ALL`] or none, `DELETE`: [`super::AgentDetail`].
    pub fn runner(agent: &AgentName, runner: &Runner) -> String {
        format!("{AGENTS}/{agent}/runners/{runner}")
    }

    /// `GET`, with the query [`EVERY_RUN`] or none: a list of [`super::LearnedRule`].
    pub fn learn(name: &AgentName) -> String {
        format!("{AGENTS}/{name}/learn")
    }

    /// `GET`: [`super::Refusals`] since the given time, without those of commands that another uid launched.
    pub fn refusals(name: &AgentName, since: Timestamp, launched_by: u32) -> String {
        format!("{AGENTS}/{name}/refusals?since={since}&launched_by={launched_by}")
    }

    /// `DELETE`: [`super::RuleView`] before the removal.
    pub fn rule(id: RuleId) -> String {
        format!("{RULES}/{id}")
    }

    /// `GET`: [`super::ApprovalDetail`].
    pub fn approval(id: &str) -> String {
        format!("{APPROVALS}/{id}")
    }

    /// `POST`: `allow` or `deny`: [`super::ApprovalView`].
    pub fn approval_answer(id: &str, answer: &str) -> String {
        format!("{APPROVALS}/{id}/{answer}")
    }

    /// `GET`: [`super::SecretView`]. `DELETE`: [`super::SecretView`] before the removal.
    pub fn secret(name: &SecretName) -> String {
        format!("{SECRETS}/{name}")
    }

    /// `POST`: `rotate` ([`super::SecretRotate`]), `rollback`, `enable`, `disable`: [`super::SecretView`]; `test`
    /// ([`super::SecretTest`]: [`super::SecretTested`]); `edit` ([`super::SecretEdit`]: [`super::SecretEdited`]).
    pub fn secret_action(name: &SecretName, action: &str) -> String {
        format!("{SECRETS}/{name}/{action}")
    }

    /// `DELETE`: [`super::SlotView`] before the removal.
    pub fn key_slot(number: u32) -> String {
        format!("{KEY_SLOTS}/{number}")
    }

    /// `PUT`: [`super::GrantView`]. `DELETE`: [`super::GrantView`] before the removal.
    pub fn grant(agent: &AgentName, secret: &SecretName) -> String {
        format!("/v1/grants/{agent}/{secret}")
    }
}

/// The body of every response that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// The error code for a value that does not look like the expected credential. The same request with `force` stores the
/// value.
pub const VALUE_DOUBTFUL: &str = "value_doubtful";

/// An error, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// A machine-readable code: `not_permitted`, `not_found`, `exists`, `invalid`, ...
    pub code: String,
    /// A description of the failure.
    pub message: String,
    /// The next step for the user; may be empty.
    #[serde(default)]
    pub hint: String,
}

/// The separator before the next step in an error's text.
pub const HELP: &str = "\nhelp: ";

impl ErrorDetail {
    /// Splits an error's text at [`HELP`] into message and hint.
    pub fn new(code: &str, error: &dyn std::fmt::Display) -> ErrorDetail {
        let text = error.to_string();
        let (message, hint) = text.split_once(HELP).unwrap_or((&text, ""));
        ErrorDetail { code: code.to_owned(), message: message.to_owned(), hint: hint.to_owned() }
    }
}

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

/// Permission for one agent to use one secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantView {
    /// The agent.
    pub agent: AgentName,
    /// The secret.
    pub secret: SecretName,
    /// The placeholder that the agent holds instead of the credential. Runners without administrator rights do not
    /// see it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub placeholder: String,
    /// The environment variable from which the agent's programs read the placeholder.
    pub env: Option<String>,
}

/// `secret add`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretAdd {
    /// The secret's name.
    pub name: SecretName,
    /// The hosts that it may be sent to, separated by commas.
    pub host: HostSet,
    /// The port, 1 to 65535.
    #[serde(default = "https_port")]
    pub port: u16,
    /// The HTTP methods; empty for all.
    #[serde(default)]
    pub methods: MethodSet,
    /// The path patterns; empty for all.
    #[serde(default)]
    pub paths: Vec<PathPattern>,
    /// The position of the credential in a request.
    pub placement: Placement,
    /// Its template, the shape of its placeholders, and how the daemon turns its value into a credential.
    #[serde(default)]
    pub profile: Profile,
    /// The environment variables from which agents' programs read the placeholder, separated by commas.
    #[serde(default)]
    pub env: Option<EnvNames>,
    /// Whether the credential may be sent over plain HTTP.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// The credential; absent if the profile names an external source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<WireValue>,
    /// Store the value even if it does not look like the expected credential.
    #[serde(default)]
    pub force: bool,
}

fn https_port() -> u16 {
    443
}

/// A secret without its value. No response ever contains the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretView {
    /// The secret's name.
    pub name: SecretName,
    /// Its id in the store.
    pub id: SecretId,
    /// Whether the daemon injects it.
    pub enabled: bool,
    /// The hosts that it may be sent to, separated by commas.
    pub host: HostSet,
    /// The port.
    pub port: u16,
    /// The HTTP methods; empty for all.
    pub methods: MethodSet,
    /// The path patterns.
    pub paths: Vec<PathPattern>,
    /// The position of the credential in a request.
    pub placement: Placement,
    /// Its template, the shape of its placeholders, and how the daemon turns its value into a credential.
    #[serde(default)]
    pub profile: Profile,
    /// The environment variables from which agents' programs read the placeholder, separated by commas.
    pub env: Option<String>,
    /// Whether the credential may be sent over plain HTTP.
    pub allow_plaintext: bool,
    /// The version of the value: 1 for the first, plus 1 for each new value.
    pub version: u32,
    /// Public properties of the value, such as `token/128`; `None` for values stored by an older version of OneCLI.
    #[serde(default)]
    pub class: Option<ValueClass>,
    /// The time until which `secret rollback` can restore the previous value, given the secret's current settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_until: Option<Timestamp>,
    /// The time until which the daemon retains a previous value that cannot be restored with the secret's current
    /// settings. Responses are still searched for that value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked_until: Option<Timestamp>,
    /// The agents that may use it.
    pub agents: Vec<AgentName>,
    /// The time of the last injection.
    #[serde(default)]
    pub last_used: Option<Timestamp>,
    /// Whether the given value was already stored, in which case nothing was changed. Present only in the response to
    /// `secret rotate`, and only for root.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// Warnings about the value; present only in the responses to `secret add` and `secret rotate`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
