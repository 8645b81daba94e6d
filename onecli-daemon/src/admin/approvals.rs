//! `approval list | allow | deny`. The answer is on record with the request, and with the user who gave it.

use super::api::ApprovalView;
use super::error::AdminError;
use super::state::State;
use crate::policy::{Answer, ApprovalId, Asked};

pub(super) fn list(state: &State) -> Vec<ApprovalView> {
    state.handles.approvals.list().into_iter().map(|(id, asked)| view(id, asked)).collect()
}

pub(super) fn answer(
    state: &State,
    id: ApprovalId,
    allowed: bool,
    uid: u32,
) -> Result<ApprovalView, AdminError> {
    let answered = state.handles.approvals.answer(id, Answer { allowed, uid });
    let asked = answered.map_err(|_| AdminError::not_found("approval", &id))?;
    let change = if allowed { "approval allow" } else { "approval deny" };
    tracing::info!(change, %id, agent = %asked.agent_name, request = %asked.request, "admin change");
    Ok(view(id, asked))
}

fn view(id: ApprovalId, asked: Asked) -> ApprovalView {
    ApprovalView {
        id: id.to_string(),
        agent: asked.agent_name,
        rule: asked.rule,
        request_id: asked.request,
        method: asked.method,
        authority: asked.authority.to_string(),
        path: asked.path,
        query: asked.query,
        secrets: asked.secrets,
        digest: asked.digest,
        body_bytes: asked.body_bytes,
        since: asked.since,
        until: asked.until,
    }
}
