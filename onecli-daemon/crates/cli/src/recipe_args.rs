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
    /// token, cgroup, or token,cgroup; from the next request on.
    #[arg(long, group = "change")]
    pub(super) factors: Option<Factors>,
    /// Its cgroup, a direct child of the agents root. No process may run as the agent meanwhile.
    #[arg(long, group = "change", value_name = "NAME")]
    pub(super) cgroup: Option<CgroupName>,
    /// The user its commands run as: existing, not root, no other agent's. No process may run as the agent meanwhile.
    #[arg(long, group = "change", conflicts_with = "no_user")]
    pub(super) user: Option<String>,
    /// Make that user. By default 'onecli-a-NAME'.
    #[arg(long, group = "change", conflicts_with = "no_user")]
    pub(super) create_user: bool,
    /// It has no user of its own: each run names one with --user.
    #[arg(long, group = "change")]
    pub(super) no_user: bool,
    /// Hosts that no grant names: deny or allow (without any credential); from the next request on.
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
    /// Allow what this program asks for without a credential. 'onecli recipe list' shows all.
    #[arg(long, group = "change", value_name = "RECIPE")]
    pub(super) recipe: Option<RecipeName>,
    /// A host of your package registry, for recipes that name none; may be given again.
    #[arg(long = "host", value_name = "HOST", requires = "recipe")]
    pub(super) hosts: Vec<String>,
    /// Print the rules of the recipe, and change nothing.
    #[arg(long, requires = "recipe")]
    pub(super) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum RecipeCommand {
    /// All recipes.
    List,
    /// One recipe: rules, variables and shared directories.
    Show {
        /// Its name.
        name: RecipeName,
    },
}
