//! `secret add | list | show | rotate | disable | enable | remove`.

use onecli_api::{SecretAdd, SecretRotate, SecretView};
use onecli_model::strength::{ENOUGH_BITS, estimated_bits};
use onecli_model::{
    AwsKeys, Mint, PathPattern, Placement, Profile, Sealed, Secret, SecretId, SecretName, SecretValue,
    Source, Target,
};
use onecli_store::{KeptVersion, StoredState};
use onecli_sys::trusted;
use onecli_vault::{VaultError, check_material, sent_to_endpoint};

use super::doubts;
use super::error::AdminError;
use super::peer::Rights;
use super::rollback;
use super::state::{Change, Find, State};

/// The largest number of path patterns. More are a mistake, and each one costs time in every match.
const MAX_PATHS: usize = 256;

pub(super) async fn add(
    state: &State,
    uid: u32,
    rights: Rights,
    request: SecretAdd,
) -> Result<SecretView, AdminError> {
    check_source(state, uid, rights, &request.profile)?;
    if !request.force {
        doubts::of_new(&request)?;
    }
    let change = state.begin_change().await?;
    let value = request.value.as_ref().map(|value| value.0.clone());
    let secret = insert(state, &change, request).await?;
    let warnings = value.iter().filter_map(|value| weakness(&secret, value)).collect();
    let view = SecretView { warnings, ..view(state, &change.stored, &secret) };
    change.in_force("secret add", view.name.as_str()).await?;
    Ok(view)
}

/// Returns a warning about a value that can be guessed. Signing keys are never sent, so no service returns them.
pub(super) fn weakness(secret: &Secret, value: &SecretValue) -> Option<String> {
    let weakest = match &secret.profile.mint {
        Some(mint) => sent_to_endpoint(mint, value).iter().map(estimated_bits).min(),
        None if secret.placement.wire_forms(value).is_empty() => None,
        None => Some(estimated_bits(value)),
    };
    let bits = weakest.filter(|bits| *bits < ENOUGH_BITS)?;
    Some(format!(
        "the value of secret '{}' has about {bits} bits of entropy: an agent that stores guesses at the service sees \
         which one is masked; use a random value of 64 bits or more where the service allows it",
        secret.name
    ))
}

/// Stores a new secret, which is not active yet.
pub(super) async fn insert(
    state: &State,
    change: &Change<'_>,
    request: SecretAdd,
) -> Result<Secret, AdminError> {
    let (mut secret, value) = checked(change, request)?;
    secret.id = SecretId(state.new_id()?);
    secret.sealed = state.handles.vault.seal(&secret, &value)?;
    state.handles.store.add_secret(&secret).await?;
    Ok(secret)
}

