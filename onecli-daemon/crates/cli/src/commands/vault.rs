//! `onecli vault ...`

use clap::Subcommand;
use onecli_api::{VaultView, routes};

use super::secret::{ImportArgs, of_vault};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, or_dash};

#[derive(Debug, Subcommand)]
pub(crate) enum VaultCommand {
    /// Show whether the server is reachable and unsealed, the login, the token's lifetime and the number of leases.
    Status,
    /// Copy the fields of a KV path into secrets stored by OneCLI, by templates.
    ///
    /// A field with the name of a template's variable (`OPENAI_API_KEY`, in any case) becomes the secret of that
    /// template. Other fields, and fields whose secret exists already, are skipped and listed. The daemon fetches the
    /// values; they do not pass through this command.
    Import {
        /// The path in the form that 'vault kv get' accepts: 'secret/team'.
        path: String,
        #[command(flatten)]
        how: ImportArgs,
    },
}

pub(crate) fn run(client: &Client, command: VaultCommand, output: &mut Output) -> Result<(), CliError> {
    match command {
        VaultCommand::Status => status(client, output),
        VaultCommand::Import { path, how } => of_vault(client, path, &how, output),
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
        (None, None) => "does not expire".to_owned(),
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
