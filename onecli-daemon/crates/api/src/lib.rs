//! Questions and answers of the admin socket, shared by the daemon and the CLI.
//!
//! HTTP/1.1 over a Unix socket, one request per connection, bodies in JSON. Paths are in [`routes`]; every error is an
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

/// Where the admin socket is unless `--socket` or `ONECLI_SOCKET` says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/onecli/admin.sock";

/// Paths of the API. Names hold no character that would need escaping.
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
    /// `POST`: the [`super::Ca`] as it is then.
    pub const CA_ROTATE: &str = "/v1/ca/rotate";
    /// `POST`: the [`super::Ca`] as it is then.
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

    /// The query of a `DELETE` of an agent that kills what runs as it.
    pub const KILL: &str = "kill=true";

    /// `GET`: [`super::AgentDetail`]. `DELETE`, with the query [`KILL`] or none: [`super::AgentRemoved`].
    pub fn agent(name: &AgentName) -> String {
        format!("{AGENTS}/{name}")
    }

    /// `POST`: `rotate` ([`super::AgentToken`]), `enable`, `disable` ([`super::AgentView`]), `set`
    /// ([`super::AgentSet`]: [`super::AgentChanged`]), `session` ([`super::SessionRequest`]: [`super::Session`]), `env` ([`super::AgentEnvRequest`]: [`super::AgentEnv`]).
    pub fn agent_action(name: &AgentName, action: &str) -> String {
        format!("{AGENTS}/{name}/{action}")
    }

    /// The query of a `PUT` of a runner that lets it see every run, or not: before `true` or `false`.
    pub const SEE_ALL: &str = "see_all=";
    /// The query of a question of a runner about every run of the agent, and not only the own ones.
    pub const EVERY_RUN: &str = "every_run=true";

    /// `PUT`, with the query [`SEE_ALL`] or none, `DELETE`: [`super::AgentDetail`].
    pub fn runner(agent: &AgentName, runner: &Runner) -> String {
        format!("{AGENTS}/{agent}/runners/{runner}")
    }

    /// `GET`, with the query [`EVERY_RUN`] or none: a list of [`super::LearnedRule`].
    pub fn learn(name: &AgentName) -> String {
        format!("{AGENTS}/{name}/learn")
    }

    /// `GET`: [`super::Refusals`] since then, without those of commands that another uid launched.
    pub fn refusals(name: &AgentName, since: Timestamp, launched_by: u32) -> String {
        format!("{AGENTS}/{name}/refusals?since={since}&launched_by={launched_by}")
    }

    /// `DELETE`: [`super::RuleView`] as it was.
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

    /// `GET`: [`super::SecretView`]. `DELETE`: [`super::SecretView`] as it was.
    pub fn secret(name: &SecretName) -> String {
        format!("{SECRETS}/{name}")
    }

    /// `POST`: `rotate` ([`super::SecretRotate`]), `rollback`, `enable`, `disable`: [`super::SecretView`]; `test`
    /// ([`super::SecretTest`]: [`super::SecretTested`]); `edit` ([`super::SecretEdit`]: [`super::SecretEdited`]).
    pub fn secret_action(name: &SecretName, action: &str) -> String {
        format!("{SECRETS}/{name}/{action}")
    }

    /// `DELETE`: [`super::SlotView`] as it was.
    pub fn key_slot(number: u32) -> String {
        format!("{KEY_SLOTS}/{number}")
    }

    /// `PUT`: [`super::GrantView`]. `DELETE`: [`super::GrantView`] as it was.
    pub fn grant(agent: &AgentName, secret: &SecretName) -> String {
        format!("/v1/grants/{agent}/{secret}")
    }
}

/// Any answer that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// The code of a value that does not look like the credential. The same request with `force` stores it.
pub const VALUE_DOUBTFUL: &str = "value_doubtful";

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// A word for programs: `not_permitted`, `not_found`, `exists`, `invalid`, ...
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do next; may be empty.
    #[serde(default)]
    pub hint: String,
}

/// Begins the line of an error's text that says what to do next.
pub const HELP: &str = "\nhelp: ";

impl ErrorDetail {
    /// Takes an error's text apart where [`HELP`] begins.
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
    /// Its name.
    pub name: AgentName,
    /// What it must prove; by default token and cgroup, without eBPF the token.
    #[serde(default)]
    pub factors: Option<Factors>,
    /// Its managed cgroup; by default one made from its name.
    #[serde(default)]
    pub cgroup: Option<CgroupName>,
    /// The user its processes run as: one that exists, never uid 0, no other agent's.
    #[serde(default)]
    pub user: Option<String>,
    /// What happens to hosts that neither a rule nor a grant names.
    #[serde(default)]
    pub egress: Egress,
    /// Who besides administrators may start commands as it.
    #[serde(default)]
    pub runners: Vec<Runner>,
    /// Whether it may change the configuration and the hooks of git repositories in a project.
    #[serde(default)]
    pub allow_git_config: bool,
}