/// Returns a new secret without id and sealed value, and the value to seal.
///
/// # Errors
/// The request is invalid, or the name is in use.
pub(super) fn checked(change: &Change<'_>, request: SecretAdd) -> Result<(Secret, SecretValue), AdminError> {
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
fn check_source(state: &State, uid: u32, rights: Rights, profile: &Profile) -> Result<(), AdminError> {
    match &profile.source {
        // A caller could send any value that the daemon may read there to a host of their choice.
        Some(Source::Vault(_)) if rights != Rights::Root => {
            Err(AdminError::root_only("store secrets whose values come from the vault server"))
        }
        Some(Source::Vault(_)) if state.handles.server.is_none() => Err(AdminError::NotReady {
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
            if let Some(reason) = &state.handles.commands_off {
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

pub(super) fn check_target(target: &Target) -> Result<(), AdminError> {
    if target.port == 0 {
        return Err(AdminError::Invalid("the port must be a number from 1 to 65535".to_owned()));
    }
    if target.paths.len() > MAX_PATHS {
        return Err(AdminError::Invalid(format!("more than {MAX_PATHS} path patterns: use a wildcard")));
    }
    Ok(())
}

pub(super) fn check_mint(placement: &Placement, profile: &Profile) -> Result<(), AdminError> {
    if profile.mint.is_some() && !matches!(placement, Placement::Header { .. }) {
        return Err(AdminError::Invalid(
            "a minted token is placed in a header: --bearer or --header".to_owned(),
        ));
    }
    Ok(())
}

/// Checks the form of a value when it is stored, so that the first request does not fail.
pub(super) fn check_value(
    placement: &Placement,
    profile: &Profile,
    value: &SecretValue,
) -> Result<(), AdminError> {
    check_mint(placement, profile)?;
    if let Some(mint) = &profile.mint {
        return check_material(mint, value).map_err(|error| AdminError::Invalid(error.to_string()));
    }
    if matches!(placement, Placement::SigV4 { .. }) {
        AwsKeys::parse(value).map_err(|error| AdminError::Invalid(error.to_string()))?;
    }
    Ok(())
}

pub(super) async fn list(state: &State) -> Result<Vec<SecretView>, AdminError> {
    let stored = state.load().await?;
    Ok(stored.secrets.iter().map(|secret| view(state, &stored, secret)).collect())
}

pub(super) async fn show(state: &State, name: &SecretName) -> Result<SecretView, AdminError> {
    let stored = state.load().await?;
    Ok(view(state, &stored, stored.secret(name)?))
}

pub(super) async fn rotate(
    state: &State,
    rights: Rights,
    name: &SecretName,
    request: SecretRotate,
) -> Result<SecretView, AdminError> {
    let change = state.begin_change().await?;
    let (keep, what) = if request.compromised {
        (Keep::Nothing, "secret rotate --compromised")
    } else {
        (Keep::Replaced, "secret rotate")
    };
    let secret = change.stored.secret(name)?;
    // A retried script must not lose the retained value. The comparison is for root only: for members of the group it
    // would confirm guesses.
    if rights == Rights::Root && keep == Keep::Replaced && holds(state, secret, &request.value.0)? {
        return Ok(SecretView { unchanged: true, ..view(state, &change.stored, secret) });
    }
    if !request.force {
        doubts::of_stored(secret, &request.value.0)?;
    }
    let secret = renew(state, secret, &request.value.0, keep).await?;
    let warnings = weakness(&secret, &request.value.0).into_iter().collect();
    reply(state, change, what, name, warnings).await
}

/// Activates a change, and returns the current view of the secret.
pub(super) async fn reply(
    state: &State,
    change: Change<'_>,
    what: &'static str,
    name: &SecretName,
    warnings: Vec<String>,
) -> Result<SecretView, AdminError> {
    let stored = state.load().await?;
    let view = SecretView { warnings, ..view(state, &stored, stored.secret(name)?) };
    change.in_force(what, name.as_str()).await?;
    Ok(view)
}

/// Which replaced value to retain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Retain the value for `vault.keep_replaced`.
    Replaced,
    /// Retain no value.
    Nothing,
}

/// Stores a new value of a secret, which is not active yet.
pub(super) async fn renew(
    state: &State,
    secret: &Secret,
    value: &SecretValue,
    keep: Keep,
) -> Result<Secret, AdminError> {
    check_stored(secret)?;
    check_value(&secret.placement, &secret.profile, value)?;
    let kept = retired(state, secret)?.filter(|_| keep == Keep::Replaced);
    let class = Some(secret.class_of(value));
    let mut secret = Secret { version: secret.version + 1, class, ..secret.clone() };
    secret.sealed = state.handles.vault.seal(&secret, value)?;
    state.handles.store.add_version(&secret, kept.as_ref()).await?;
    Ok(secret)
}

/// Checks that the value is stored here and not in an external source.
pub(super) fn check_stored(secret: &Secret) -> Result<(), AdminError> {
    let Some(source) = &secret.profile.source else { return Ok(()) };
    Err(AdminError::Conflict(format!(
        "the value of secret '{}' comes from {source}: change it there, and the next request uses it",
        secret.name
    )))
}

/// Returns whether `value` is the stored one. For root only: the result confirms a guess.
pub(super) fn holds(state: &State, secret: &Secret, value: &SecretValue) -> Result<bool, AdminError> {
    let unopened =
        |error: VaultError| AdminError::Unopened { name: secret.name.to_string(), reason: error.to_string() };
    let is_stored = secret.profile.source.is_none();
    Ok(is_stored && state.handles.vault.holds(secret, value).map_err(unopened)?)
}

/// Returns the replaced value in a form that is never sent; `None` if no replaced values are retained.
///
/// # Errors
/// The value does not open: its row was edited outside the daemon, perhaps to redirect the new value.
pub(super) fn retired(state: &State, secret: &Secret) -> Result<Option<KeptVersion>, AdminError> {
    let unopened =
        |error: VaultError| AdminError::Unopened { name: secret.name.to_string(), reason: error.to_string() };
    let sealed = state.handles.vault.retire(secret).map_err(unopened)?;
    let until = state.kept_until();
    Ok(until.map(|until| KeptVersion { secret: Secret { sealed, ..secret.clone() }, until }))
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
    let view = view(state, &change.stored, &secret);
    change.in_force(if enabled { "secret enable" } else { "secret disable" }, view.name.as_str()).await?;
    Ok(view)
}

pub(super) async fn remove(state: &State, name: &SecretName) -> Result<SecretView, AdminError> {
    let change = state.begin_change().await?;
    let secret = change.stored.secret(name)?;
    let view = view(state, &change.stored, secret);
    state.handles.store.remove_secret(secret.id).await?;
    change.in_force("secret remove", view.name.as_str()).await?;
    Ok(view)
}

pub(super) fn view(state: &State, stored: &StoredState, secret: &Secret) -> SecretView {
    let kept = rollback::still_kept(state, stored, secret).map(|kept| kept.until);
    let is_restorable = kept.is_some() && rollback::is_restorable(state, stored, secret);
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
