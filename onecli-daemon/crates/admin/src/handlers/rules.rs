//! `rule add | list | remove`.

use onecli_api::{RuleAdd, RuleView};
use onecli_model::{AgentName, Rule, RuleId, Secret};
use onecli_store::StoreContents;

use crate::context::{AdminContext, Lookup};
use crate::error::AdminError;

/// The largest number of rules. Every request of an agent may evaluate all of them.
const MAX_RULES: usize = 10_000;

pub(crate) async fn add(context: &AdminContext, request: RuleAdd) -> Result<RuleView, AdminError> {
    let change = context.begin_change().await?;
    let agent = match &request.agent {
        Some(name) => Some(change.stored.agent(name)?.id),
        None => None,
    };
    if change.stored.rules.len() >= MAX_RULES {
        return Err(AdminError::Invalid(format!("the limit of {MAX_RULES} rules is reached: use patterns")));
    }
    if let Some(same) =
        change.stored.rules.iter().find(|rule| rule.agent == agent && rule.terms == request.terms)
    {
        return Err(AdminError::Exists {
            message: format!("rule {} already has these terms", same.id),
            hint: "'onecli rule list' shows it".to_owned(),
        });
    }
    let id = context.handles.store.add_rule(agent, &request.terms).await?;
    let rule = Rule { id, agent, terms: request.terms };
    let view = RuleView { warnings: warnings(&change.stored, &rule), ..RuleView::new(&rule, request.agent) };
    change.apply("rule add", &id.to_string()).await?;
    Ok(view)
}

pub(crate) async fn list(context: &AdminContext) -> Result<Vec<RuleView>, AdminError> {
    let stored = context.load().await?;
    Ok(stored.rules.iter().map(|rule| view(&stored, rule)).collect())
}

pub(crate) async fn remove(context: &AdminContext, id: RuleId) -> Result<RuleView, AdminError> {
    let change = context.begin_change().await?;
    let rule = change.stored.rules.iter().find(|rule| rule.id == id);
    let view =
        rule.map(|rule| view(&change.stored, rule)).ok_or_else(|| AdminError::not_found("rule", &id))?;
    context.handles.store.remove_rule(id).await?;
    change.apply("rule remove", &id.to_string()).await?;
    Ok(view)
}

/// Returns warnings about a rule that lets connections pass uninspected.
fn warnings(stored: &StoreContents, rule: &Rule) -> Vec<String> {
    if !rule.terms.is_tunnel() {
        return Vec::new();
    }
    let is_exposed = |secret: &&Secret| secret.target.host.iter().any(|own| rule.terms.may_meet(own));
    let exposed: Vec<&str> =
        stored.secrets.iter().filter(is_exposed).map(|secret| secret.name.as_str()).collect();
    let mut warnings = vec![
        "connections of this rule are not inspected: methods and paths are not checked, and responses are not scrubbed"
            .to_owned(),
    ];
    if !exposed.is_empty() {
        warnings.push(format!(
            "secrets for hosts of this rule can be read unscrubbed if the service returns them: {}",
            exposed.join(", ")
        ));
    }
    warnings
}

fn view(stored: &StoreContents, rule: &Rule) -> RuleView {
    let name = |id| -> Option<AgentName> {
        stored.agents.iter().find(|stored| stored.agent.id == id).map(|stored| stored.agent.name.clone())
    };
    RuleView::new(rule, rule.agent.and_then(name))
}
