//! `agent add | list | show | rotate | disable | enable | remove`.

use nix::unistd::{Group, User};
use onecli_api::{AgentAdd, AgentDetail, AgentRemoved, AgentToken, AgentView, Transparent};
use onecli_model::{Agent, AgentId, AgentName, Factors, Runner, Token, TokenHash};
use onecli_store::{RunnerChange, StoreContents};

use super::users::{agents, check_user};
use crate::context::{AdminContext, Lookup};
use crate::error::AdminError;
use crate::handlers::{grants, vault};

pub(crate) async fn add(context: &AdminContext, request: AgentAdd) -> Result<AgentToken, AdminError> {
    let host = &context.handles.host;
    let change = context.begin_change().await?;

    if change.stored.agent(&request.name).is_ok() {
        return Err(AdminError::Exists {
            message: format!("agent '{}' already exists", request.name),
            hint: format!(
                "'onecli agent rotate {0}' gives it a new token, 'onecli agent remove {0}' removes it",
                request.name
            ),
        });
    }
    let transparent = host.transparent() == Transparent::Available;
    let cgroup = match request.cgroup {
        Some(cgroup) => cgroup,
        None => host.default_cgroup(&request.name).map_err(AdminError::Host)?,
    };
    if let Some(holder) = agents(&change.stored).find(|agent| agent.cgroup == cgroup) {
        return Err(AdminError::Exists {
            message: format!("the cgroup '{cgroup}' belongs to agent '{}'", holder.name),
            hint: "a cgroup identifies one agent: choose another --cgroup".to_owned(),
        });
    }
    if let Some(user) = &request.user {
        check_user(context, user, None, &change.stored).await?;
    }
    for runner in &request.runners {
        check_runner(runner.clone()).await?;
    }
    // The cgroup identifies the agent. Processes left behind by a removed agent must not become this one.
    if let Some(directory) = host.populated_cgroup(&cgroup).map_err(AdminError::Host)? {
        return Err(AdminError::NotReady {
            message: format!(
                "the cgroup '{cgroup}' already contains processes, which would become agent '{}'",
                request.name
            ),
            hint: format!(
                "end them first (echo 1 > {}), or choose another --cgroup",
                directory.join("cgroup.kill").display()
            ),
        });
    }
    if transparent {
        host.ensure_cgroup(&cgroup).map_err(AdminError::Host)?;
    }

    let agent = Agent {
        id: AgentId(context.new_id()?),
        name: request.name,
        factors: request.factors.unwrap_or(if transparent { Factors::BOTH } else { Factors::TOKEN }),
        cgroup,
        user: request.user,
        egress: request.egress,
        enabled: true,
        generation: 1,
        allow_git_config: request.allow_git_config,
    };
    let (token, hash) = new_token(context)?;
    context.handles.store.add_agent(&agent, &hash).await?;
    for runner in &request.runners {
        context.handles.store.set_runner(agent.id, runner, allow(context, None)).await?;
    }
    change.apply("agent add", agent.name.as_str()).await?;
    Ok(AgentToken { agent: (&agent).into(), token: token.expose().to_owned() })
}

pub(crate) async fn list(context: &AdminContext) -> Result<Vec<AgentView>, AdminError> {
    Ok(agents(&context.load().await?).map(AgentView::from).collect())
}

pub(crate) async fn show(context: &AdminContext, name: &AgentName) -> Result<AgentDetail, AdminError> {
    let stored = context.load().await?;
    detail(context, &stored, stored.agent(name)?).await
}

pub(crate) async fn rotate(context: &AdminContext, name: &AgentName) -> Result<AgentToken, AdminError> {
    let change = context.begin_change().await?;
    let mut agent = change.stored.agent(name)?.clone();
    agent.generation += 1;
    let (token, hash) = new_token(context)?;
    context.handles.store.set_token(agent.id, &hash, agent.generation).await?;
    change.apply("agent rotate", agent.name.as_str()).await?;
    vault::end_leases(context, agent.id);
    Ok(AgentToken { agent: (&agent).into(), token: token.expose().to_owned() })
}

pub(crate) async fn set_enabled(
    context: &AdminContext,
    name: &AgentName,
    enabled: bool,
) -> Result<AgentView, AdminError> {
    let change = context.begin_change().await?;
    let mut agent = change.stored.agent(name)?.clone();
    agent.enabled = enabled;
    context.handles.store.set_agent_enabled(agent.id, enabled).await?;
    change.apply(if enabled { "agent enable" } else { "agent disable" }, agent.name.as_str()).await?;
    if !enabled {
        vault::end_leases(context, agent.id);
    }
    Ok((&agent).into())
}

