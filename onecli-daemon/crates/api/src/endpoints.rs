//! The table of all operations, with the access that each one needs. The server routes by it.

use crate::endpoint::Access::{Administer, Read, Root};
use crate::endpoint::Endpoint;
use crate::routes;

/// The state of the daemon.
pub const GET_STATUS: Endpoint = Endpoint::get(routes::STATUS, Read);
/// The agents that run commands now.
pub const LIST_RUNNING: Endpoint = Endpoint::get(routes::RUNNING, Read);
/// The results of the daemon's own checks.
pub const GET_DOCTOR: Endpoint = Endpoint::get(routes::DOCTOR, Read);
/// Audit records.
pub const LIST_RECORDS: Endpoint = Endpoint::get(routes::AUDIT, Read).for_runners();
/// The certificate authority.
pub const GET_CA: Endpoint = Endpoint::get(routes::CA, Administer);
/// Starts a rotation of the certificate authority.
pub const ROTATE_CA: Endpoint = Endpoint::post(routes::CA_ROTATE, Administer);
/// Finishes a rotation of the certificate authority.
pub const FINISH_CA: Endpoint = Endpoint::post(routes::CA_FINISH, Administer);
/// The root key's slots and the progress of a rotation.
pub const GET_KEY: Endpoint = Endpoint::get(routes::KEY, Administer);
/// Adds a key slot.
pub const ADD_SLOT: Endpoint = Endpoint::post(routes::KEY_SLOTS, Root);
/// Removes a key slot.
pub const REMOVE_SLOT: Endpoint = Endpoint::delete("/v1/key/slots/{slot}", Root);
/// Rotates the root key.
pub const ROTATE_KEY: Endpoint = Endpoint::post(routes::KEY_ROTATE, Root);
/// A copy of the store.
pub const GET_BACKUP: Endpoint = Endpoint::get(routes::BACKUP, Root);
/// The agents.
pub const LIST_AGENTS: Endpoint = Endpoint::get(routes::AGENTS, Administer).for_runners();
/// Adds an agent.
pub const ADD_AGENT: Endpoint = Endpoint::post(routes::AGENTS, Administer);
/// One agent.
pub const GET_AGENT: Endpoint = Endpoint::get("/v1/agents/{agent}", Administer).for_runners();
/// Changes an agent's settings.
pub const SET_AGENT: Endpoint = Endpoint::post("/v1/agents/{agent}/set", Administer);
/// Removes an agent.
pub const REMOVE_AGENT: Endpoint = Endpoint::delete("/v1/agents/{agent}", Administer);
/// Replaces an agent's token.
pub const ROTATE_AGENT: Endpoint = Endpoint::post("/v1/agents/{agent}/rotate", Administer);
/// Enables an agent.
pub const ENABLE_AGENT: Endpoint = Endpoint::post("/v1/agents/{agent}/enable", Administer);
/// Disables an agent.
pub const DISABLE_AGENT: Endpoint = Endpoint::post("/v1/agents/{agent}/disable", Administer);
/// Starts a session for a command of an agent.
pub const START_SESSION: Endpoint = Endpoint::post("/v1/agents/{agent}/session", Administer);
/// Starts a session for a container or another host.
pub const START_ENV: Endpoint = Endpoint::post("/v1/agents/{agent}/env", Administer);
/// Lets a user or group run an agent.
pub const ALLOW_RUNNER: Endpoint = Endpoint::put("/v1/agents/{agent}/runners/{runner}", Administer);
/// No longer lets a user or group run an agent.
pub const DENY_RUNNER: Endpoint = Endpoint::delete("/v1/agents/{agent}/runners/{runner}", Administer);
/// Rules that would allow an agent's refused requests.
pub const LEARN: Endpoint = Endpoint::get("/v1/agents/{agent}/learn", Administer).for_runners();
/// The targets of an agent's refused requests.
pub const LIST_REFUSALS: Endpoint = Endpoint::get("/v1/agents/{agent}/refusals", Administer);
/// The secrets, without values.
pub const LIST_SECRETS: Endpoint = Endpoint::get(routes::SECRETS, Administer);
/// Adds a secret.
pub const ADD_SECRET: Endpoint = Endpoint::post(routes::SECRETS, Administer);
/// Imports values as secrets.
pub const IMPORT_SECRETS: Endpoint = Endpoint::post(routes::SECRETS_IMPORT, Administer);
/// One secret, without its value.
pub const GET_SECRET: Endpoint = Endpoint::get("/v1/secrets/{secret}", Administer);
/// Removes a secret.
pub const REMOVE_SECRET: Endpoint = Endpoint::delete("/v1/secrets/{secret}", Administer);
/// Replaces a secret's value.
pub const ROTATE_SECRET: Endpoint = Endpoint::post("/v1/secrets/{secret}/rotate", Administer);
/// Changes a secret's settings.
pub const EDIT_SECRET: Endpoint = Endpoint::post("/v1/secrets/{secret}/edit", Administer);
/// Restores the value before the current one.
pub const ROLL_BACK_SECRET: Endpoint = Endpoint::post("/v1/secrets/{secret}/rollback", Administer);
/// Enables a secret.
pub const ENABLE_SECRET: Endpoint = Endpoint::post("/v1/secrets/{secret}/enable", Administer);
/// Disables a secret.
pub const DISABLE_SECRET: Endpoint = Endpoint::post("/v1/secrets/{secret}/disable", Administer);
/// Sends one request with a secret.
pub const TEST_SECRET: Endpoint = Endpoint::post("/v1/secrets/{secret}/test", Root);
/// The state of the vault server.
pub const GET_VAULT: Endpoint = Endpoint::get(routes::VAULT, Administer);
/// Imports values of the vault server as secrets.
pub const IMPORT_VAULT: Endpoint = Endpoint::post(routes::VAULT_IMPORT, Root);
/// Lets an agent use a secret.
pub const GRANT: Endpoint = Endpoint::put("/v1/grants/{agent}/{secret}", Administer);
/// No longer lets an agent use a secret.
pub const UNGRANT: Endpoint = Endpoint::delete("/v1/grants/{agent}/{secret}", Administer);
/// The rules.
pub const LIST_RULES: Endpoint = Endpoint::get(routes::RULES, Administer);
/// Adds a rule.
pub const ADD_RULE: Endpoint = Endpoint::post(routes::RULES, Administer);
/// Removes a rule.
pub const REMOVE_RULE: Endpoint = Endpoint::delete("/v1/rules/{rule}", Administer);
/// Explains the decision about a request.
pub const EXPLAIN: Endpoint = Endpoint::post(routes::EXPLAIN, Administer).for_runners();
/// The requests that await approval.
pub const LIST_APPROVALS: Endpoint = Endpoint::get(routes::APPROVALS, Administer);
/// The requests that await approval, and each change.
pub const WATCH_APPROVALS: Endpoint = Endpoint::get(routes::APPROVALS_WATCH, Administer);
/// One request that awaits approval.
pub const GET_APPROVAL: Endpoint = Endpoint::get("/v1/approvals/{approval}", Administer);
/// Allows a request.
pub const ALLOW_APPROVAL: Endpoint = Endpoint::post("/v1/approvals/{approval}/allow", Administer);
/// Denies a request.
pub const DENY_APPROVAL: Endpoint = Endpoint::post("/v1/approvals/{approval}/deny", Administer);

