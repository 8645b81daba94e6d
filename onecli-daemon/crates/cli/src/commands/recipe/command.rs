//! `onecli recipe list | show`.

use clap::Subcommand;
use onecli_model::recipe::{Recipe, RecipeName};

use crate::error::CliError;
use crate::output::{Output, joined};

#[derive(Debug, Subcommand)]
pub(crate) enum RecipeCommand {
    /// List all recipes.
    List,
    /// Show a recipe: rules, variables and shared directories.
    Show {
        /// The recipe's name.
        name: RecipeName,
    },
}

pub(crate) fn run(command: &RecipeCommand, output: &mut Output) -> Result<(), CliError> {
    match command {
        RecipeCommand::List => list(output),
        RecipeCommand::Show { name } => show(*name, output),
    }
}

fn list(output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return Ok(output.document(&Recipe::all())?);
    }
    let row = |recipe: &Recipe| [recipe.name.clone(), recipe.title.clone(), joined(&recipe.templates, "-")];
    let rows: Vec<_> = Recipe::all().iter().map(row).collect();
    Ok(output.table(["NAME", "PROGRAM", "TEMPLATES"], &rows)?)
}

fn show(name: RecipeName, output: &mut Output) -> Result<(), CliError> {
    let recipe = name.recipe();
    if output.is_json() {
        return Ok(output.document(recipe)?);
    }
    let variables = recipe.env.iter().map(|(name, value)| format!("{name}={value}"));
    output.fields(&[
        ("name", recipe.name.clone()),
        ("program", recipe.title.clone()),
        ("templates", joined(&recipe.templates, "-")),
        ("variables", joined(variables, "-")),
        ("shared", joined(&recipe.share, "-")),
    ])?;
    for rule in &recipe.rules {
        let host = rule.host.as_deref().unwrap_or("a host that you name with --host");
        let methods = joined(&rule.methods, "all methods");
        let paths = joined(&rule.paths, "all paths");
        output.line(&format!("allows {host}: {methods} {paths} ({})", rule.reason))?;
    }
    output.line(&format!("next: onecli agent set NAME --recipe {}", recipe.name))?;
    Ok(())
}
