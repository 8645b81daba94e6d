//! `secret add | list | show | rotate | disable | enable | remove`.

use super::api::{SecretAdd, SecretRotate, SecretView};
use super::error::AdminError;
use super::state::{Find, State};
use crate::model::{
    AwsKeys, PathPattern, Placement, Profile, Sealed, Secret, SecretId, SecretName, SecretValue, Target,
};
use crate::store::StoredState;
use crate::vault::check_material;

/// More patterns than this are a mistake, and each costs time in every match.
const MAX_PATHS: usize = 256;

pub(super) async fn add(state: &State, request: SecretAdd) -> Result<SecretView, AdminError> {
    let target = check_target(&request)?;
    check_value(&request.placement, &request.profile, &request.value.0)?;
    let change = state.begin_change().await?;
    if change.stored.secret(&request.name).is_ok() {
        return Err(AdminError::Exists {
            message: format!("there is a secret '{}' already", request.name),
            hint: format!(
                "'onecli secret rotate {0}' gives it a new value, 'onecli secret remove {0}' removes it",
                request.name
            ),
        });
    }
    let id = SecretId(state.new_id()?);
    let mut secret = Secret {
        id,
        name: request.name,
        target,
        placement: request.placement,
        profile: request.profile,
        env: request.env.map(String::from),
        enabled: true,
        version: 1,
        sealed: Sealed(Vec::new()),
    };
    secret.sealed = state.handles.vault.seal(&secret, &request.value.0)?;
    state.handles.store.add_secret(&secret).await?;
    let view = view(&change.stored, &secret);
    change.in_force("secret add", view.name.as_str()).await?;
    Ok(view)
}

fn check_target(request: &SecretAdd) -> Result<Target, AdminError> {
    if request.port == 0 {
        return Err(AdminError::Invalid("the port must be a number from 1 to 65535".to_owned()));
    }
    if request.paths.len() > MAX_PATHS {
        return Err(AdminError::Invalid(format!("more than {MAX_PATHS} path patterns: use a wildcard")));
    }
    let paths =
        if request.paths.is_empty() { vec![PathPattern::everything()] } else { request.paths.clone() };
    Ok(Target {
        host: request.host.clone(),
        port: request.port,
        methods: request.methods.clone(),
        paths,
        allow_plaintext: request.allow_plaintext,
    })
}

/// A value of the wrong form is told now, not with the first request.
fn check_value(placement: &Placement, profile: &Profile, value: &SecretValue) -> Result<(), AdminError> {
    if let Some(mint) = &profile.mint {
        if !matches!(placement, Placement::Header { .. }) {
            return Err(AdminError::Invalid(
                "a minted token is placed in a header: --bearer or --header".to_owned(),
            ));
        }
        return check_material(mint, value).map_err(|error| AdminError::Invalid(error.to_string()));
    }
    if matches!(placement, Placement::SigV4 { .. }) {
        AwsKeys::parse(value).map_err(|error| AdminError::Invalid(error.to_string()))?;
    }
    Ok(())
}

pub(super) async fn list(state: &State) -> Result<Vec<SecretView>, AdminError> {
    let stored = state.load().await?;
    Ok(stored.secrets.iter().map(|secret| view(&stored, secret)).collect())
}

pub(super) async fn show(state: &State, name: &SecretName) -> Result<SecretView, AdminError> {
    let stored = state.load().await?;
    Ok(view(&stored, stored.secret(name)?))
}

pub(super) async fn rotate(
    state: &State,
    name: &SecretName,
    request: SecretRotate,
) -> Result<SecretView, AdminError> {
    let change = state.begin_change().await?;
    let mut secret = change.stored.secret(name)?.clone();
    check_value(&secret.placement, &secret.profile, &request.value.0)?;
    let kept = retired(state, &secret)?;
    secret.version += 1;
    secret.sealed = state.handles.vault.seal(&secret, &request.value.0)?;
    state.handles.store.add_version(secret.id, secret.version, &secret.sealed, &kept).await?;
    let view = view(&change.stored, &secret);
    change.in_force("secret rotate", view.name.as_str()).await?;
    Ok(view)
}

/// The value that is replaced, in a form that goes nowhere.
///
/// # Errors
/// It does not open: where the secret may go was perhaps changed by somebody, and the new value would go there.
fn retired(state: &State, secret: &Secret) -> Result<Sealed, AdminError> {
    state
        .handles
        .vault
        .retire(secret)
        .map_err(|error| AdminError::Unopened { name: secret.name.to_string(), reason: error.to_string() })
}

pub(super) async fn set_enabled(
    state: &State,
    name: &SecretName,
    enabled: bool,
) -> Result<SecretView, AdminError> {
    let change = state.begin_change().await?;
    let mut secret = change.stored.secret(name)?.clone();
    secret.enabled = enabled;
    state.handles.store.set_secret_enabled(secret.id, enabled).await?;
    let view = view(&change.stored, &secret);
    change.in_force(if enabled { "secret enable" } else { "secret disable" }, view.name.as_str()).await?;
    Ok(view)
}

pub(super) async fn remove(state: &State, name: &SecretName) -> Result<SecretView, AdminError> {
    let change = state.begin_change().await?;
    let secret = change.stored.secret(name)?;
    let view = view(&change.stored, secret);
    state.handles.store.remove_secret(secret.id).await?;
    change.in_force("secret remove", view.name.as_str()).await?;
    Ok(view)
}

fn view(stored: &StoredState, secret: &Secret) -> SecretView {
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
        agents,
    }
}
