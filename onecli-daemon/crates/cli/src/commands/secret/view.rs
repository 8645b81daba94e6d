//! The form in which commands print a secret.

use onecli_api::SecretView;

use crate::error::CliError;
use crate::output::{Output, joined};

/// Prints whether the replaced value is retained.
pub(super) fn print_retention(secret: &SecretView, output: &mut Output) -> Result<(), CliError> {
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

pub(super) fn state(enabled: bool) -> &'static str {
    if enabled { "enabled" } else { "disabled" }
}

pub(super) fn source(secret: &SecretView) -> String {
    secret.profile.source.as_ref().map_or_else(|| "stored".to_owned(), ToString::to_string)
}

pub(super) fn last_use(secret: &SecretView, output: &Output) -> String {
    secret.last_used.map_or_else(|| "never".to_owned(), |time| output.time(time))
}

pub(super) fn place(secret: &SecretView) -> String {
    let host = secret.host.to_string();
    match secret.port {
        443 => host,
        port if host.contains(':') => format!("[{host}]:{port}"),
        port => format!("{host}:{port}"),
    }
}

pub(super) fn methods(secret: &SecretView) -> String {
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
