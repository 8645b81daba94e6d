//! `ca show | export | rotate`.

use onecli_api::Ca;

use crate::context::AdminContext;
use crate::error::AdminError;

pub(crate) fn show(context: &AdminContext) -> Ca {
    context.handles.host.ca()
}

/// Creates the next authority. Agents trust it immediately; it signs after [`finish`].
pub(crate) async fn rotate(context: &AdminContext) -> Result<Ca, AdminError> {
    change(context, false).await
}

/// Lets the next authority sign, and ends trust in the previous one.
pub(crate) async fn finish(context: &AdminContext) -> Result<Ca, AdminError> {
    change(context, true).await
}

async fn change(context: &AdminContext, finish: bool) -> Result<Ca, AdminError> {
    let change = context.begin_change().await?;
    let host = &context.handles.host;
    let ca = host.rotate_ca(finish).await.map_err(AdminError::Conflict)?;
    let (what, code) =
        if finish { ("ca rotate --finish", "ca_rotation_finished") } else { ("ca rotate", "ca_rotated") };
    let subject = ca.certificates.last().map(|certificate| certificate.sha256.clone()).unwrap_or_default();
    change.apply(what, &subject).await?;
    host.record(code, &format!("certificate {subject}"));
    Ok(ca)
}
