//! `grant` and `ungrant`.

use onecli_api::{EnvNames, GrantView};
use onecli_model::{Agent, AgentName, Secret, SecretName};

use crate::context::{AdminContext, Lookup};
use crate::error::AdminError;

pub(crate) fn view(context: &AdminContext, agent: &Agent, secret: &Secret) -> GrantView {
    let placeholder = context.handles.vault.placeholder(agent.id, secret.id, agent.generation);
    GrantView {
        agent: agent.name.clone(),
        secret: secret.name.clone(),
        placeholder: secret.profile.shape.dress(&placeholder),
        env: secret.env.clone(),
    }
}

pub(crate) async fn grant(
    context: &AdminContext,
    agent: &AgentName,
    secret: &SecretName,
) -> Result<GrantView, AdminError> {
    let change = context.begin_change().await?;
    let (agent, secret) = (change.stored.agent(agent)?.clone(), change.stored.secret(secret)?.clone());
    let same_variable = change
        .stored
        .granted(&agent)
        .into_iter()
        .filter(|other| other.id != secret.id)
        .find_map(|other| Some((other, shared_variable(other, &secret)?)));
    if let Some((other, env)) = same_variable {
        return Err(AdminError::Exists {
            message: format!("agent '{}' already reads secret '{}' from {env}", agent.name, other.name),
            hint: format!(
                "one variable holds one placeholder: 'onecli ungrant {} {}' first, or store '{}' with another --env",
                agent.name, other.name, secret.name
            ),
        });
    }
    context.handles.store.grant(agent.id, secret.id).await?;
    change.apply("grant", &format!("{} {}", agent.name, secret.name)).await?;
    Ok(view(context, &agent, &secret))
}

fn shared_variable<'s>(one: &Secret, other: &'s Secret) -> Option<&'s str> {
    let taken: Vec<&str> = EnvNames::split(one.env.as_ref()?).collect();
    EnvNames::split(other.env.as_ref()?).find(|name| taken.contains(name))
}

pub(crate) async fn ungrant(
    context: &AdminContext,
    agent: &AgentName,
    secret: &SecretName,
) -> Result<GrantView, AdminError> {
    let change = context.begin_change().await?;
    let (agent, secret) = (change.stored.agent(agent)?.clone(), change.stored.secret(secret)?.clone());
    if !context.handles.store.ungrant(agent.id, secret.id).await? {
        return Err(AdminError::NoGrant { agent: agent.name.into(), secret: secret.name.into() });
    }
    change.apply("ungrant", &format!("{} {}", agent.name, secret.name)).await?;
    Ok(view(context, &agent, &secret))
}
