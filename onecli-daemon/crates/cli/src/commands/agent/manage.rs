//! `onecli agent ...`

use onecli_api::{AgentAdd, AgentDetail, AgentRemoved, AgentToken, AgentView, GrantView, routes};
use onecli_model::{AgentName, Runner};

use super::CliError;
use super::args::AgentAddArgs;
use super::client::Client;
use super::output::{Output, joined, or_dash};
use super::recipe::Application;
use super::user;

pub(super) fn add(client: &Client, mut args: AgentAddArgs, output: &mut Output) -> Result<(), CliError> {
    let recipe = args.recipe.recipe.map(|recipe| Application::new(recipe, &args.recipe.hosts)).transpose()?;
    if let Some(recipe) = recipe.as_ref().filter(|_| args.recipe.dry_run) {
        return recipe.preview(&args.name, output);
    }
    let created = args.create_user.then(|| user::make(args.user.take(), &args.name)).transpose()?;
    if created.is_some() {
        args.user.clone_from(&created);
    }
    let request = AgentAdd {
        name: args.name,
        factors: args.factors,
        cgroup: args.cgroup,
        user: args.user,
        egress: args.egress,
        runners: args.runners,
        allow_git_config: args.allow_git_config,
    };
    let added: AgentToken = match client.post(routes::AGENTS, &request) {
        Ok(added) => added,
        Err(refused) => {
            if let Some(name) = created {
                user::remove(&name)?;
            }
            return Err(refused.into());
        }
    };
    if output.is_json() {
        output.document(&added)?;
    } else {
        output.line(&format!("added agent '{}'", added.agent.name))?;
        output.fields(&fields(&added.agent))?;
        show_token(&added, output)?;
    }
    // The token has been shown. If a later step fails, `agent set` can repeat it.
    let applied = recipe.map(|recipe| recipe.apply(client, &added.agent.name)).transpose()?;
    if output.is_json() {
        return Ok(());
    }
    if let Some(applied) = applied {
        applied.report(output)?;
    }
    output.line(&format!("next: onecli grant {} SECRET", added.agent.name))?;
    Ok(())
}

pub(super) fn list(client: &Client, output: &mut Output) -> Result<(), CliError> {
    let agents: Vec<AgentView> = client.get(routes::AGENTS)?;
    if output.is_json() {
        return Ok(output.document(&agents)?);
    }
    let rows: Vec<_> = agents
        .iter()
        .map(|agent| {
            [
                agent.name.to_string(),
                state(agent.enabled).to_owned(),
                agent.factors.to_string(),
                or_dash(agent.user.as_ref()),
                agent.egress.to_string(),
                agent.cgroup.to_string(),
            ]
        })
        .collect();
    Ok(output.table(["NAME", "STATE", "FACTORS", "USER", "EGRESS", "CGROUP"], &rows)?)
}

pub(super) fn show(client: &Client, name: &AgentName, output: &mut Output) -> Result<(), CliError> {
    let detail: AgentDetail = client.get(&routes::agent(name))?;
    if output.is_json() {
        return Ok(output.document(&detail)?);
    }
    let mut fields = fields(&detail.agent);
    fields.extend([
        ("runners", joined(detail.runners.iter(), "administrators only")),
        ("see all runs", joined(detail.see_all.iter(), "")),
    ]);
    output.fields(&fields)?;
    if detail.secrets.is_empty() {
        output.line(&format!("no secrets; next: onecli grant {name} SECRET"))?;
        return Ok(());
    }
    let rows: Vec<_> = detail
        .secrets
        .iter()
        .map(|grant| [grant.secret.to_string(), or_dash(grant.env.as_ref()), placeholder(grant)])
        .collect();
    output.line("")?;
    Ok(output.table(["SECRET", "VARIABLE", "PLACEHOLDER"], &rows)?)
}

pub(super) fn rotate(client: &Client, name: &AgentName, output: &mut Output) -> Result<(), CliError> {
    let rotated: AgentToken = client.act(&routes::agent_action(name, "rotate"))?;
    if output.is_json() {
        return Ok(output.document(&rotated)?);
    }
    output.line(&format!(
        "agent '{name}' has a new token; the old one, its sessions and its placeholders are no longer valid"
    ))?;
    show_token(&rotated, output)?;
    output.line("restart this agent's processes, so that they get the new placeholders")?;
    Ok(())
}

