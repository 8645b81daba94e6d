//! Operations on agents and their runners.

use axum::Extension;
use axum::extract::State;
use onecli_api::{endpoints, routes};
use onecli_model::{AgentName, Runner};
use onecli_store::RunnerChange;

use super::extract::{Caller, JsonBody, Query, Segment, Segments};
use super::operations::{Answer, Context, Operations, created, json};
use crate::error::AdminError;
use crate::handlers::scope::RecordScope;
use crate::handlers::{agents, refusals};

pub(super) fn operations() -> Operations {
    Operations::default()
        .on(&endpoints::LIST_AGENTS, async |State(context): Context| json(&agents::list(&context).await?))
        .on(&endpoints::ADD_AGENT, async |State(context): Context, JsonBody(request)| {
            created(&agents::add(&context, request).await?)
        })
        .on(&endpoints::GET_AGENT, async |State(context): Context, Segment(name)| {
            json(&agents::show(&context, &name).await?)
        })
        .on(&endpoints::SET_AGENT, set)
        .on(&endpoints::REMOVE_AGENT, async |State(context): Context, Segment(name), Query(query)| {
            json(&agents::remove(&context, &name, kill(&query)?).await?)
        })
        .on(&endpoints::ROTATE_AGENT, async |State(context): Context, Segment(name)| {
            json(&agents::rotate(&context, &name).await?)
        })
        .on(&endpoints::ENABLE_AGENT, async |State(context): Context, Segment(name)| {
            json(&agents::set_enabled(&context, &name, true).await?)
        })
        .on(&endpoints::DISABLE_AGENT, async |State(context): Context, Segment(name)| {
            json(&agents::set_enabled(&context, &name, false).await?)
        })
        .on(&endpoints::START_SESSION, start_session)
        .on(&endpoints::START_ENV, async |State(context): Context, Segment(name), JsonBody(request)| {
            created(&agents::environment::start(&context, &name, request).await?)
        })
        .on(&endpoints::ALLOW_RUNNER, allow_runner)
        .on(&endpoints::DENY_RUNNER, deny_runner)
        .on(&endpoints::LEARN, async |State(context): Context, Segment(name)| {
            json(&agents::learn::learn(&context, &name, RecordScope::default()).await?)
        })
        .on(&endpoints::LIST_REFUSALS, async |State(context): Context, Segment(name), Query(query)| {
            json(&refusals::list(&context, &name, &query).await?)
        })
}

async fn set(
    State(context): Context,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment<AgentName>,
    JsonBody(request): JsonBody<onecli_api::AgentSet>,
) -> Answer {
    json(&agents::set::set(&context, caller.uid, &name, request).await?)
}

async fn start_session(
    State(context): Context,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment<AgentName>,
    JsonBody(request): JsonBody<onecli_api::SessionRequest>,
) -> Answer {
    created(&agents::session::start(&context, caller.uid, &name, request).await?)
}

async fn allow_runner(
    State(context): Context,
    Extension(caller): Extension<Caller>,
    SeeAll(see_all): SeeAll,
    Segments(name, runner): Segments<AgentName, Runner>,
) -> Answer {
    let change = agents::allow(&context, see_all);
    json(&agents::set_runner(&context, caller.uid, &name, &runner, change).await?)
}

async fn deny_runner(
    State(context): Context,
    Extension(caller): Extension<Caller>,
    Segments(name, runner): Segments<AgentName, Runner>,
) -> Answer {
    json(&agents::set_runner(&context, caller.uid, &name, &runner, RunnerChange::Deny).await?)
}

/// The query of a `PUT` of a runner, which may also change `see_all`.
struct SeeAll(Option<bool>);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for SeeAll {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut http::request::Parts, state: &S) -> Result<SeeAll, AdminError> {
        let Query(query) = Query::from_request_parts(parts, state).await?;
        see_all(&query).map(SeeAll)
    }
}

fn see_all(query: &str) -> Result<Option<bool>, AdminError> {
    match query.strip_prefix(routes::SEE_ALL) {
        None if query.is_empty() => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        _ => Err(AdminError::Invalid(format!("the query must be {}true or {0}false", routes::SEE_ALL))),
    }
}

/// Parses the query of a `DELETE` of an agent.
fn kill(query: &str) -> Result<bool, AdminError> {
    match query {
        "" => Ok(false),
        routes::KILL => Ok(true),
        other => Err(AdminError::Invalid(format!(
            "'{}' is not a valid query for this operation",
            other.chars().take(80).flat_map(char::escape_default).collect::<String>()
        ))),
    }
}
