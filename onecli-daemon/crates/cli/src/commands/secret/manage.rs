//! `onecli secret ...`

use onecli_api::{SecretAdd, SecretRotate, SecretView, routes};
use onecli_model::SecretName;

use super::CliError;
use super::args::ValueArgs;
use super::client::Client;
use super::output::{Output, joined, or_dash};
use super::secret_args::SecretAddArgs;
use super::{doubtful, value};

pub(super) fn add(client: &Client, args: SecretAddArgs, output: &mut Output) -> Result<(), CliError> {
    let resolved = args.resolve().map_err(CliError::Usage)?;
    let value = match resolved.profile.source {
        Some(_) => None,
        None => Some(value::read(&args.value)?),
    };
    let mut request = SecretAdd {
        placement: resolved.placement,
        profile: resolved.profile,
        value,
        name: args.name,
        host: resolved.host,
        port: resolved.port,
        methods: resolved.methods,
        paths: resolved.paths,
        env: resolved.env,
        allow_plaintext: args.allow_plaintext,
        force: args.value.force,
    };
    let added: SecretView = doubtful::ask(output, |force| {
        request.force |= force;
        client.post(routes::SECRETS, &request)
    })?;
    if output.is_json() {
        return Ok(output.document(&added)?);
    }
    output.line(&format!("stored secret '{}'", added.name))?;
    let fields = fields(&added, output);
    output.fields(&fields)?;
    output.line(&format!("next: onecli grant AGENT {}", added.name))?;
    Ok(added.warnings.iter().try_for_each(|warning| output.warning(warning))?)
}

pub(super) fn list(client: &Client, output: &mut Output) -> Result<(), CliError> {
    let secrets: Vec<SecretView> = client.get(routes::SECRETS)?;
    if output.is_json() {
        return Ok(output.document(&secrets)?);
    }
    let rows: Vec<_> = secrets
        .iter()
        .map(|secret| {
            [
                secret.name.to_string(),
                state(secret.enabled).to_owned(),
                format!("v{}", secret.version),
                place(secret),
                methods(secret),
                joined(&secret.paths, "-"),
                secret.placement.to_string(),
                source(secret),
                or_dash(secret.env.as_ref()),
                joined(&secret.agents, "-"),
                last_use(secret, output),
            ]
        })
        .collect();
    let heading = [
        "NAME",
        "STATE",
        "VERSION",
        "HOST",
        "METHODS",
        "PATHS",
        "PLACEMENT",
        "SOURCE",
        "VARIABLE",
        "AGENTS",
        "LAST USE",
    ];
    Ok(output.table(heading, &rows)?)
}

pub(super) fn show(client: &Client, name: &SecretName, output: &mut Output) -> Result<(), CliError> {
    let secret: SecretView = client.get(&routes::secret(name))?;
    if output.is_json() {
        return Ok(output.document(&secret)?);
    }
    let fields = fields(&secret, output);
    Ok(output.fields(&fields)?)
}

pub(super) fn rotate(
    client: &Client,
    name: &SecretName,
    compromised: bool,
    value: &ValueArgs,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut request = SecretRotate { value: value::read(value)?, compromised, force: value.force };
    let rotated: SecretView = doubtful::ask(output, |force| {
        request.force |= force;
        client.post(&routes::secret_action(name, "rotate"), &request)
    })?;
    if output.is_json() {
        return Ok(output.document(&rotated)?);
    }
    if rotated.unchanged {
        let version = rotated.version;
        return Ok(output.line(&format!(
            "unchanged: secret '{name}' has this value already, and stays at version {version}"
        ))?);
    }
    output.line(&format!(
        "secret '{name}' is at version {}; agents keep their placeholders",
        rotated.version
    ))?;
    kept(&rotated, output)?;
    Ok(rotated.warnings.iter().try_for_each(|warning| output.warning(warning))?)
}

