//! `onecli agent add`.

use clap::Args as ClapArgs;
use onecli_api::{AgentAdd, AgentToken, routes};
use onecli_model::{AgentName, CgroupName, Egress, Factors, Runner};

use super::view::{fields, show_token};
use crate::client::Client;
use crate::commands::recipe::{RecipeArgs, RecipePlan};
use crate::error::CliError;
use crate::host::user;
use crate::output::Output;

/// Add an agent.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Factors are the proofs that an agent must present before the daemon uses a credential for it: 'token' (its token, or a
secret's placeholder) and 'cgroup' (the cgroup of its process, according to the kernel). The default is both, or only
the token if the daemon runs without eBPF.

The cgroup identifies the agent, so the cgroup of a new agent must not contain processes.

Examples:
  onecli agent add coder --user coder
  onecli agent add container --factors token
  onecli agent add crawler --user crawler --egress allow")]
pub(crate) struct AgentAddArgs {
    /// The agent's name: a-z, 0-9, '-', '_', '.'.
    pub(crate) name: AgentName,
    /// The required factors: token, cgroup, or token+cgroup.
    #[arg(long)]
    pub(crate) factors: Option<Factors>,
    /// The agent's cgroup, a direct child of the agents root. Default: derived from its name.
    #[arg(long, value_name = "NAME")]
    pub(crate) cgroup: Option<CgroupName>,
    /// The existing user that its commands run as. Must not be root or another agent's user.
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Create a dedicated user without a password or login shell. Default name: 'onecli-a-NAME'.
    #[arg(long)]
    pub(super) create_user: bool,
    /// The policy for hosts that no grant or rule names: deny, or allow (without any credential).
    #[arg(long, default_value = "deny")]
    pub(crate) egress: Egress,
    /// A user or group, besides administrators, that may start commands as the agent; may be given again.
    #[arg(long = "runner", value_name = "USER|@GROUP")]
    pub(crate) runners: Vec<Runner>,
    /// Let its commands change the configuration and hooks of git repositories in a project. Git runs the programs
    /// named there as the user who works in the project.
    #[arg(long)]
    pub(crate) allow_git_config: bool,
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
}

pub(crate) fn add(client: &Client, mut args: AgentAddArgs, output: &mut Output) -> Result<(), CliError> {
    let recipe = args.recipe.recipe.map(|recipe| RecipePlan::new(recipe, &args.recipe.hosts)).transpose()?;
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
