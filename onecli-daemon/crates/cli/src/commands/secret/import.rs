//! `onecli secret import` and `onecli vault import`.

use std::path::Path;

use onecli_api::{Import, ImportOptions, ImportOutcome, Imported, VaultImport, routes};
use onecli_model::MaskIssued;
use zeroize::Zeroizing;

use super::import_args::ImportArgs;
use crate::client::Client;
use crate::error::CliError;
use crate::input::dotenv;
use crate::output::{Output, Progress, Unit, or_dash};

/// Imports the values of a `.env` file through templates.
pub(super) fn of_file(
    client: &Client,
    file: &Path,
    args: &ImportArgs,
    mask_issued: MaskIssued,
    output: &mut Output,
) -> Result<(), CliError> {
    let failed = |source| CliError::File { path: file.to_owned(), source };
    let text = Zeroizing::new(std::fs::read_to_string(file).map_err(failed)?);
    let (values, unusable) = dotenv::read(&text);
    let request = Import { values, mask_issued, force: args.force, how: args.how() };
    let mut all: Vec<Imported> =
        Progress::during("importing", Unit::Unknown, |_| client.post(routes::SECRETS_IMPORT, &request))?;
    all.extend(unusable);
    print(&all, args.how(), output)
}

/// Imports the fields of a KV path through templates.
pub(crate) fn of_vault(
    client: &Client,
    path: String,
    args: &ImportArgs,
    output: &mut Output,
) -> Result<(), CliError> {
    let request = VaultImport { path, force: args.force, how: args.how() };
    let all: Vec<Imported> =
        Progress::during("importing", Unit::Unknown, |_| client.post(routes::VAULT_IMPORT, &request))?;
    print(&all, args.how(), output)
}

/// Prints the actual or planned result for each value.
fn print(all: &[Imported], how: ImportOptions, output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return Ok(output.document(&all)?);
    }
    let row = |one: &Imported| {
        [
            one.name.clone(),
            or_dash(one.secret.as_ref()),
            end(one.end).to_owned(),
            or_dash(one.reason.as_ref()),
        ]
    };
    let done = if how.dry_run { "WOULD BE" } else { "DONE" };
    output.table(["NAME", "SECRET", done, "REASON"], &all.iter().map(row).collect::<Vec<_>>())?;
    if how.dry_run {
        output.line("nothing was changed (--dry-run)")?;
    }
    let warnings = all.iter().filter_map(|one| one.warning.as_ref());
    Ok(warnings.into_iter().try_for_each(|warning| output.warning(warning))?)
}

fn end(end: ImportOutcome) -> &'static str {
    match end {
        ImportOutcome::Added => "added",
        ImportOutcome::Rotated => "replaced",
        ImportOutcome::Unchanged => "unchanged",
        ImportOutcome::Skipped => "SKIPPED",
    }
}
