//! Options of `onecli recipe`, and `--recipe` of `agent add` and `agent set`.

use clap::{ArgGroup, Args as ClapArgs, Subcommand};

use crate::model::AgentName;
use crate::model::recipe::RecipeName;

/// Change an agent.
#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("change").required(true).multiple(true), after_help = "\
Examples:
  onecli agent set coder --recipe claude-code --dry-run
  onecli agent set coder --recipe npm --host packages.example
  onecli agent set coder --allow-git-config yes")]
pub(super) struct AgentSetArgs {
    /// The agent.
    pub(super) name: AgentName,
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
