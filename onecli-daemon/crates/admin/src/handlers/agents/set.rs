//! `agent set`.

use onecli_api::Transparent;
use onecli_api::{AgentChanged, AgentSet, FieldChange};
use onecli_model::{Agent, AgentName, CgroupName};
use onecli_store::AgentChange;

use super::users::{agents, check_user};
use crate::context::{AdminContext, ChangeGuard, Lookup};
use crate::error::AdminError;

/// Changes only the fields that the request names, so concurrent changes by other administrators to other fields
/// survive.
pub(crate) async fn set(
    context: &AdminContext,
    uid: u32,
    name: &AgentName,
    request: AgentSet,
) -> Result<AgentChanged, AdminError> {
    if request.no_user && request.user.is_some() {
        return Err(AdminError::Invalid("name a user or remove it, not both".to_owned()));
    }
    let change = context.begin_change().await?;
    let before = change.stored.agent(name)?.clone();
    let after = applied(&before, request);
    let changes = differences(&before, &after);
    if changes.is_empty() {
        return Ok(AgentChanged { agent: (&before).into(), changes });
    }
    check(context, &change, &before, &after).await?;
    let update = update(&before, &after);
    context.handles.store.change_agent(before.id, &update).await?;
    context.handles.host.record("agent_changed", &described(name, uid, &changes));
    change.apply("agent set", name.as_str()).await?;
    if before.cgroup != after.cgroup
        && let Err(reason) = context.handles.host.remove_cgroup(&before.cgroup)
    {
        tracing::warn!(cgroup = %before.cgroup, reason, "the agent's previous cgroup still exists");
    }
    Ok(AgentChanged { agent: (&after).into(), changes })
}

fn applied(before: &Agent, request: AgentSet) -> Agent {
    let AgentSet { factors, cgroup, user, no_user, egress, allow_git_config } = request;
    Agent {
        factors: factors.unwrap_or(before.factors),
        cgroup: cgroup.unwrap_or_else(|| before.cgroup.clone()),
        user: if no_user { None } else { user.or_else(|| before.user.clone()) },
        egress: egress.unwrap_or(before.egress),
        allow_git_config: allow_git_config.unwrap_or(before.allow_git_config),
        ..before.clone()
    }
}

/// Builds an update that contains only the changed fields.
fn update(before: &Agent, after: &Agent) -> AgentChange {
    let Agent { factors, cgroup, user, egress, allow_git_config, .. } = after;
    AgentChange {
        factors: (before.factors != *factors).then_some(*factors),
        cgroup: (before.cgroup != *cgroup).then(|| cgroup.clone()),
        user: (before.user != *user).then(|| user.clone()),
        egress: (before.egress != *egress).then_some(*egress),
        allow_git_config: (before.allow_git_config != *allow_git_config).then_some(*allow_git_config),
    }
}

fn differences(before: &Agent, after: &Agent) -> Vec<FieldChange> {
    let fields = |agent: &Agent| {
        [
            ("factors", agent.factors.to_string()),
            ("cgroup", agent.cgroup.to_string()),
            ("user", agent.user.clone().unwrap_or_else(|| "none".to_owned())),
            ("egress", agent.egress.to_string()),
            ("allow_git_config", if agent.allow_git_config { "yes" } else { "no" }.to_owned()),
        ]
    };
    let pairs = fields(before).into_iter().zip(fields(after));
    pairs
        .filter(|((_, from), (_, to))| from != to)
        .map(|((field, from), (_, to))| FieldChange { field: field.to_owned(), from, to })
        .collect()
}

/// Describes the changes for the audit log.
fn described(name: &AgentName, uid: u32, changes: &[FieldChange]) -> String {
    let changes: Vec<String> =
        changes.iter().map(|FieldChange { field, from, to }| format!("{field} {from} -> {to}")).collect();
    format!("agent {name}: {}, by uid {uid}", changes.join(", "))
}

/// Applies the same checks as for a new agent. In addition, no process may run as the agent while its cgroup or its
/// user changes: the process would continue without an agent, or share a user with another agent's processes.
async fn check(
    context: &AdminContext,
    change: &ChangeGuard<'_>,
    before: &Agent,
    after: &Agent,
) -> Result<(), AdminError> {
    let (moves, changes_user) = (before.cgroup != after.cgroup, before.user != after.user);
    if moves || changes_user {
        check_idle(context, before)?;
    }
    if moves {
        check_cgroup(context, change, &after.cgroup)?;
    }
    match &after.user {
        Some(user) if changes_user => check_user(context, user, Some(before.id), &change.stored).await,
        _ => Ok(()),
    }
}

fn check_idle(context: &AdminContext, agent: &Agent) -> Result<(), AdminError> {
    match context.handles.host.populated_cgroup(&agent.cgroup).map_err(AdminError::Host)? {
        None => Ok(()),
        Some(directory) => Err(AdminError::NotReady {
            message: format!("processes run as agent '{}', so its user and cgroup cannot change", agent.name),
            hint: format!("end them first: echo 1 > {}", directory.join("cgroup.kill").display()),
        }),
    }
}

/// Checks that the agent's new cgroup belongs to no other agent and contains no processes. Existing processes would
/// become this agent's.
pub(super) fn check_cgroup(
    context: &AdminContext,
    change: &ChangeGuard<'_>,
    cgroup: &CgroupName,
) -> Result<(), AdminError> {
    let host = &context.handles.host;
    if let Some(holder) = agents(&change.stored).find(|agent| agent.cgroup == *cgroup) {
        return Err(AdminError::Exists {
            message: format!("the cgroup '{cgroup}' belongs to agent '{}'", holder.name),
            hint: "a cgroup identifies one agent: choose another --cgroup".to_owned(),
        });
    }
    if let Some(directory) = host.populated_cgroup(cgroup).map_err(AdminError::Host)? {
        return Err(AdminError::NotReady {
            message: format!(
                "the cgroup '{cgroup}' already contains processes, which would become the agent's"
            ),
            hint: format!(
                "end them first (echo 1 > {}), or choose another --cgroup",
                directory.join("cgroup.kill").display()
            ),
        });
    }
    if host.transparent() == Transparent::Available {
        host.ensure_cgroup(cgroup).map_err(AdminError::Host)?;
    }
    Ok(())
}
