//! `--recipe` of `agent add` and `agent set`.

use clap::Args as ClapArgs;
use onecli_api::{RuleAdd, RuleView, routes};
use onecli_model::recipe::{Recipe, RecipeName};
use onecli_model::{AgentName, RuleSpec, RuleText};

use crate::client::Client;
use crate::commands::rule::{command, sentence};
use crate::error::CliError;
use crate::output::{Output, joined};

/// The rules of a recipe.
#[derive(Debug, ClapArgs)]
pub(crate) struct RecipeArgs {
    /// Allow the requests that this program makes without a credential. 'onecli recipe list' shows all recipes.
    #[arg(long, group = "change", value_name = "RECIPE")]
    pub(crate) recipe: Option<RecipeName>,
    /// A host of your package registry, for recipes without hosts; may be given again.
    #[arg(long = "host", value_name = "HOST", requires = "recipe")]
    pub(crate) hosts: Vec<String>,
    /// Print the rules of the recipe, and change nothing.
    #[arg(long, requires = "recipe")]
    pub(crate) dry_run: bool,
}

/// The rules of a recipe for one agent.
pub(crate) struct RecipePlan {
    recipe: &'static Recipe,
    rules: Vec<PlannedRule>,
}

/// One of its rules.
struct PlannedRule {
    text: RuleText,
    terms: RuleSpec,
    reason: &'static str,
}

impl RecipePlan {
    /// Plans the rules of `recipe`, with the hosts that the administrator names.
    ///
    /// # Errors
    /// Hosts are missing or not used.
    pub(crate) fn new(recipe: RecipeName, hosts: &[String]) -> Result<RecipePlan, CliError> {
        let recipe = recipe.recipe();
        if recipe.needs_hosts() == hosts.is_empty() {
            let name = &recipe.name;
            return Err(CliError::Usage(if hosts.is_empty() {
                format!("recipe '{name}' needs the hosts of your package registry\nhelp: add --host HOST")
            } else {
                format!("recipe '{name}' has its own hosts\nhelp: omit --host")
            }));
        }
        let planned = recipe.rules(hosts).into_iter().map(|(text, reason)| {
            let terms =
                RuleSpec::try_from(text.clone()).map_err(|error| CliError::Usage(error.to_string()))?;
            Ok(PlannedRule { text, terms, reason })
        });
        Ok(RecipePlan { recipe, rules: planned.collect::<Result<_, CliError>>()? })
    }

    /// Prints commands that add the rules.
    pub(crate) fn preview(&self, agent: &AgentName, output: &mut Output) -> Result<(), CliError> {
        if output.is_json() {
            let rules: Vec<&RuleText> = self.rules.iter().map(|rule| &rule.text).collect();
            return Ok(output.document(&rules)?);
        }
        output.line(&format!("# {}: nothing is changed", self.recipe.title))?;
        for PlannedRule { text, reason, .. } in &self.rules {
            output.line(&format!("# {reason}"))?;
            output.line(&command(agent, text))?;
        }
        if self.rules.is_empty() {
            output.line("# this recipe has no rules")?;
        }
        Ok(())
    }

    /// Adds the rules that the agent does not have yet.
    pub(crate) fn apply(&self, client: &Client, agent: &AgentName) -> Result<AppliedRecipe, CliError> {
        let existing: Vec<RuleView> = client.get(routes::RULES)?;
        let mut rules = Vec::new();
        for PlannedRule { terms, .. } in &self.rules {
            let is_same = |rule: &&RuleView| rule.agent.as_ref() == Some(agent) && rule.has_terms(terms);
            let rule = match existing.iter().find(is_same) {
                Some(rule) => ("found", rule.clone()),
                None => ("added", add(client, agent, terms)?),
            };
            rules.push(rule);
        }
        Ok(AppliedRecipe { recipe: self.recipe, agent: agent.clone(), rules })
    }
}

fn add(client: &Client, agent: &AgentName, terms: &RuleSpec) -> Result<RuleView, CliError> {
    Ok(client.post(routes::RULES, &RuleAdd { agent: Some(agent.clone()), terms: terms.clone() })?)
}

/// A recipe whose rules the agent has.
pub(crate) struct AppliedRecipe {
    recipe: &'static Recipe,
    agent: AgentName,
    /// Each rule, and whether it was added or already existed.
    rules: Vec<(&'static str, RuleView)>,
}

impl AppliedRecipe {
    pub(crate) fn report(&self, output: &mut Output) -> Result<(), CliError> {
        let AppliedRecipe { recipe, agent, rules } = self;
        if output.is_json() {
            let rules: Vec<&RuleView> = rules.iter().map(|(_, rule)| rule).collect();
            return Ok(output.document(&rules)?);
        }
        for (how, rule) in rules {
            output.line(&format!("{how} rule {}: {}", rule.id, sentence(rule)))?;
        }
        if !recipe.templates.is_empty() {
            let templates = joined(&recipe.templates, "-");
            output.line(&format!("{} uses a secret of one of these templates: {templates}", recipe.title))?;
        }
        Ok(output
            .line(&format!("start it with: onecli run --agent {agent} --recipe {} -- CMD", recipe.name))?)
    }
}
