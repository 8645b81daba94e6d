//! `onecli secret edit`

use std::io::IsTerminal as _;

use onecli_api::{
    DROPS_RETAINED_VALUE, ErrorDetail, SecretEdit, SecretEdited, SecretView, VALUE_REQUIRED, routes,
};

use super::doubtful;
use super::edit_args::SecretEditArgs;
use super::view::fields;
use crate::client::{Client, ClientError};
use crate::error::CliError;
use crate::input::confirm::confirm;
use crate::input::value;
use crate::output::Output;

pub(crate) fn run(client: &Client, args: &SecretEditArgs, output: &mut Output) -> Result<(), CliError> {
    let seen: SecretView = client.get(&routes::secret(&args.name))?;
    let mut change = args.change(args.if_version.unwrap_or(seen.version)).map_err(CliError::Usage)?;
    if args.value.value_stdin || args.value.value_file.is_some() {
        change.value = Some(value::read(&args.value)?);
    }
    let edited = send(client, args, change, output)?;
    if output.is_json() {
        return Ok(output.document(&edited)?);
    }
    print(&edited, output)
}

/// Sends a change. Asks the user for the value if the daemon requires it, and for confirmation before a retained value
/// is erased.
fn send(
    client: &Client,
    args: &SecretEditArgs,
    mut change: SecretEdit,
    output: &mut Output,
) -> Result<SecretEdited, CliError> {
    let path = routes::secret_action(&args.name, "edit");
    loop {
        let sent = doubtful::send(output, |force| {
            change.force |= force;
            client.post(&path, &change)
        });
        let refused = match sent {
            Err(CliError::Client(ClientError::Refused(detail))) => detail,
            other => return other,
        };
        match refused.code.as_str() {
            // A script's standard input may belong to another command.
            VALUE_REQUIRED if change.value.is_none() && std::io::stdin().is_terminal() => {
                output.warning(&refused.message)?;
                change.value = Some(value::read(&args.value)?);
            }
            DROPS_RETAINED_VALUE if !change.erase_kept => {
                agree(&refused, output)?;
                change.erase_kept = true;
            }
            _ => return Err(ClientError::Refused(refused).into()),
        }
    }
}

/// Asks before a retained value is erased.
fn agree(refused: &ErrorDetail, output: &mut Output) -> Result<(), CliError> {
    output.warning(&format!("{}; {}", refused.message, refused.hint))?;
    Ok(confirm("Erase the retained value?", "--force", false)?)
}

fn print(edited: &SecretEdited, output: &mut Output) -> Result<(), CliError> {
    let SecretEdited { before, after } = edited;
    if before.version == after.version {
        return Ok(output
            .line(&format!("secret '{}' already has these settings; nothing was changed", after.name))?);
    }
    let (old, new) = (fields(before, output), fields(after, output));
    let changed = old.into_iter().zip(new).filter(|((_, old), (_, new))| old != new);
    let rows: Vec<_> =
        changed.map(|((name, old), (_, new))| [name.to_owned(), or_none(old), or_none(new)]).collect();
    output.line(&format!("changed secret '{}'", after.name))?;
    output.table(["PROPERTY", "BEFORE", "AFTER"], &rows)?;
    Ok(after.warnings.iter().try_for_each(|warning| output.warning(warning))?)
}

fn or_none(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}
