//! The form of a secret in responses.

use onecli_api::SecretView;
use onecli_model::{Secret, SecretName};
use onecli_store::StoreContents;

use super::retained;
use crate::context::{AdminContext, ChangeGuard, Lookup};
use crate::error::AdminError;

pub(crate) fn view(context: &AdminContext, stored: &StoreContents, secret: &Secret) -> SecretView {
    let kept = retained::unexpired_version(context, stored, secret).map(|kept| kept.until);
    let is_restorable = kept.is_some() && retained::is_restorable(context, stored, secret);
    let may_use = |agent| stored.grants.iter().any(|grant| grant.secret == secret.id && grant.agent == agent);
    let agents = stored
        .agents
        .iter()
        .filter(|stored| may_use(stored.agent.id))
        .map(|stored| stored.agent.name.clone())
        .collect();
    SecretView {
        name: secret.name.clone(),
        id: secret.id,
        enabled: secret.enabled,
        host: secret.target.host.clone(),
        port: secret.target.port,
        methods: secret.target.methods.clone(),
        paths: secret.target.paths.clone(),
        placement: secret.placement.clone(),
        profile: secret.profile.clone(),
        env: secret.env.clone(),
        allow_plaintext: secret.target.allow_plaintext,
        version: secret.version,
        class: secret.class,
        previous_until: kept.filter(|_| is_restorable),
        masked_until: kept.filter(|_| !is_restorable),
        agents,
        last_used: stored.last_uses.get(&secret.id).copied(),
        unchanged: false,
        warnings: Vec::new(),
    }
}

/// Activates a change, and returns the current view of the secret.
pub(super) async fn finish_change(
    context: &AdminContext,
    change: ChangeGuard<'_>,
    what: &'static str,
    name: &SecretName,
    warnings: Vec<String>,
) -> Result<SecretView, AdminError> {
    let stored = context.load().await?;
    let view = SecretView { warnings, ..view(context, &stored, stored.secret(name)?) };
    change.apply(what, name.as_str()).await?;
    Ok(view)
}
