//! Whether an agent may make the requests that a recipe names.

use onecli_api::Explain;
use onecli_model::AgentName;
use onecli_model::recipe::{RecipeName, RecipeRule};

use super::explain::explain;
use crate::context::AdminContext;
use crate::error::AdminError;

/// Returns whether the policy would refuse one of the recipe's requests. Rules for hosts that the administrator chooses
/// are not checked.
///
/// # Errors
/// [`AdminError`] of the store.
pub(super) async fn is_refused(
    context: &AdminContext,
    agent: &AgentName,
    recipe: RecipeName,
) -> Result<bool, AdminError> {
    for rule in &recipe.recipe().rules {
        let Some(asked) = example(agent, rule) else { continue };
        let explanation = explain(context, asked).await?;
        // The program sends no placeholder with this request.
        let decision = explanation.otherwise.as_ref().unwrap_or(&explanation.decision);
        if decision.starts_with("deny") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Builds an example of a request that the rule allows.
fn example(agent: &AgentName, rule: &RecipeRule) -> Option<Explain> {
    let host = rule.host.as_ref()?;
    let path = rule.paths.first().map_or("/", String::as_str).replace('*', "x");
    let method = rule.methods.first().map_or("GET", String::as_str).to_owned();
    Some(Explain { agent: agent.clone(), method, url: format!("https://{host}{path}"), headers: Vec::new() })
}
