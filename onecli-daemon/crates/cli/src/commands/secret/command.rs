//! `onecli secret ...`.

use std::path::PathBuf;

use clap::Subcommand;
use onecli_model::{MaskIssued, SecretName};

use super::add_args::SecretAddArgs;
use super::edit_args::SecretEditArgs;
use super::import_args::ImportArgs;
use super::test::{self, SecretTestArgs};
use super::{add, edit, enable, import, list, remove, rollback, rotate, show};
use crate::client::Client;
use crate::error::CliError;
use crate::input::value_args::ValueArgs;
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Store a credential.
    Add(Box<SecretAddArgs>),
    /// Store the values of a .env file as secrets, by templates.
    ///
    /// A variable of a template (`OPENAI_API_KEY`) becomes the secret of that template. Other variables, and variables
    /// whose secret exists already, are skipped and listed. The file stays unchanged: remove it, or the values that
    /// agents may read in it.
    Import {
        /// A file with lines of the form NAME=VALUE.
        file: PathBuf,
        #[command(flatten)]
        how: ImportArgs,
        /// The treatment of credentials that the services issue in responses; see 'onecli secret add --help'.
        #[arg(long, value_name = "none|listed|all", default_value_t)]
        mask_issued: MaskIssued,
    },
    /// List all secrets, without their values, which are never shown.
    List,
    /// Show a secret, without its value.
    Show {
        /// The secret.
        name: SecretName,
    },
    /// Store a new value for a secret, used starting with the next request. Placeholders stay unchanged.
    ///
    /// The replaced value is retained for `vault.keep_replaced`, and 'onecli secret rollback' restores it.
    Rotate {
        /// The secret.
        name: SecretName,
        /// Erase the old value and any retained value now, because others may know them.
        #[arg(long)]
        compromised: bool,
        #[command(flatten)]
        value: ValueArgs,
    },
    /// Send one harmless request with a secret, and print the service's response. Root only.
    Test(SecretTestArgs),
    Edit(Box<SecretEditArgs>),
    /// Restore the previous value, as a new version.
    ///
    /// Replaced values are retained for `vault.keep_replaced` (24 h), except values replaced by 'rotate --compromised'.
    /// A second rollback undoes the first. The daemon refuses this if the secret now has destinations that the old
    /// value did not have.
    Rollback {
        /// The secret.
        name: SecretName,
    },
    /// Stop using a secret, starting with the next request.
    Disable {
        /// The secret.
        name: SecretName,
    },
    /// Enable a disabled secret.
    Enable {
        /// The secret.
        name: SecretName,
    },
    /// Remove a secret with all versions of its value and all of its grants.
    Remove {
        /// The secret.
        name: SecretName,
    },
}

pub(crate) fn run(client: &Client, command: SecretCommand, output: &mut Output) -> Result<(), CliError> {
    match command {
        SecretCommand::Add(args) => add::add(client, *args, output),
        SecretCommand::Import { file, how, mask_issued } => {
            import::of_file(client, &file, &how, mask_issued, output)
        }
        SecretCommand::List => list::list(client, output),
        SecretCommand::Show { name } => show::show(client, &name, output),
        SecretCommand::Rotate { name, compromised, value } => {
            rotate::rotate(client, &name, compromised, &value, output)
        }
        SecretCommand::Edit(args) => edit::run(client, &args, output),
        SecretCommand::Rollback { name } => rollback::run(client, &name, output),
        SecretCommand::Test(args) => test::test(client, args, output),
        SecretCommand::Disable { name } => enable::set_enabled(client, &name, false, output),
        SecretCommand::Enable { name } => enable::set_enabled(client, &name, true, output),
        SecretCommand::Remove { name } => remove::remove(client, &name, output),
    }
}
