//! The operations of a permitted runner: about agents that the caller may run, and about requests of the caller's own
//! runs.
//!
//! A missing agent and an agent that the caller may not run get the same refusal. The work for a query depends only on
//! the caller's own agents and records, and is bounded, because a runner may query in a loop.

use axum::Extension;
use axum::extract::State;
use onecli_api::{AgentDetail, AuditQuery, Explain, endpoints};
use onecli_audit::Record;
use onecli_model::AgentName;
use onecli_store::AuditRow;
use serde::{Deserialize, Serialize};

use super::extract::{Caller, JsonBody, Query, Segment};
use super::operations::{Answer, Context, Operations, json, lines};
use crate::context::{AdminContext, RunnableAgent};
use crate::error::AdminError;
use crate::handlers::audit::{catch_up, wanted};
use crate::handlers::scope::RecordScope;
use crate::handlers::{agents, explain};

/// The largest number of records in one response. The largest records are about 16 KiB.
const MAX_RECORDS: u32 = 1_000;
/// The largest number of rows that one query reads: the newest of the caller's own.
const MAX_ROWS_READ: u32 = 10_000;

/// The operations on the caller's own agents.
pub(super) fn operations() -> Operations {
    Operations::default()
        .on_own_agents(&endpoints::LIST_AGENTS, list)
        .on_own_agents(&endpoints::GET_AGENT, get)
        .on_own_agents(&endpoints::LEARN, learn)
        .on_own_agents(&endpoints::EXPLAIN, explain_own)
}

/// The records of the caller's own runs. Auditors read all records instead.
pub(super) fn records() -> Operations {
    Operations::default().on_own_agents(
        &endpoints::LIST_RECORDS,
        async |State(context): Context, Extension(caller): Extension<Caller>, Query(query): Query| {
            own_records(&context, &caller, &query).await
        },
    )
}

/// Refuses every other operation.
pub(super) fn not_for_runners(uid: u32) -> AdminError {
    AdminError::NotPermitted {
        message: format!("uid {uid} is not an administrator, and may only run agents"),
        hint:
            "runners may use 'onecli why', 'agent list', 'agent show', 'agent learn' and 'audit list' for their agents"
                .to_owned(),
    }
}

async fn list(State(context): Context, Extension(caller): Extension<Caller>) -> Answer {
    let mut all = agents::list(&context).await?;
    all.retain(|agent| caller.runs.iter().any(|own| own.id == agent.id));
    json(&all)
}

async fn get(
    State(context): Context,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment<AgentName>,
) -> Answer {
    let own = own(&caller, &name)?;
    json(&show(&context, own).await.map_err(|error| conceal_missing_agent(error, &caller, &own.name))?)
}

async fn learn(
    State(context): Context,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment<AgentName>,
    Query(query): Query,
) -> Answer {
    let own = own(&caller, &name)?;
    let scope = scope(&caller, own, agents::learn::wants_all(&query)?)?;
    let learned = agents::learn::learn(&context, &own.name, scope).await;
    json(&learned.map_err(|error| conceal_missing_agent(error, &caller, &own.name))?)
}

async fn explain_own(
    State(context): Context,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<Explain>,
) -> Answer {
    let name = own(&caller, &request.agent)?.name.clone();
    let explained = explain::explain(&context, request).await;
    json(&explained.map_err(|error| conceal_missing_agent(error, &caller, &name))?)
}

fn own<'c>(caller: &'c Caller, name: &AgentName) -> Result<&'c RunnableAgent, AdminError> {
    caller.runs.iter().find(|own| own.name == *name).ok_or_else(|| forbidden(caller.uid, name))
}

/// Returns the refusal, which is the same for a missing agent.
fn forbidden(uid: u32, name: &AgentName) -> AdminError {
    AdminError::NotPermitted {
        message: format!("uid {uid} may not see agent '{name}'"),
        hint: format!("an administrator can allow it: onecli agent allow-run {name} USER|@GROUP"),
    }
}

