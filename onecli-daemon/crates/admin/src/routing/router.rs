//! Maps a request's method and path to its handler.

use std::sync::Arc;

use onecli_api::{AuditQuery, routes};
use onecli_store::RunnerChange;

use super::call::{AdminRequest, HandlerResponse, body, created, json, parse, see_all};
use super::runner;
use crate::access::peer::Rights;
use crate::context::AdminContext;
use crate::error::AdminError;
use crate::handlers::scope::RecordScope;
use crate::handlers::{
    agents, approvals, ca, doctor, explain, grants, key, refusals, rules, secrets, status, vault,
};

/// Answers one request.
pub(crate) async fn route(
    context: Arc<AdminContext>,
    rights: Rights,
    call: AdminRequest,
) -> Result<HandlerResponse, AdminError> {
    if rights == Rights::Runner {
        return runner::answer(&context, &call).await;
    }
    let segments: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
    let Some((&"v1", segments)) = segments.split_first() else {
        return Err(unknown(&call));
    };
    let method = call.method.as_str();

    match (method, segments) {
        ("GET", ["status"]) => return json(&status::status(&context).await),
        ("GET", ["running"]) => return json(&agents::running::list(&context).await?),
        ("GET", ["doctor"]) => return json(&doctor::doctor(&context).await),
        ("GET", ["audit"]) => {
            let query = AuditQuery::from_query(&call.query).map_err(AdminError::Invalid)?;
            return Ok(HandlerResponse::AuditLines(query));
        }
        _ => {}
    }
    if rights == Rights::Audit && !call.runs.is_empty() {
        return runner::answer(&context, &call).await;
    }
    check_rights(rights, method, segments)?;

    match (method, segments) {
        ("GET", ["ca"]) => json(&ca::show(&context)),
        ("POST", ["ca", "rotate"]) => json(&ca::rotate(&context).await?),
        ("POST", ["ca", "finish"]) => json(&ca::finish(&context).await?),

        ("GET", ["key"]) => json(&key::status(&context).await?),
        ("POST", ["key", "slots"]) => created(&key::add(&context, body(&call)?).await?),
        ("DELETE", ["key", "slots", number]) => json(&key::remove(&context, number).await?),
        ("POST", ["key", "rotate"]) => json(&key::rotate(&context, body(&call)?).await?),
        ("GET", ["backup"]) => Ok(HandlerResponse::Backup),

        ("GET", ["agents"]) => json(&agents::list(&context).await?),
        ("POST", ["agents"]) => created(&agents::add(&context, body(&call)?).await?),
        ("GET", ["agents", name]) => json(&agents::show(&context, &parse(name)?).await?),
        ("POST", ["agents", name, "set"]) => {
            json(&agents::set::set(&context, call.uid, &parse(name)?, body(&call)?).await?)
        }
        ("DELETE", ["agents", name]) => json(&agents::remove(&context, &parse(name)?, kill(&call)?).await?),
        ("POST", ["agents", name, "rotate"]) => json(&agents::rotate(&context, &parse(name)?).await?),
        ("POST", ["agents", name, "enable"]) => {
            json(&agents::set_enabled(&context, &parse(name)?, true).await?)
        }
        ("POST", ["agents", name, "disable"]) => {
            json(&agents::set_enabled(&context, &parse(name)?, false).await?)
        }
        ("POST", ["agents", name, "session"]) => {
            created(&agents::session::start(&context, call.uid, &parse(name)?, body(&call)?).await?)
        }

        ("POST", ["agents", name, "env"]) => {
            created(&agents::environment::start(&context, &parse(name)?, body(&call)?).await?)
        }
        ("PUT", ["agents", name, "runners", runner]) => {
            let change = agents::allow(&context, see_all(&call.query)?);
            json(&agents::set_runner(&context, call.uid, &parse(name)?, &parse(runner)?, change).await?)
        }
        ("DELETE", ["agents", name, "runners", runner]) => {
            let change = RunnerChange::Deny;
            json(&agents::set_runner(&context, call.uid, &parse(name)?, &parse(runner)?, change).await?)
        }

        ("GET", ["secrets"]) => json(&secrets::list(&context).await?),
        ("POST", ["secrets"]) => created(&secrets::add(&context, call.uid, rights, body(&call)?).await?),
        ("POST", ["secrets-import"]) => {
            json(&secrets::import::of_values(&context, rights, body(&call)?).await?)
        }
        ("GET", ["vault"]) => json(&vault::status(&context).await?),
        ("POST", ["vault", "import"]) => {
            json(&secrets::import::of_vault(&context, rights, body(&call)?).await?)
        }
        ("GET", ["secrets", name]) => json(&secrets::show(&context, &parse(name)?).await?),
        ("DELETE", ["secrets", name]) => json(&secrets::remove(&context, &parse(name)?).await?),
        ("POST", ["secrets", name, "rotate"]) => {
            json(&secrets::rotate(&context, rights, &parse(name)?, body(&call)?).await?)
        }
        ("POST", ["secrets", name, "edit"]) => {
            json(&secrets::edit::edit(&context, rights, &parse(name)?, body(&call)?).await?)
        }
        ("POST", ["secrets", name, "rollback"]) => {
            json(&secrets::rollback::rollback(&context, &parse(name)?).await?)
        }
        ("POST", ["secrets", name, "enable"]) => {
            json(&secrets::set_enabled(&context, &parse(name)?, true).await?)
        }
        ("POST", ["secrets", name, "disable"]) => {
            json(&secrets::set_enabled(&context, &parse(name)?, false).await?)
        }

        ("POST", ["secrets", name, "test"]) => {
            json(&secrets::test::test(&context, call.uid, &parse(name)?, body(&call)?).await?)
        }

        ("PUT", ["grants", agent, secret]) => {
            json(&grants::grant(&context, &parse(agent)?, &parse(secret)?).await?)
        }
        ("DELETE", ["grants", agent, secret]) => {
            json(&grants::ungrant(&context, &parse(agent)?, &parse(secret)?).await?)
        }

        ("GET", ["agents", name, "learn"]) => {
            json(&agents::learn::learn(&context, &parse(name)?, RecordScope::default()).await?)
        }
        ("GET", ["agents", name, "refusals"]) => {
            json(&refusals::list(&context, &parse(name)?, &call.query).await?)
        }
        ("GET", ["rules"]) => json(&rules::list(&context).await?),
        ("POST", ["rules"]) => created(&rules::add(&context, body(&call)?).await?),
        ("DELETE", ["rules", id]) => json(&rules::remove(&context, parse(id)?).await?),
        ("POST", ["explain"]) => json(&explain::explain(&context, body(&call)?).await?),
        ("GET", ["approvals-watch"]) => Ok(HandlerResponse::ApprovalLines),
        ("GET", ["approvals", id]) => json(&approvals::show(&context, parse(id)?)?),
        ("GET", ["approvals"]) => json(&approvals::list(&context)),
        ("POST", ["approvals", id, "allow"]) => {
            json(&approvals::answer(&context, parse(id)?, true, call.uid)?)
        }
        ("POST", ["approvals", id, "deny"]) => {
            json(&approvals::answer(&context, parse(id)?, false, call.uid)?)
        }

        _ => Err(unknown(&call)),
    }
}

