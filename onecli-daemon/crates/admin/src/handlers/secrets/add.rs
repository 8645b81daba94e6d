//! `secret add`.

use onecli_api::{SecretAdd, SecretView};
use onecli_model::{Mint, PathPattern, Profile, Sealed, Secret, SecretId, SecretValue, Source, Target};
use onecli_sys::trusted;

use super::checks::{check_mint, check_target, check_value, weak_value_warning};
use super::plausibility;
use super::view::view;
use crate::access::peer::Rights;
use crate::context::{AdminContext, ChangeGuard, Lookup};
use crate::error::AdminError;

pub(crate) async fn add(
    context: &AdminContext,
    uid: u32,
    rights: Rights,
    request: SecretAdd,
) -> Result<SecretView, AdminError> {
    check_source(context, uid, rights, &request.profile)?;
    if !request.force {
        plausibility::check_new(&request)?;
    }
    let change = context.begin_change().await?;
    let value = request.value.as_ref().map(|value| value.0.clone());
    let secret = insert(context, &change, request).await?;
    let warnings = value.iter().filter_map(|value| weak_value_warning(&secret, value)).collect();
    let view = SecretView { warnings, ..view(context, &change.stored, &secret) };
    change.apply("secret add", view.name.as_str()).await?;
    Ok(view)
}

/// Stores a new secret, which is not active yet.
pub(crate) async fn insert(
    context: &AdminContext,
    change: &ChangeGuard<'_>,
    request: SecretAdd,
) -> Result<Secret, AdminError> {
    let (mut secret, value) = checked(change, request)?;
    secret.id = SecretId(context.new_id()?);
    secret.sealed = context.handles.vault.seal(&secret, &value)?;
    context.handles.store.add_secret(&secret).await?;
    Ok(secret)
}

/// Returns a new secret without id and sealed value, and the value to seal.
///
/// # Errors
/// The request is invalid, or the name is in use.
pub(crate) fn checked(
    change: &ChangeGuard<'_>,
    request: SecretAdd,
) -> Result<(Secret, SecretValue), AdminError> {
    let target = target(&request);
    check_target(&target)?;
    let value = to_seal(&request)?;
    if change.stored.secret(&request.name).is_ok() {
        return Err(AdminError::Exists {
            message: format!("secret '{}' already exists", request.name),
            hint: format!(
                "'onecli secret edit {0}' changes its hosts, paths or placement, 'onecli secret rotate {0}' gives it a new \
                 value, 'onecli secret remove {0}' removes it",
                request.name
            ),
        });
    }
    let mut secret = Secret {
        id: SecretId(uuid::Uuid::nil()),
        name: request.name,
        target,
        placement: request.placement,
        profile: request.profile,
        env: request.env.map(String::from),
        enabled: true,
        version: 1,
        class: None,
        sealed: Sealed(Vec::new()),
    };
    secret.class = Some(secret.class_of(&value));
    Ok((secret, value))
}

/// Returns the value, or the text of its external source.
fn to_seal(request: &SecretAdd) -> Result<SecretValue, AdminError> {
    match (&request.profile.source, &request.value) {
        (None, Some(value)) => {
            check_value(&request.placement, &request.profile, &value.0)?;
            Ok(value.0.clone())
        }
        (Some(source), None) => {
            check_mint(&request.placement, &request.profile)?;
            SecretValue::new(source.to_sealed_text().into_bytes())
                .map_err(|error| AdminError::Invalid(error.to_string()))
        }
        (None, None) => Err(AdminError::Invalid("no value was given".to_owned())),
        (Some(source), Some(_)) => {
            Err(AdminError::Invalid(format!("a value was given, but it comes from {source}")))
        }
    }
}

/// Checks whether the caller may create a secret with this source.
fn check_source(
    context: &AdminContext,
    uid: u32,
    rights: Rights,
    profile: &Profile,
) -> Result<(), AdminError> {
    match &profile.source {
        // A caller could send any value that the daemon may read there to a host of their choice.
        Some(Source::Vault(_)) if rights != Rights::Root => {
            Err(AdminError::root_only("store secrets whose values come from the vault server"))
        }
        Some(Source::Vault(_)) if context.handles.server.is_none() => Err(AdminError::NotReady {
            message: "no vault server is configured".to_owned(),
            hint: "add [backend.vault] to the daemon's configuration, and restart it".to_owned(),
        }),
        // A caller could send the file's content to a host of their choice.
        Some(Source::File(_)) if uid != 0 => Err(AdminError::NotPermitted {
            message: "only root may add secrets whose values come from files".to_owned(),
            hint: "use sudo".to_owned(),
        }),
        // The command would run in a context that administrators of agents may not access.
        Some(Source::Exec(_)) if uid != 0 => Err(AdminError::NotPermitted {
            message: "only root may add secrets whose values come from commands".to_owned(),
            hint: "use sudo".to_owned(),
        }),
        Some(_) if matches!(profile.mint, Some(Mint::RefreshToken { .. })) => Err(AdminError::Invalid(
            "a refresh token is replaced with each use, so OneCLI must store it: supply its value".to_owned(),
        )),
        Some(Source::Exec(command)) => {
            if let Some(reason) = &context.handles.commands_off {
                return Err(AdminError::NotReady {
                    message: "this daemon does not run commands".to_owned(),
                    hint: reason.clone(),
                });
            }
            // The executor checks the program again before each run.
            trusted::program(command.program().path()).map(drop).map_err(|reason| {
                AdminError::Invalid(format!("{} cannot be the command: {reason}", command.program()))
            })
        }
        _ => Ok(()),
    }
}

fn target(request: &SecretAdd) -> Target {
    let paths =
        if request.paths.is_empty() { vec![PathPattern::everything()] } else { request.paths.clone() };
    Target {
        host: request.host.clone(),
        port: request.port,
        methods: request.methods.clone(),
        paths,
        allow_plaintext: request.allow_plaintext,
    }
}
