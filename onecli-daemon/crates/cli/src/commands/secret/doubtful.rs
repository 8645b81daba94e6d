//! Confirmation before values that do not look like the expected credential are stored.

use onecli_api::VALUE_DOUBTFUL;

use crate::client::ClientError;
use crate::error::CliError;
use crate::input::confirm::confirm;
use crate::output::Output;

/// Sends a value. If the daemon doubts it, asks the user and sends it again with `force`.
///
/// # Errors
/// The value was not stored.
pub(crate) fn send<T>(
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
