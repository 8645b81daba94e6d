//! `onecli agent set`.

use clap::{ArgGroup, Args as ClapArgs};
use onecli_api::{AgentChanged, AgentSet, routes};
use onecli_model::{AgentName, CgroupName, Egress, Factors};

use crate::client::Client;
use crate::commands::recipe::{RecipeArgs, RecipePlan};
use crate::error::CliError;
use crate::host::user;
use crate::output::Output;

/// Change an agent.
#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("change").required(true).multiple(true), after_help = "\
Examples:
  onecli agent set coder --egress allow --factors token
  onecli agent set coder --recipe claude-code --dry-run
  onecli agent set coder --recipe npm --host packages.example
  onecli agent set coder --allow-git-config yes")]
pub(crate) struct AgentSetArgs {
    /// The agent.
    pub(crate) name: AgentName,
    /// The required factors: token, cgroup, or token,cgroup. Applies from the next request.
    #[arg(long, group = "change")]
    pub(crate) factors: Option<Factors>,
    /// The agent's cgroup, a direct child of the agents root. No process may run as the agent during the change.
    #[arg(long, group = "change", value_name = "NAME")]
    pub(crate) cgroup: Option<CgroupName>,
    /// The existing user that its commands run as. Must not be root or another agent's user. No process may run as the
    /// agent during the change.
    #[arg(long, group = "change", conflicts_with = "no_user")]
    pub(crate) user: Option<String>,
    /// Create a dedicated user. Default name: 'onecli-a-NAME'.
    #[arg(long, group = "change", conflicts_with = "no_user")]
    pub(super) create_user: bool,
    /// Remove the agent's user: each run then names one with --user.
    #[arg(long, group = "change")]
    pub(crate) no_user: bool,
    /// The policy for hosts that no grant or rule names: deny, or allow (without any credential). Applies from the next
    /// request.
    #[arg(long, group = "change")]
    pub(crate) egress: Option<Egress>,
    /// Whether its commands may change the configuration and hooks of git repositories in a project.
    #[arg(long, group = "change", value_name = "yes|no", value_parser = ["yes", "no"])]
    pub(crate) allow_git_config: Option<String>,
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
}

pub(crate) fn set(client: &Client, args: &AgentSetArgs, output: &mut Output) -> Result<(), CliError> {
    let recipe = args.recipe.recipe.map(|recipe| RecipePlan::new(recipe, &args.recipe.hosts)).transpose()?;
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
