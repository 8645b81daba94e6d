//! `onecli ca ...`

use onecli_api::{Ca, routes};

use super::args::CaCommand;
use crate::client::Client;
use crate::error::CliError;
use crate::host::trust;
use crate::output::Output;

pub(crate) fn ca(client: &Client, command: &CaCommand, output: &mut Output) -> Result<(), CliError> {
    match command {
        CaCommand::Export => {
            let ca: Ca = client.get(routes::CA)?;
            if output.is_json() { Ok(output.document(&ca)?) } else { Ok(output.line(ca.pem.trim_end())?) }
        }
        CaCommand::Install => {
            let ca: Ca = client.get(routes::CA)?;
            let path = trust::install(&ca.pem)?;
            Ok(output.line(&format!(
                "the whole host now trusts this daemon's CA ({}); 'onecli ca uninstall' reverts this",
                path.display()
            ))?)
        }
        CaCommand::Uninstall => {
            let done = match trust::uninstall()? {
                Some(path) => {
                    format!("removed {}: the host no longer trusts this daemon's CA", path.display())
                }
                None => "it was not installed".to_owned(),
            };
            Ok(output.line(&done)?)
        }
        CaCommand::Show => show(&client.get(routes::CA)?, output),
        CaCommand::Rotate { finish: false } => {
            let ca: Ca = client.post_empty(routes::CA_ROTATE)?;
            show(&ca, output)?;
            if !output.is_json() {
                output.line("")?;
                output
                    .line("agents that start now trust both CAs; the old one signs until 'onecli ca rotate --finish'")?;
                output.line(
                    "next: copy the new bundle to containers ('onecli ca export'), wait until earlier agents \
                     have ended, then run 'onecli ca rotate --finish'",
                )?;
            }
            Ok(())
        }
        CaCommand::Rotate { finish: true } => {
            let ca: Ca = client.post_empty(routes::CA_FINISH)?;
            show(&ca, output)?;
            if !output.is_json() {
                output.line("")?;
                output.line("the new CA signs; the old one is no longer needed")?;
            }
            Ok(())
        }
    }
}

fn show(ca: &Ca, output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return Ok(output.document(ca)?);
    }
    let rows: Vec<_> = ca
        .certificates
        .iter()
        .map(|certificate| {
            [
                certificate.role.clone(),
                certificate.sha256.clone(),
                certificate.not_before.to_string(),
                certificate.not_after.to_string(),
                output.time_or_dash(certificate.since),
            ]
        })
        .collect();
    output.table(["ROLE", "SHA-256", "VALID FROM", "UNTIL", "ROTATED"], &rows)?;
    Ok(output.fields(&[("bundle", ca.bundle.display().to_string())])?)
}