pub(super) fn set_enabled(
    client: &Client,
    name: &AgentName,
    enabled: bool,
    output: &mut Output,
) -> Result<(), CliError> {
    let action = if enabled { "enable" } else { "disable" };
    let agent: AgentView = client.act(&routes::agent_action(name, action))?;
    if output.is_json() {
        return Ok(output.document(&agent)?);
    }
    let effect = if enabled { "its requests are accepted again" } else { "all of its requests are refused" };
    Ok(output.line(&format!("agent '{name}' is {}: {effect}", state(agent.enabled)))?)
}

pub(super) fn allow_run(
    client: &Client,
    name: &AgentName,
    runner: &Runner,
    see_all: Option<&str>,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut path = routes::runner(name, runner);
    if let Some(answer) = see_all {
        path = format!("{path}?{}{}", routes::SEE_ALL, answer == "yes");
    }
    show_runners(&client.put(&path)?, output)
}

pub(super) fn deny_run(
    client: &Client,
    name: &AgentName,
    runner: &Runner,
    output: &mut Output,
) -> Result<(), CliError> {
    show_runners(&client.delete(&routes::runner(name, runner))?, output)
}

fn show_runners(detail: &AgentDetail, output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return Ok(output.document(detail)?);
    }
    let name = &detail.agent.name;
    let runners = joined(detail.runners.iter(), "no other users");
    output.line(&format!("agent '{name}' may be run by administrators and: {runners}"))?;
    if !detail.see_all.is_empty() {
        output.line(&format!("these see the requests of all its runs: {}", joined(&detail.see_all, "")))?;
    }
    Ok(())
}

pub(super) fn remove(
    client: &Client,
    name: &AgentName,
    kill: bool,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut path = routes::agent(name);
    if kill {
        path = format!("{path}?{}", routes::KILL);
    }
    let removed: AgentRemoved = client.delete(&path)?;
    forget_kept(client)?;
    if output.is_json() {
        return Ok(output.document(&removed)?);
    }
    let grants = joined(removed.agent.secrets.iter().map(|grant| &grant.secret), "none");
    output.line(&format!(
        "removed agent '{name}', its token, sessions and placeholders, and its grants ({grants}); audit records stay"
    ))?;
    if let Some(reason) = &removed.cgroup_left {
        output.line(&format!(
            "its cgroup '{}' still exists: {reason}; all requests of its processes are refused",
            removed.agent.agent.cgroup
        ))?;
    }
    Ok(())
}

/// Deletes the agent's temporary files. Without root, they remain until root removes an agent. They belong to an id
/// that is never reused.
fn forget_kept(client: &Client) -> Result<(), CliError> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let agents: Vec<AgentView> = client.get(routes::AGENTS)?;
    let present: Vec<_> = agents.iter().map(|agent| agent.id).collect();
    Ok(user::delete_kept(&present)?)
}

fn placeholder(grant: &GrantView) -> String {
    or_dash(Some(&grant.placeholder).filter(|placeholder| !placeholder.is_empty()))
}

fn state(enabled: bool) -> &'static str {
    if enabled { "enabled" } else { "disabled" }
}

fn fields(agent: &AgentView) -> Vec<(&'static str, String)> {
    vec![
        ("name", agent.name.to_string()),
        ("state", state(agent.enabled).to_owned()),
        ("factors", agent.factors.to_string()),
        ("cgroup", agent.cgroup.to_string()),
        ("user", agent.user.clone().unwrap_or_default()),
        ("egress", agent.egress.to_string()),
        ("git config", if agent.allow_git_config { "writable" } else { "read-only" }.to_owned()),
    ]
}

fn show_token(answer: &AgentToken, output: &mut Output) -> Result<(), CliError> {
    output.fields(&[("token", answer.token.clone())])?;
    Ok(output
        .line("the token is not shown again; 'run' needs none, HTTPS_PROXY=http://x:TOKEN@HOST:PORT does")?)
}