/// Checks the rights for operations other than status and audit.
fn check_rights(rights: Rights, method: &str, segments: &[&str]) -> Result<(), AdminError> {
    match rights {
        Rights::Root => Ok(()),
        Rights::Write if !is_for_root(method, segments) => Ok(()),
        Rights::Write => {
            Err(AdminError::root_only("manage keys, create backups, test secrets and read the vault server"))
        }
        Rights::Audit | Rights::Runner => Err(AdminError::NotPermitted {
            message: "members of group 'onecli-audit' may read status and audit only".to_owned(),
            hint: "use sudo, or join the group 'onecli'".to_owned(),
        }),
    }
}

/// Returns whether only root may use the operation. A key slot opens a backup, and together they reveal every value. A
/// value from the vault server could be sent to a host of the caller's choice. A test shows a service's response to a
/// credential that the administrator may not use.
fn is_for_root(method: &str, segments: &[&str]) -> bool {
    matches!(
        (method, segments),
        ("POST" | "PUT" | "DELETE", ["key", ..])
            | ("GET", ["backup"])
            | ("POST", ["vault", "import"] | ["secrets", _, "test"])
    )
}

fn unknown(call: &AdminRequest) -> AdminError {
    AdminError::UnknownOperation { method: call.method.to_string(), path: call.path.clone() }
}

/// Parses the query of a `DELETE` of an agent.
fn kill(call: &AdminRequest) -> Result<bool, AdminError> {
    match call.query.as_str() {
        "" => Ok(false),
        routes::KILL => Ok(true),
        other => Err(AdminError::Invalid(format!(
            "'{}' is not a valid query for this operation",
            other.chars().take(80).flat_map(char::escape_default).collect::<String>()
        ))),
    }
}
