//! `onecli secret list`.

use onecli_api::{SecretView, routes};

use super::view::{last_use, methods, place, source, state};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, joined, or_dash};

pub(crate) fn list(client: &Client, output: &mut Output) -> Result<(), CliError> {
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
