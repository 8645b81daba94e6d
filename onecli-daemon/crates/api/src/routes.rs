//! The path of the socket, and the paths of the API. Names contain no character that needs escaping.

use jiff::Timestamp;
use onecli_model::{AgentName, RuleId, Runner, SecretName};

/// The path of the admin socket unless `--socket` or `ONECLI_SOCKET` names another.
pub const DEFAULT_SOCKET: &str = "/run/onecli/admin.sock";

/// `GET`: [`crate::Status`].
pub const STATUS: &str = "/v1/status";
/// `GET`: a list of [`crate::RunningAgent`].
pub const RUNNING: &str = "/v1/running";
/// `GET`: [`crate::Doctor`].
pub const DOCTOR: &str = "/v1/doctor";
/// `GET`: [`crate::Ca`].
pub const CA: &str = "/v1/ca";
/// `POST`: the [`crate::Ca`] after the rotation.
pub const CA_ROTATE: &str = "/v1/ca/rotate";
/// `POST`: the [`crate::Ca`] after the rotation.
pub const CA_FINISH: &str = "/v1/ca/finish";
/// `GET`: [`crate::KeyView`].
pub const KEY: &str = "/v1/key";
/// `POST` [`crate::SlotAdd`]: [`crate::SlotAdded`].
pub const KEY_SLOTS: &str = "/v1/key/slots";
/// `POST` [`crate::KeyRotate`]: [`crate::KeyRotated`].
pub const KEY_ROTATE: &str = "/v1/key/rotate";
/// `GET`: a copy of the store, a SQLite database.
pub const BACKUP: &str = "/v1/backup";
/// `GET`: a list of [`crate::AgentView`]. `POST` [`crate::AgentAdd`]: [`crate::AgentToken`].
pub const AGENTS: &str = "/v1/agents";
/// `GET`: a list of [`crate::SecretView`]. `POST` [`crate::SecretAdd`]: [`crate::SecretView`].
pub const SECRETS: &str = "/v1/secrets";
/// `POST` [`crate::Import`]: a list of [`crate::Imported`].
pub const SECRETS_IMPORT: &str = "/v1/secrets-import";
/// `GET`: [`crate::VaultView`].
pub const VAULT: &str = "/v1/vault";
/// `POST` [`crate::VaultImport`]: a list of [`crate::Imported`].
pub const VAULT_IMPORT: &str = "/v1/vault/import";
/// `GET`, with [`crate::AuditQuery`] as the query: records as JSON lines, oldest first.
pub const AUDIT: &str = "/v1/audit";

/// `GET`: a list of [`crate::RuleView`]. `POST` [`crate::RuleAdd`]: [`crate::RuleView`].
pub const RULES: &str = "/v1/rules";
/// `POST` [`crate::Explain`]: [`crate::Explanation`].
pub const EXPLAIN: &str = "/v1/explain";
/// `GET`: a list of [`crate::ApprovalView`].
pub const APPROVALS: &str = "/v1/approvals";
/// `GET`: [`crate::ApprovalEvent`]s as JSON lines, until the client hangs up.
pub const APPROVALS_WATCH: &str = "/v1/approvals-watch";

/// The query of a `DELETE` of an agent that also kills the agent's processes.
pub const KILL: &str = "kill=true";

/// `GET`: [`crate::AgentDetail`]. `DELETE`, with the query [`KILL`] or none: [`crate::AgentRemoved`].
pub fn agent(name: &AgentName) -> String {
    format!("{AGENTS}/{name}")
}

/// `POST`: `rotate` ([`crate::AgentToken`]), `enable`, `disable` ([`crate::AgentView`]), `set`
/// ([`crate::AgentSet`]: [`crate::AgentChanged`]), `session` ([`crate::SessionRequest`]:
/// [`crate::Session`]), `env` ([`crate::AgentEnvRequest`]: [`crate::AgentEnv`]).
pub fn agent_action(name: &AgentName, action: &str) -> String {
    format!("{AGENTS}/{name}/{action}")
}

/// The query of a `PUT` of a runner that changes whether the runner may see every run; `true` or `false` follows.
pub const SEE_ALL: &str = "see_all=";
/// The query with which a runner requests data about every run of the agent, not only its own runs.
pub const EVERY_RUN: &str = "every_run=true";

/// `PUT`, with the query [`SEE_ALL`] or none, `DELETE`: [`crate::AgentDetail`].
pub fn runner(agent: &AgentName, runner: &Runner) -> String {
    format!("{AGENTS}/{agent}/runners/{runner}")
}

/// `GET`, with the query [`EVERY_RUN`] or none: a list of [`crate::LearnedRule`].
pub fn learn(name: &AgentName) -> String {
    format!("{AGENTS}/{name}/learn")
}

/// `GET`: [`crate::Refusals`] since the given time, without those of commands that another uid launched.
pub fn refusals(name: &AgentName, since: Timestamp, launched_by: u32) -> String {
    format!("{AGENTS}/{name}/refusals?since={since}&launched_by={launched_by}")
}

/// `DELETE`: [`crate::RuleView`] before the removal.
pub fn rule(id: RuleId) -> String {
    format!("{RULES}/{id}")
}

/// `GET`: [`crate::ApprovalDetail`].
pub fn approval(id: &str) -> String {
    format!("{APPROVALS}/{id}")
}

/// `POST`: `allow` or `deny`: [`crate::ApprovalView`].
pub fn approval_answer(id: &str, answer: &str) -> String {
    format!("{APPROVALS}/{id}/{answer}")
}

/// `GET`: [`crate::SecretView`]. `DELETE`: [`crate::SecretView`] before the removal.
pub fn secret(name: &SecretName) -> String {
    format!("{SECRETS}/{name}")
}

/// `POST`: `rotate` ([`crate::SecretRotate`]), `rollback`, `enable`, `disable`: [`crate::SecretView`]; `test`
/// ([`crate::SecretTest`]: [`crate::SecretTestResult`]); `edit` ([`crate::SecretEdit`]: [`crate::SecretEdited`]).
pub fn secret_action(name: &SecretName, action: &str) -> String {
    format!("{SECRETS}/{name}/{action}")
}

/// `DELETE`: [`crate::SlotView`] before the removal.
pub fn key_slot(number: u32) -> String {
    format!("{KEY_SLOTS}/{number}")
}

/// `PUT`: [`crate::GrantView`]. `DELETE`: [`crate::GrantView`] before the removal.
pub fn grant(agent: &AgentName, secret: &SecretName) -> String {
    format!("/v1/grants/{agent}/{secret}")
}
