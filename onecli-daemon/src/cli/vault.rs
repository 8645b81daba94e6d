//! `onecli vault ...`

use clap::Subcommand;

use super::CliError;
use super::client::Client;
use super::output::{Output, or_dash};
use super::secret;
use crate::admin::api::{Imported, VaultImport, VaultView, routes};

#[derive(Debug, Subcommand)]
pub(super) enum VaultCommand {
    /// Is it there, unsealed, and are we logged in? How long does our token last, how many leases are held?
    Status,
    /// Copy the fields of a KV path into secrets of our own, by templates.
    ///
    /// A field that is named as a template's variable (`OPENAI_API_KEY`, in any case) becomes the secret of that template, or
    /// its new value; others are left out and told. The daemon fetches the values: they do not pass this command.
    Import {
        /// The path, as 'vault kv get' takes it: 'secret/team'.
        path: String,
        /// Take values that do not look like the credential, too.
        #[arg(long)]
        force: bool,
    },
}

pub(super) fn run(client: &Client, command: VaultCommand, output: &mut Output) -> Result<(), CliError> {
    match command {
        VaultCommand::Status => status(client, output),
        VaultCommand::Import { path, force } => {
            let all: Vec<Imported> = client.post(routes::VAULT_IMPORT, &VaultImport { path, force })?;
            secret::imported(&all, output)
        }
    }
}

fn status(client: &Client, output: &mut Output) -> Result<(), CliError> {
    let view: VaultView = client.get(routes::VAULT)?;
    if output.is_json() {
        return Ok(output.document(&view)?);
    }
    let state = match (view.sealed, view.standby) {
        (Some(true), _) => "SEALED",
        (Some(false), Some(true)) => "standby",
        (Some(false), _) => "active",
        (None, _) => "not reachable",
    };
    let token = match (view.token_ttl_s, &view.fault) {
        (Some(seconds), _) => format!("lasts {seconds} s"),
        (None, None) => "does not end".to_owned(),
        (None, Some(_)) => "-".to_owned(),
    };
    Ok(output.fields(&[
        ("server", view.address),
        ("namespace", view.namespace.unwrap_or_default()),
        ("state", state.to_owned()),
        ("version", or_dash(view.version)),
        ("login", view.method),
        ("token", token),
        ("leases", view.leases.to_string()),
        ("fault", view.fault.unwrap_or_default()),
    ])?)
}
