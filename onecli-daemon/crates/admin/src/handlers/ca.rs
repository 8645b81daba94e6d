//! `ca show | export | rotate`.

use onecli_api::Ca;

use crate::context::State;
use crate::error::AdminError;

pub(crate) fn show(state: &State) -> Ca {
    state.handles.host.ca()
}

/// Creates the next authority. Agents trust it immediately; it signs after [`finish`].
pub(crate) async fn rotate(state: &State) -> Result<Ca, AdminError> {
    change(state, false).await
}

/// Lets the next authority sign, and ends trust in the previous one.
pub(crate) async fn finish(state: &State) -> Result<Ca, AdminError> {
    change(state, true).await
}

async fn change(state: &State, finish: bool) -> Result<Ca, AdminError> {
    let change = state.begin_change().await?;
    let host = &state.handles.host;
    let ca = host.rotate_ca(finish).await.map_err(AdminError::Conflict)?;
    let (what, code) =
        if finish { ("ca rotate --finish", "ca_rotation_finished") } else { ("ca rotate", "ca_rotated") };
    let subject = ca.certificates.last().map(|certificate| certificate.sha256.clone()).unwrap_or_default();
    change.in_force(what, &subject).await?;
    host.record(code, &format!("certificate {subject}"));
    Ok(ca)
}
