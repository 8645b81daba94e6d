//! The check of a caller's rights, and the answer to a request that names no operation.

use axum::Extension;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use onecli_api::Access;

use super::extract::{Caller, Received};
use super::runner::not_for_runners;
use crate::access::peer::Rights;
use crate::error::AdminError;

/// Lets a request pass only if the caller's rights include `access`.
pub(super) async fn require(
    access: Access,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Result<Response, AdminError> {
    check(caller.rights, access)?;
    Ok(next.run(request).await)
}

fn check(rights: Rights, access: Access) -> Result<(), AdminError> {
    match (access, rights) {
        (_, Rights::Root)
        | (Access::Read | Access::Administer, Rights::Write)
        | (Access::Read, Rights::Audit) => Ok(()),
        (Access::Root, Rights::Write) => {
            Err(AdminError::root_only("manage keys, create backups, test secrets and read the vault server"))
        }
        (_, Rights::Audit | Rights::Runner) => Err(AdminError::NotPermitted {
            message: "members of group 'onecli-audit' may read status and audit only".to_owned(),
            hint: "use sudo, or join the group 'onecli'".to_owned(),
        }),
    }
}

/// Answers a request whose path or method names no operation. A caller without rights gets the same refusal as for an
/// existing operation.
pub(super) async fn no_operation(
    Extension(caller): Extension<Caller>,
    Extension(received): Extension<Received>,
    method: Method,
) -> AdminError {
    if caller.rights == Rights::Runner {
        return not_for_runners(caller.uid);
    }
    let unknown =
        AdminError::UnknownOperation { method: method.to_string(), path: received.path.to_string() };
    let mut segments = received.path.trim_start_matches('/').split('/');
    if segments.next() != Some("v1") {
        return unknown;
    }
    if !caller.runs.is_empty() {
        return not_for_runners(caller.uid);
    }
    let changes_keys =
        segments.next() == Some("key") && matches!(method, Method::POST | Method::PUT | Method::DELETE);
    let access = if changes_keys { Access::Root } else { Access::Administer };
    check(caller.rights, access).err().unwrap_or(unknown)
}
