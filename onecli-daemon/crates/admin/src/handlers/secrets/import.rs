//! `vault import` and `secret import`: variables become secrets through the templates that use the same variable names.

use std::collections::HashMap;

use onecli_api::{Import, ImportOptions, ImportOutcome, Imported, SecretAdd, VaultImport};
use onecli_model::template::Template;
use onecli_model::{MaskIssued, Secret, SecretName, SecretValue, VaultReference};

use super::add::{checked, insert};
use super::checks::{check_value, weak_value_warning};
use super::plausibility;
use super::value::{Retention, is_stored_value, store_value};
use crate::access::peer::Rights;
use crate::context::{AdminContext, ChangeGuard, Lookup};
use crate::error::AdminError;
use crate::handlers::vault;

/// The largest number of values. More are a mistake.
const MAX_VALUES: usize = 1024;

pub(crate) async fn of_vault(
    context: &AdminContext,
    rights: Rights,
    request: VaultImport,
) -> Result<Vec<Imported>, AdminError> {
    let path =
        VaultReference::parse_path(&request.path).map_err(|error| AdminError::Invalid(error.to_string()))?;
    let fields = vault::server(context)?.fields(&path).await;
    let mut fields = fields.map_err(|error| AdminError::NotReady {
        message: error.to_string(),
        hint: "'onecli vault status' shows the state of the vault server".to_owned(),
    })?;
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    let values = fields.into_iter().map(|(name, text)| (name, SecretValue::of_document(text.as_bytes())));
    let values = values.map(|(name, value)| (name, value.map_err(|error| error.to_string()))).collect();
    let what = "vault import";
    let VaultImport { force, how, .. } = request;
    let mask_issued = MaskIssued::default();
    Importer { context, rights, what, how, force, mask_issued, assigned: HashMap::new() }.all(values).await
}

pub(crate) async fn of_values(
    context: &AdminContext,
    rights: Rights,
    request: Import,
) -> Result<Vec<Imported>, AdminError> {
    let Import { values, force, how, mask_issued } = request;
    let values = values.into_iter().map(|named| (named.name, Ok(named.value.0))).collect();
    let what = "secret import";
    Importer { context, rights, what, how, force, mask_issued, assigned: HashMap::new() }.all(values).await
}

/// One import.
struct Importer<'s> {
    context: &'s AdminContext,
    rights: Rights,
    what: &'static str,
    how: ImportOptions,
    /// Accept values that do not look like the expected credential.
    force: bool,
    mask_issued: MaskIssued,
    /// The first value that this import assigned to each secret. A dry run stores none but must report the same
    /// results.
    assigned: HashMap<SecretName, SecretValue>,
}

/// The planned action for one value.
enum Plan {
    Add(Box<SecretAdd>),
    Replace(Box<Secret>),
    Unchanged,
}

impl Importer<'_> {
    async fn all(
        mut self,
        values: Vec<(String, Result<SecretValue, String>)>,
    ) -> Result<Vec<Imported>, AdminError> {
        if values.len() > MAX_VALUES {
            return Err(AdminError::Invalid(format!("more than {MAX_VALUES} values")));
        }
        let mut all = Vec::with_capacity(values.len());
        for (name, value) in values {
            let done = match value {
                Ok(value) => self.one(&name, value).await,
                Err(reason) => Err(AdminError::Invalid(reason)),
            };
            let name: String = name.chars().take(256).filter(|c| !c.is_control()).collect();
            all.push(match done {
                Ok((secret, end, warning)) => {
                    Imported { name, secret: Some(secret), end, reason: None, warning }
                }
                Err(error) => skipped(name, error)?,
            });
        }
        Ok(all)
    }

    async fn one(
        &mut self,
        variable: &str,
        value: SecretValue,
    ) -> Result<(SecretName, ImportOutcome, Option<String>), AdminError> {
        let change = self.context.begin_change().await?;
        let mut request = request(variable, value.clone())?;
        request.profile.mask_issued = self.mask_issued;
        let name = request.name.clone();
        let (secret, end) = match self.plan(&change, request, &value)? {
            Plan::Unchanged => (None, ImportOutcome::Unchanged),
            Plan::Add(request) => (Some(self.add(&change, *request).await?), ImportOutcome::Added),
            Plan::Replace(existing) => (Some(self.replace(*existing, &value).await?), ImportOutcome::Rotated),
        };
        let warning = secret.as_ref().and_then(|secret| weak_value_warning(secret, &value));
        if secret.is_some() && !self.how.dry_run {
            change.apply(self.what, name.as_str()).await?;
        }
        self.assigned.entry(name.clone()).or_insert(value);
        Ok((name, end, warning))
    }

    /// Runs every check, in a dry run as well.
    fn plan(
        &self,
        change: &ChangeGuard<'_>,
        request: SecretAdd,
        value: &SecretValue,
    ) -> Result<Plan, AdminError> {
        if let Some(first) = self.assigned.get(&request.name) {
            return if first.expose() == value.expose() {
                Ok(Plan::Unchanged)
            } else {
                Err(AdminError::Conflict(format!(
                    "another variable of this import has a value for secret '{}'",
                    request.name
                )))
            };
        }
        let Ok(existing) = change.stored.secret(&request.name) else {
            if !self.force {
                plausibility::check_new(&request)?;
            }
            return Ok(Plan::Add(Box::new(request)));
        };
        if existing.profile.template != request.profile.template || existing.profile.source.is_some() {
            return Err(AdminError::Conflict(format!(
                "secret '{}' exists, and was not created from this template",
                existing.name
            )));
        }
        // A comparison without a change would let members of the group test guesses at a stored value.
        if self.rights == Rights::Root && is_stored_value(self.context, existing, value)? {
            return Ok(Plan::Unchanged);
        }
        if !self.how.replace {
            return Err(AdminError::Conflict(format!(
                "secret '{}' already exists; --replace stores this value",
                existing.name
            )));
        }
        if !self.force {
            plausibility::check_existing(existing, value)?;
        }
        check_value(&existing.placement, &existing.profile, value)?;
        Ok(Plan::Replace(Box::new(existing.clone())))
    }

    async fn add(&self, change: &ChangeGuard<'_>, request: SecretAdd) -> Result<Secret, AdminError> {
        if self.how.dry_run {
            return Ok(checked(change, request)?.0);
        }
        insert(self.context, change, request).await
    }

    async fn replace(&self, existing: Secret, value: &SecretValue) -> Result<Secret, AdminError> {
        if self.how.dry_run {
            return Ok(existing);
        }
        store_value(self.context, &existing, value, Retention::Replaced).await
    }
}

/// Turns an error about one value into a skipped entry, so that the import continues. An error of the daemon ends the
/// import.
fn skipped(name: String, error: AdminError) -> Result<Imported, AdminError> {
    match error {
        AdminError::Invalid(_)
        | AdminError::Doubtful { .. }
        | AdminError::Conflict(_)
        | AdminError::Exists { .. }
        | AdminError::Unopened { .. } => {}
        error => return Err(error),
    }
    let reason = Some(error.to_string());
    Ok(Imported { name, secret: None, end: ImportOutcome::Skipped, reason, warning: None })
}

/// Builds the request that `secret add --template` would send.
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
        methods: onecli_model::MethodSet::default(),
        paths: Vec::new(),
        placement: template.placement.clone(),
        profile: template.profile().map_err(|error| text(&error))?,
        env: Some(template.env.join(",").parse().map_err(|error| text(&error))?),
        allow_plaintext: false,
        value: Some(onecli_api::WireValue(value)),
        force: false,
    })
}