/// Removes an agent. If processes still run as the agent, `kill` is required: otherwise they would stay in a cgroup
/// without an agent.
pub(crate) async fn remove(
    context: &AdminContext,
    name: &AgentName,
    kill: bool,
) -> Result<AgentRemoved, AdminError> {
    let host = &context.handles.host;
    let change = context.begin_change().await?;
    let agent = change.stored.agent(name)?.clone();
    let populated = host.populated_cgroup(&agent.cgroup).map_err(AdminError::Host)?.is_some();
    if populated && !kill {
        return Err(AdminError::NotReady {
            message: format!("processes run as agent '{name}'"),
            hint: format!(
                "end them, or use 'onecli agent remove {name} --kill'; 'onecli agent disable {name}' revokes \
                 their access now"
            ),
        });
    }
    let agent_detail = detail(context, &change.stored, &agent).await?;
    context.handles.store.remove_agent(agent.id).await?;
    change.apply("agent remove", agent.name.as_str()).await?;
    vault::end_leases(context, agent.id);
    // Clean-up comes last and its failure is not an error. The daemon refuses everything from processes that are still
    // alive, and no agent can be bound to the cgroup until they end.
    let ended = if kill && populated { host.end_processes(&agent.cgroup).await } else { Ok(()) };
    let cgroup_left = ended.and_then(|()| host.remove_cgroup(&agent.cgroup)).err();
    Ok(AgentRemoved { agent: agent_detail, cgroup_left })
}

/// Builds the change that allows a runner to start commands.
pub(crate) fn allow(context: &AdminContext, sees_all: Option<bool>) -> RunnerChange {
    RunnerChange::Allow { since: context.handles.clock.now(), sees_all }
}

/// Allows a runner to start commands as the agent, or withdraws that permission.
pub(crate) async fn set_runner(
    context: &AdminContext,
    uid: u32,
    name: &AgentName,
    runner: &Runner,
    wanted: RunnerChange,
) -> Result<AgentDetail, AdminError> {
    let change = context.begin_change().await?;
    let agent = change.stored.agent(name)?.clone();
    let may = wanted != RunnerChange::Deny;
    if may {
        check_runner(runner.clone()).await?;
    }
    let changed = context.handles.store.set_runner(agent.id, runner, wanted).await?;
    if !may && !changed {
        return Err(AdminError::NotFound { what: "runner", name: runner.to_string() });
    }
    if let (true, RunnerChange::Allow { sees_all: Some(sees_all), .. }) = (changed, wanted) {
        let which = if sees_all { "every run" } else { "the own runs" };
        let detail = format!("agent {name}: runner {runner} sees {which}, by uid {uid}");
        context.handles.host.record("runner_changed", &detail);
    }
    let shown = detail(context, &change.stored, &agent).await?;
    change.apply(if may { "agent allow-run" } else { "agent deny-run" }, agent.name.as_str()).await?;
    Ok(shown)
}

/// Checks that the user or group exists. A name that does not exist yet could later belong to anyone.
async fn check_runner(runner: Runner) -> Result<(), AdminError> {
    let checked = tokio::task::spawn_blocking(move || {
        let (found, what) = match &runner {
            Runner::User(name) => (User::from_name(name).map(|user| user.is_some()), "user"),
            Runner::Group(name) => (Group::from_name(name).map(|group| group.is_some()), "group"),
        };
        match found {
            Ok(true) => Ok(()),
            Ok(false) => Err(AdminError::Invalid(format!("there is no {what} for '{runner}' on this host"))),
            Err(error) => Err(AdminError::Host(format!("cannot look up '{runner}': {error}"))),
        }
    });
    checked.await.map_err(|_| AdminError::Internal("the user lookup failed"))?
}

async fn detail(
    context: &AdminContext,
    stored: &StoreContents,
    agent: &Agent,
) -> Result<AgentDetail, AdminError> {
    let secrets =
        stored.granted(agent).into_iter().map(|secret| grants::view(context, agent, secret)).collect();
    let mut rows = context.handles.store.all_runners().await?;
    rows.retain(|row| row.agent == agent.id);
    let see_all = rows.iter().filter(|row| row.sees_all).map(|row| row.runner.clone()).collect();
    let runners = rows.into_iter().map(|row| row.runner).collect();
    Ok(AgentDetail { agent: agent.into(), secrets, runners, see_all })
}

fn new_token(context: &AdminContext) -> Result<(Token, TokenHash), AdminError> {
    let token = Token::generate_agent(context.handles.random.as_ref())?;
    let hash = context.handles.vault.token_hash(&token);
    Ok((token, hash))
}
