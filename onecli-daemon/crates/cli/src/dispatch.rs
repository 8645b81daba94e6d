//! Runs the parsed command.

use super::args::{Command, definition};
use super::client::Client;
use super::commands::{
    agent, approval, audit, backup, ca, completions, grant, key, manual, ps, recipe, rule, secret, setup,
    status, template, vault,
};
use super::error::CliError;
use super::output::Output;

pub(super) fn dispatch(client: &Client, command: Command, output: &mut Output) -> Result<(), CliError> {
    match command {
        // Handled earlier, because they have their own exit codes.
        Command::Run(_) | Command::Launcher(_) | Command::Doctor(_) | Command::SelfTestProbe { .. } => Ok(()),
        Command::Agent(command) => agent::run(client, command, output),
        Command::Secret(command) => secret::run(client, command, output),
        Command::Template(command) => template::run(&command, output),
        Command::Recipe(command) => recipe::run(&command, output),
        Command::Grant { agent, secret } => grant::grant(client, &agent, &secret, output),
        Command::Ungrant { agent, secret } => grant::ungrant(client, &agent, &secret, output),
        Command::Audit(command) => audit::run(client, *command, output),
        Command::Ca(command) => ca::ca(client, &command, output),
        Command::Vault(command) => vault::run(client, command, output),
        Command::Key(command) => key::key(client, command, output),
        Command::Backup { file } => backup::backup(client, &file, output),
        Command::Restore(args) => Err(backup::restore(&args, output.is_json())),
        Command::Rule(command) => rule::run(client, command, output),
        Command::Why(args) => rule::why(client, args, output),
        Command::Approval(command) => approval::run(client, command, output),
        Command::Setup(args) => setup::setup(client, args, output),
        Command::Status => status::status(client, output),
        Command::Ps => ps::ps(client, output),
        Command::Manual { directory } => manual::write(definition(), &directory)
            .map_err(|source| CliError::File { path: directory, source }),
        Command::Completions { shell } => {
            let script = completions::script(shell)?;
            Ok(output.script(&script)?)
        }
    }
}
