//! `vault import` and `secret import`: values become secrets by the templates whose variables they are named as.

use super::api::{Import, ImportEnd, Imported, SecretAdd, VaultImport};
use super::error::AdminError;
use super::state::{Change, Find, State};
use super::{doubts, secrets, vault};
use crate::model::template::Template;
use crate::model::{MaskIssued, Secret, SecretName, SecretValue, VaultReference};

/// More are a mistake.
const MOST: usize = 1024;

/// How values are taken.
#[derive(Debug, Clone, Copy, Default)]
struct Options {
    /// Of secrets that are added.
    mask_issued: MaskIssued,
    /// Also those that do not look like the credential.
    force: bool,
}

pub(super) async fn of_vault(state: &State, request: VaultImport) -> Result<Vec<Imported>, AdminError> {
    let path =
        VaultReference::parse_path(&request.path).map_err(|error| AdminError::Invalid(error.to_string()))?;
    let fields = vault::server(state)?.fields(&path).await;
    let mut fields = fields.map_err(|error| AdminError::NotReady {
        message: error.to_string(),
        hint: "'onecli vault status' tells how the vault server is".to_owned(),
    })?;
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    let values = fields.into_iter().map(|(name, text)| (name, SecretValue::of_document(text.as_bytes())));
    let values = values.map(|(name, value)| (name, value.map_err(|error| error.to_string()))).collect();
    take(state, "vault import", values, Options { force: request.force, ..Options::default() }).await
}

pub(super) async fn of_values(state: &State, request: Import) -> Result<Vec<Imported>, AdminError> {
    let values = request.values.into_iter().map(|named| (named.name, Ok(named.value.0))).collect();
    let options = Options { mask_issued: request.mask_issued, force: request.force };
    take(state, "secret import", values, options).await
}

async fn take(
    state: &State,
    what: &'static str,
    values: Vec<(String, Result<SecretValue, String>)>,
    options: Options,
) -> Result<Vec<Imported>, AdminError> {
    if values.len() > MOST {
        return Err(AdminError::Invalid(format!("more than {MOST} values")));
    }
    let mut all = Vec::with_capacity(values.len());
    for (name, value) in values {
        let change = state.begin_change().await?;
        let taken = match value {
            Ok(value) => one(state, &change, (&name, options), value).await,
            Err(reason) => Err(AdminError::Invalid(reason)),
        };
        let name: String = name.chars().take(256).filter(|c| !c.is_control()).collect();
        match taken {
            Ok((secret, end, warning)) => {
                if end != ImportEnd::Unchanged {
                    change.in_force(what, secret.as_str()).await?;
                }
                all.push(Imported { name, secret: Some(secret), end, reason: None, warning });
            }
            // Of this one value. What is wrong with the daemon would be wrong with the next one too.
            Err(
                error @ (AdminError::Invalid(_)
                | AdminError::Doubtful { .. }
                | AdminError::Conflict(_)
                | AdminError::Exists { .. }
                | AdminError::Unopened { .. }),
            ) => {
                let end = ImportEnd::Skipped;
                all.push(Imported {
                    name,
                    secret: None,
                    end,
                    reason: Some(error.to_string()),
                    warning: None,
                });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

async fn one(
    state: &State,
    change: &Change<'_>,
    (variable, options): (&str, Options),
    value: SecretValue,
) -> Result<(SecretName, ImportEnd, Option<String>), AdminError> {
    let mut request = request(variable, value.clone())?;
    request.profile.mask_issued = options.mask_issued;
    let Ok(existing) = change.stored.secret(&request.name) else {
        if !options.force {
            doubts::of_new(&request)?;
        }
        let secret = secrets::insert(state, change, request).await?;
        let warning = secrets::weakness(&secret, &value);
        return Ok((secret.name, ImportEnd::Added, warning));
    };
    if existing.profile.template != request.profile.template || existing.profile.source.is_some() {
        return Err(AdminError::Conflict(format!(
            "there is a secret '{}' that was not made of this template",
            existing.name
        )));
    }
    if has(state, existing, &value)? {
        return Ok((existing.name.clone(), ImportEnd::Unchanged, None));
    }
    if !options.force {
        doubts::of_stored(existing, &value)?;
    }
    let secret = secrets::renew(state, existing, &value).await?;
    let warning = secrets::weakness(&secret, &value);
    Ok((secret.name, ImportEnd::Rotated, warning))
}

fn has(state: &State, secret: &Secret, value: &SecretValue) -> Result<bool, AdminError> {
    let unopened = |error: crate::vault::VaultError| AdminError::Unopened {
        name: secret.name.to_string(),
        reason: error.to_string(),
    };
    state.handles.vault.holds(secret, value).map_err(unopened)
}

/// As `secret add --template` would ask.
fn request(variable: &str, value: SecretValue) -> Result<SecretAdd, AdminError> {
    let variable = variable.to_ascii_uppercase();
    let candidates: Vec<&Template> =
        Template::all().iter().filter(|template| template.env.contains(&variable)).collect();
    let template = match candidates.as_slice() {
        [one] => one,
        [] => return Err(AdminError::Invalid("no template has a variable of that name".to_owned())),
        several => {
            let names: Vec<&str> = several.iter().map(|template| template.name.as_str()).collect();
            return Err(AdminError::Invalid(format!(
                "several templates have that variable ({}): use 'onecli secret add --template'",
                names.join(", ")
            )));
        }
    };
    if template.hosts.is_empty() {
        return Err(AdminError::Invalid(format!(
            "the template '{0}' needs a host: use 'onecli secret add --template {0} --host'",
            template.name
        )));
    }
    let text = |error: &dyn std::fmt::Display| AdminError::Invalid(error.to_string());
    Ok(SecretAdd {
        name: template.name.parse().map_err(|error| text(&error))?,
        host: template.hosts.clone().into_iter().collect(),
        port: 443,
        methods: crate::model::MethodSet::default(),
        paths: Vec::new(),
        placement: template.placement.clone(),
        profile: template.profile().map_err(|error| text(&error))?,
        env: Some(template.env.join(",").parse().map_err(|error| text(&error))?),
        allow_plaintext: false,
        value: Some(super::api::WireValue(value)),
        force: false,
    })
}
