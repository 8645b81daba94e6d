//! Confirmation before values that do not look like the expected credential are stored.

use onecli_api::VALUE_DOUBTFUL;

use super::CliError;
use super::client::ClientError;
use super::confirm::confirm;
use super::output::Output;

/// Sends a value. If the daemon doubts it, asks the user and sends it again with `force`.
///
/// # Errors
/// The value was not stored.
pub(super) fn ask<T>(
    output: &mut Output,
    mut send: impl FnMut(bool) -> Result<T, ClientError>,
) -> Result<T, CliError> {
    match send(false) {
        Err(ClientError::Refused(detail)) if detail.code == VALUE_DOUBTFUL => {
            output.warning(&detail.message)?;
            confirm("Store this value anyway?", "--force", false)?;
            Ok(send(true)?)
        }
        answer => Ok(answer?),
    }
}
