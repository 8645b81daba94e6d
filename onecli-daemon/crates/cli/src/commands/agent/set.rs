//! `onecli agent set`.

use onecli_api::{AgentChanged, AgentSet, routes};

use super::CliError;
use super::client::Client;
use super::output::Output;
use super::recipe::Application;
use super::recipe_args::AgentSetArgs;
use super::user;

pub(super) fn set(client: &Client, args: &AgentSetArgs, output: &mut Output) -> Result<(), CliError> {
    let recipe = args.recipe.recipe.map(|recipe| Application::new(recipe, &args.recipe.hosts)).transpose()?;
    if let Some(recipe) = recipe.as_ref().filter(|_| args.recipe.dry_run) {
        return recipe.preview(&args.name, output);
    }
    change(client, args, output)?;
    match recipe {
        Some(recipe) => recipe.apply(client, &args.name)?.report(output),
        None => Ok(()),
    }
}

fn change(client: &Client, args: &AgentSetArgs, output: &mut Output) -> Result<(), CliError> {
    let mut request = AgentSet {
        factors: args.factors,
        cgroup: args.cgroup.clone(),
        user: args.user.clone(),
        no_user: args.no_user,
        egress: args.egress,
        allow_git_config: args.allow_git_config.as_deref().map(|answer| answer == "yes"),
    };
    let made = args.create_user.then(|| user::make(args.user.clone(), &args.name)).transpose()?;
    if made.is_some() {
        request.user.clone_from(&made);
    }
    if request == AgentSet::default() {
        return Ok(());
    }
    let changed: AgentChanged = match client.post(&routes::agent_action(&args.name, "set"), &request) {
        Ok(changed) => changed,
        Err(refused) => {
            made.as_deref().map_or(Ok(()), user::remove)?;
            return Err(refused.into());
        }
    };
    show(&changed, output)
}

fn show(changed: &AgentChanged, output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return Ok(output.document(changed)?);
    }
    let name = &changed.agent.name;
    if changed.changes.is_empty() {
        return Ok(output.line(&format!("agent '{name}' already has these settings; nothing was changed"))?);
    }
    output.line(&format!("changed agent '{name}'"))?;
    for change in &changed.changes {
        output.line(&format!("  {}: {} -> {}", change.field, change.from, change.to))?;
    }
    Ok(())
}