/// All operations.
pub const ALL: &[Endpoint] = &[
    GET_STATUS,
    LIST_RUNNING,
    GET_DOCTOR,
    LIST_RECORDS,
    GET_CA,
    ROTATE_CA,
    FINISH_CA,
    GET_KEY,
    ADD_SLOT,
    REMOVE_SLOT,
    ROTATE_KEY,
    GET_BACKUP,
    LIST_AGENTS,
    ADD_AGENT,
    GET_AGENT,
    SET_AGENT,
    REMOVE_AGENT,
    ROTATE_AGENT,
    ENABLE_AGENT,
    DISABLE_AGENT,
    START_SESSION,
    START_ENV,
    ALLOW_RUNNER,
    DENY_RUNNER,
    LEARN,
    LIST_REFUSALS,
    LIST_SECRETS,
    ADD_SECRET,
    IMPORT_SECRETS,
    GET_SECRET,
    REMOVE_SECRET,
    ROTATE_SECRET,
    EDIT_SECRET,
    ROLL_BACK_SECRET,
    ENABLE_SECRET,
    DISABLE_SECRET,
    TEST_SECRET,
    GET_VAULT,
    IMPORT_VAULT,
    GRANT,
    UNGRANT,
    LIST_RULES,
    ADD_RULE,
    REMOVE_RULE,
    EXPLAIN,
    LIST_APPROVALS,
    WATCH_APPROVALS,
    GET_APPROVAL,
    ALLOW_APPROVAL,
    DENY_APPROVAL,
];