/// An agent in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// Its name.
    pub name: AgentName,
    /// Its identity in the store.
    pub id: AgentId,
    /// Is it let in?
    pub enabled: bool,
    /// What it must prove.
    pub factors: Factors,
    /// Its managed cgroup, below the agents root.
    pub cgroup: CgroupName,
    /// The user its processes run as.
    pub user: Option<String>,
    /// What happens to hosts that neither a rule nor a grant names.
    pub egress: Egress,
    /// How often its token was made, from 1.
    pub generation: u32,
    /// Whether it may change the configuration and the hooks of git repositories in a project.
    #[serde(default)]
    pub allow_git_config: bool,
}

/// An agent with what it may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentDetail {
    /// The agent.
    #[serde(flatten)]
    pub agent: AgentView,
    /// What it may use, by name of secret.
    pub secrets: Vec<GrantView>,
    /// Who besides administrators may start commands as it.
    #[serde(default)]
    pub runners: Vec<Runner>,
    /// Which of them may also see requests of runs that others started.
    #[serde(default)]
    pub see_all: Vec<Runner>,
}

/// An agent that was removed: its token, sessions, grants and placeholders are gone. Its audit records stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRemoved {
    /// The agent as it was.
    #[serde(flatten)]
    pub agent: AgentDetail,
    /// Why its cgroup is still there, if it is: processes that live in it are refused everything.
    pub cgroup_left: Option<String>,
}

/// An agent with its token, which is shown here and never again.
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

/// One agent's use of one secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantView {
    /// The agent.
    pub agent: AgentName,
    /// The secret.
    pub secret: SecretName,
    /// What the agent holds in the credential's place. Runners who do not administer are not shown it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub placeholder: String,
    /// The variable that its programs read it from.
    pub env: Option<String>,
}

/// `secret add`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretAdd {
    /// Its name.
    pub name: SecretName,
    /// The hosts it may go to, with commas between them.
    pub host: HostSet,
    /// The port, 1 to 65535.
    #[serde(default = "https_port")]
    pub port: u16,
    /// The methods; empty for all.
    #[serde(default)]
    pub methods: MethodSet,
    /// The paths; empty for all.
    #[serde(default)]
    pub paths: Vec<PathPattern>,
    /// How it is placed.
    pub placement: Placement,
    /// Its template, the form of its placeholders, how its value becomes a credential.
    #[serde(default)]
    pub profile: Profile,
    /// The variables that agents' programs read it from, with commas between them.
    #[serde(default)]
    pub env: Option<EnvNames>,
    /// May it be sent over plain HTTP?
    #[serde(default)]
    pub allow_plaintext: bool,
    /// The credential; absent where the profile says where it is had from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<WireValue>,
    /// Store a value that does not look like the credential.
    #[serde(default)]
    pub force: bool,
}

fn https_port() -> u16 {
    443
}

/// A secret without its value, which no answer ever holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretView {
    /// Its name.
    pub name: SecretName,
    /// Its identity in the store.
    pub id: SecretId,
    /// Is it ever injected?
    pub enabled: bool,
    /// The hosts it may go to, with commas between them.
    pub host: HostSet,
    /// The port.
    pub port: u16,
    /// The methods; empty for all.
    pub methods: MethodSet,
    /// The paths.
    pub paths: Vec<PathPattern>,
    /// How it is placed.
    pub placement: Placement,
    /// Its template, the form of its placeholders, how its value becomes a credential.
    #[serde(default)]
    pub profile: Profile,
    /// The variables that agents' programs read it from, with commas between them.
    pub env: Option<String>,
    /// May it be sent over plain HTTP?
    pub allow_plaintext: bool,
    /// Counts up with each new value, from 1.
    pub version: u32,
    /// What is public about the value, such as `token/128`; `None` for values that an older version stored.
    #[serde(default)]
    pub class: Option<ValueClass>,
    /// Until when `secret rollback` can restore the value before this one, as the secret is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_until: Option<Timestamp>,
    /// Until when a former value is kept that cannot be restored as the secret is now. Responses are searched for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked_until: Option<Timestamp>,
    /// Who may use it.
    pub agents: Vec<AgentName>,
    /// When it was last injected.
    #[serde(default)]
    pub last_used: Option<Timestamp>,
    /// Was the given value stored already? Then nothing was changed. Only in the answer to `secret rotate`, and only for root.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// What to know about its value; only in the answer to `secret add` and `secret rotate`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