/// Prints whether the replaced value is retained.
pub(super) fn kept(secret: &SecretView, output: &mut Output) -> Result<(), CliError> {
    let name = &secret.name;
    let text = match secret.previous_until {
        Some(until) => {
            format!(
                "the replaced value is erased {}: until then, 'onecli secret rollback {name}' restores it",
                output.time(until)
            )
        }
        None => "the replaced value is erased".to_owned(),
    };
    Ok(output.line(&text)?)
}

pub(super) fn set_enabled(
    client: &Client,
    name: &SecretName,
    enabled: bool,
    output: &mut Output,
) -> Result<(), CliError> {
    let action = if enabled { "enable" } else { "disable" };
    let secret: SecretView = client.act(&routes::secret_action(name, action))?;
    if output.is_json() {
        return Ok(output.document(&secret)?);
    }
    let effect = if enabled { "it is used again" } else { "it is not used for any request" };
    Ok(output.line(&format!("secret '{name}' is {}: {effect}", state(secret.enabled)))?)
}

pub(super) fn remove(client: &Client, name: &SecretName, output: &mut Output) -> Result<(), CliError> {
    let removed: SecretView = client.delete(&routes::secret(name))?;
    if output.is_json() {
        return Ok(output.document(&removed)?);
    }
    let agents = joined(&removed.agents, "nobody");
    Ok(output.line(&format!(
        "removed secret '{name}', its value, a retained previous one, and its grants (it was granted to: \
         {agents}); audit records stay"
    ))?)
}

fn state(enabled: bool) -> &'static str {
    if enabled { "enabled" } else { "disabled" }
}

fn source(secret: &SecretView) -> String {
    secret.profile.source.as_ref().map_or_else(|| "stored".to_owned(), ToString::to_string)
}

fn last_use(secret: &SecretView, output: &Output) -> String {
    secret.last_used.map_or_else(|| "never".to_owned(), |time| output.time(time))
}

fn place(secret: &SecretView) -> String {
    let host = secret.host.to_string();
    match secret.port {
        443 => host,
        port if host.contains(':') => format!("[{host}]:{port}"),
        port => format!("{host}:{port}"),
    }
}

fn methods(secret: &SecretView) -> String {
    joined(Vec::<String>::from(secret.methods.clone()), "all")
}

/// Describes the retained previous value. The text promises only values that a rollback would restore.
fn previous(secret: &SecretView, output: &Output) -> String {
    match (secret.previous_until, secret.masked_until) {
        (Some(until), _) => format!("retained; erased {}", output.time(until)),
        (None, Some(until)) => {
            format!("cannot be restored; masked in responses, ends {}", output.time(until))
        }
        (None, None) => String::new(),
    }
}

pub(super) fn fields(secret: &SecretView, output: &Output) -> Vec<(&'static str, String)> {
    vec![
        ("name", secret.name.to_string()),
        ("state", state(secret.enabled).to_owned()),
        ("version", secret.version.to_string()),
        ("previous", previous(secret, output)),
        ("class", secret.class.map(|class| class.to_string()).unwrap_or_default()),
        ("host", place(secret)),
        ("methods", methods(secret)),
        ("paths", joined(&secret.paths, "-")),
        ("placement", secret.placement.to_string()),
        ("source", source(secret)),
        ("template", secret.profile.template.map(|name| name.to_string()).unwrap_or_default()),
        ("minted", secret.profile.mint.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("flush after", secret.profile.flush_after.map(|pause| pause.to_string()).unwrap_or_default()),
        ("variable", secret.env.clone().unwrap_or_default()),
        ("cookies", secret.profile.cookie_mode().to_string()),
        ("plaintext", if secret.allow_plaintext { "allowed".to_owned() } else { String::new() }),
        ("mask issued", secret.profile.mask_issued.to_string()),
        ("agents", joined(&secret.agents, "none")),
        ("last use", last_use(secret, output)),
    ]
}
