//! Options of `onecli recipe`, and `--recipe` of `agent add` and `agent set`.

use clap::{ArgGroup, Args as ClapArgs, Subcommand};
use onecli_model::recipe::RecipeName;
use onecli_model::{AgentName, CgroupName, Egress, Factors};

/// Change an agent.
#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("change").required(true).multiple(true), after_help = "\
Examples:
  onecli agent set coder --egress allow --factors token
  onecli agent set coder --recipe claude-code --dry-run
  onecli agent set coder --recipe npm --host packages.example
  onecli agent set coder --allow-git-config yes")]
pub(super) struct AgentSetArgs {
    /// The agent.
    pub(super) name: AgentName,
    /// The required factors: token, cgroup, or token,cgroup. Applies from the next request.
    #[arg(long, group = "change")]
    pub(super) factors: Option<Factors>,
    /// The agent's cgroup, a direct child of the agents root. No process may run as the agent during the change.
    #[arg(long, group = "change", value_name = "NAME")]
    pub(super) cgroup: Option<CgroupName>,
    /// The existing user that its commands run as. Must not be root or another agent's user. No process may run as the
    /// agent during the change.
    #[arg(long, group = "change", conflicts_with = "no_user")]
    pub(super) user: Option<String>,
    /// Create a dedicated user. Default name: 'onecli-a-NAME'.
    #[arg(long, group = "change", conflicts_with = "no_user")]
    pub(super) create_user: bool,
    /// Remove the agent's user: each run then names one with --user.
    #[arg(long, group = "change")]
    pub(super) no_user: bool,
    /// The policy for hosts that no grant or rule names: deny, or allow (without any credential). Applies from the next
    /// request.
    #[arg(long, group = "change")]
    pub(super) egress: Option<Egress>,
    /// Whether its commands may change the configuration and hooks of git repositories in a project.
    #[arg(long, group = "change", value_name = "yes|no", value_parser = ["yes", "no"])]
    pub(super) allow_git_config: Option<String>,
    #[command(flatten)]
    pub(super) recipe: RecipeArgs,
}

/// The rules of a recipe.
#[derive(Debug, ClapArgs)]
pub(super) struct RecipeArgs {
    /// Allow the requests that this program makes without a credential. 'onecli recipe list' shows all recipes.
    #[arg(long, group = "change", value_name = "RECIPE")]
    pub(super) recipe: Option<RecipeName>,
    /// A host of your package registry, for recipes without hosts; may be given again.
    #[arg(long = "host", value_name = "HOST", requires = "recipe")]
    pub(super) hosts: Vec<String>,
    /// Print the rules of the recipe, and change nothing.
    #[arg(long, requires = "recipe")]
    pub(super) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum RecipeCommand {
    /// List all recipes.
    List,
    /// Show a recipe: rules, variables and shared directories.
    Show {
        /// The recipe's name.
        name: RecipeName,
    },
}
