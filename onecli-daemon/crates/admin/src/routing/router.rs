//! The routers, one for each kind of caller.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::request::Parts;
use http::{Request, Uri, header};
use onecli_api::{AuditQuery, endpoints};
use tower::ServiceExt;

use super::extract::{Caller, Query, Received};
use super::operations::{Context, Operations, json, stream};
use super::{agents, policy, runner, secrets, vault};
use crate::access::peer::Rights;
use crate::context::AdminContext;
use crate::error::AdminError;
use crate::handlers::{approvals, audit, backup, doctor, status};

/// The routers, one for each kind of caller.
pub(crate) struct Routers {
    administrators: Router,
    /// Auditors who may also run agents.
    auditing_runners: Router,
    runners: Router,
}

impl Routers {
    pub(crate) fn new(context: &Arc<AdminContext>) -> Routers {
        let all = readers()
            .merge(agents::operations().merge(secrets::operations()).completed_without_client())
            .merge(policy::operations().merge(vault::operations()).completed_without_client())
            .merge(streams());
        let own = || runner::operations().with_runner_turns(context).completed_without_client();
        let records = || runner::records().with_runner_turns(context).completed_without_client();
        Routers {
            administrators: all.into_router(context),
            auditing_runners: readers().merge(own()).into_router(context),
            runners: own().merge(records()).into_router(context),
        }
    }

    fn of(&self, caller: &Caller) -> Router {
        let router = match caller.rights {
            Rights::Runner => &self.runners,
            Rights::Audit if !caller.runs.is_empty() => &self.auditing_runners,
            Rights::Root | Rights::Write | Rights::Audit => &self.administrators,
        };
        router.clone()
    }
}

/// Answers one request.
pub(crate) async fn answer(routers: &Routers, caller: Caller, head: Parts, received: Received) -> Response {
    let router = routers.of(&caller);
    let mut request = Request::from_parts(head, Body::empty());
    if let Some(uri) = without_extra_slashes(request.uri()) {
        *request.uri_mut() = uri;
    }
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(received);
    let Ok(mut response) = router.oneshot(request).await;
    // axum adds the field to the answers of `method_not_allowed_fallback`.
    response.headers_mut().remove(header::ALLOW);
    response
}

/// Several slashes at the start of a path count as one.
fn without_extra_slashes(uri: &Uri) -> Option<Uri> {
    let path = uri.path_and_query()?.as_str();
    let rest = path.strip_prefix("//")?.trim_start_matches('/');
    format!("/{rest}").parse().ok()
}

/// The operations that auditors may use.
fn readers() -> Operations {
    let answered = Operations::default()
        .on(&endpoints::GET_STATUS, async |State(context): Context| json(&status::status(&context).await))
        .on(&endpoints::LIST_RUNNING, async |State(context): Context| {
            json(&crate::handlers::agents::running::list(&context).await?)
        })
        .on(&endpoints::GET_DOCTOR, async |State(context): Context| json(&doctor::doctor(&context).await));
    let records = async |State(context): Context, Query(query): Query| {
        let query = AuditQuery::from_query(&query).map_err(AdminError::Invalid)?;
        Ok::<_, AdminError>(stream("application/jsonl", audit::lines(context, query).await?))
    };
    answered.completed_without_client().merge(Operations::default().on(&endpoints::LIST_RECORDS, records))
}

/// The operations that end when the client disconnects.
fn streams() -> Operations {
    Operations::default()
        .on(&endpoints::GET_BACKUP, async |State(context): Context| {
            Ok::<_, AdminError>(stream("application/vnd.sqlite3", backup::copy(&context).await?))
        })
        .on(&endpoints::WATCH_APPROVALS, async |State(context): Context| {
            Ok::<_, AdminError>(stream("application/jsonl", approvals::watch(&context)?))
        })
}