/// Turns the error for an agent removed meanwhile into the refusal for an agent that the caller may not see.
fn conceal_missing_agent(error: AdminError, caller: &Caller, name: &AgentName) -> AdminError {
    if matches!(error, AdminError::NotFound { .. }) { forbidden(caller.uid, name) } else { error }
}

fn scope(caller: &Caller, own: &RunnableAgent, all: bool) -> Result<RecordScope, AdminError> {
    let max_rows_read = Some(MAX_ROWS_READ);
    if !all {
        return Ok(RecordScope { launched_by: Some(caller.uid), since: Some(own.since), max_rows_read });
    }
    let since = own.sees_all.ok_or_else(|| AdminError::NotPermitted {
        message: format!("uid {} may see only its own runs of agent '{}'", caller.uid, own.name),
        hint: format!(
            "omit --all; an administrator can allow it: onecli agent allow-run {} USER|@GROUP --see-all yes",
            own.name
        ),
    })?;
    Ok(RecordScope { launched_by: None, since: Some(since), max_rows_read })
}

/// Shows the agent without placeholders, which its commands get from the launcher, and without the names of other
/// runners.
async fn show(context: &AdminContext, own: &RunnableAgent) -> Result<AgentDetail, AdminError> {
    let mut detail = agents::show(context, &own.name).await?;
    for grant in &mut detail.secrets {
        grant.placeholder.clear();
    }
    detail.runners.retain(|runner| own.entries.contains(runner));
    detail.see_all.retain(|runner| own.entries.contains(runner));
    Ok(detail)
}

/// Returns the newest records, oldest first.
async fn own_records(context: &AdminContext, caller: &Caller, query: &str) -> Answer {
    let query = AuditQuery::from_query(query).map_err(AdminError::Invalid)?;
    if query.all || query.follow {
        return Err(AdminError::NotPermitted {
            message: format!("uid {} may list records, but not export or follow them", caller.uid),
            hint: "use 'onecli audit list'".to_owned(),
        });
    }
    if query.limit > MAX_RECORDS {
        return Err(AdminError::Invalid(format!(
            "a runner may list at most {MAX_RECORDS} records at a time: choose a smaller --limit, and --since or --until"
        )));
    }
    let asked: Vec<&RunnableAgent> = match &query.filter.agent {
        Some(name) => vec![own(caller, name)?],
        None => caller.runs.iter().collect(),
    };
    let max_rows_read = MAX_ROWS_READ / u32::try_from(asked.len()).unwrap_or(MAX_ROWS_READ).max(1);
    catch_up(&context.handles.audit).await;
    let mut rows: Vec<AuditRow> = Vec::new();
    for own in asked {
        let RecordScope { launched_by, since, .. } = scope(caller, own, query.every_run)?;
        let wanted = wanted(query.filter.clone());
        let question = onecli_store::AuditQuery {
            agent: Some(own.name.to_string()),
            launched_by,
            since: wanted.since.max(since),
            max_rows_read: Some(max_rows_read.max(1)),
            limit: query.limit,
            newest_first: true,
            ..wanted
        };
        rows.extend(context.handles.store.list_audit(&question).await?);
    }
    rows.sort_unstable_by_key(|row| row.id);
    let first = rows.len().saturating_sub(usize::try_from(query.limit).unwrap_or(usize::MAX));
    Ok(lines(rows[first..].iter().filter_map(shown).flatten().collect()))
}

/// A record without its position in the log. Sequence numbers and hash links would reveal how many records other users
/// cause.
#[derive(Serialize, Deserialize)]
struct UnnumberedRecord {
    time: String,
    #[serde(flatten)]
    record: Record,
}

fn shown(row: &AuditRow) -> Option<Vec<u8>> {
    let shown: UnnumberedRecord = serde_json::from_str(&row.json).ok()?;
    let mut line = serde_json::to_vec(&shown).ok()?;
    line.push(b'\n');
    Some(line)
}
