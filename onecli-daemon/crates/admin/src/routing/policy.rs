//! Operations on rules, decisions and approvals.

use axum::Extension;
use axum::extract::State;
use onecli_api::endpoints;

use super::extract::{Caller, JsonBody, Segment};
use super::operations::{Context, Operations, created, json};
use crate::handlers::{approvals, explain, rules};

pub(super) fn operations() -> Operations {
    Operations::default()
        .on(&endpoints::LIST_RULES, async |State(context): Context| json(&rules::list(&context).await?))
        .on(&endpoints::ADD_RULE, async |State(context): Context, JsonBody(request)| {
            created(&rules::add(&context, request).await?)
        })
        .on(&endpoints::REMOVE_RULE, async |State(context): Context, Segment(id)| {
            json(&rules::remove(&context, id).await?)
        })
        .on(&endpoints::EXPLAIN, async |State(context): Context, JsonBody(request)| {
            json(&explain::explain(&context, request).await?)
        })
        .on(&endpoints::LIST_APPROVALS, async |State(context): Context| json(&approvals::list(&context)))
        .on(&endpoints::GET_APPROVAL, async |State(context): Context, Segment(id)| {
            json(&approvals::show(&context, id)?)
        })
        .on(&endpoints::ALLOW_APPROVAL, async |state: Context, caller, id| answer(state, caller, id, true))
        .on(&endpoints::DENY_APPROVAL, async |state: Context, caller, id| answer(state, caller, id, false))
}

fn answer(
    State(context): Context,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment<onecli_policy::ApprovalId>,
    allowed: bool,
) -> super::operations::Answer {
    json(&approvals::answer(&context, id, allowed, caller.uid)?)
}
