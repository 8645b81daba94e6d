//! Sends an authorized request to its upstream.

use std::sync::Arc;

use onecli_model::Refusal;

use super::authorized::AuthorizedRequest;
use super::outbound::{Outbound, Sent};
use crate::http::context::connection::HttpConnection;
use crate::http::context::handles::Http;
use crate::session::request_audit::RequestAudit;

/// Sends a request until its response begins, and sends it again if that is safe.
///
/// # Errors
/// A [`Refusal`]: there was no response.
pub(crate) async fn send(
    http: &Arc<Http>,
    connection: &Arc<HttpConnection>,
    allowed: AuthorizedRequest,
    audit: &mut RequestAudit,
) -> Result<Sent, Refusal> {
    let mut outbound = Outbound::prepare(http, connection, allowed, audit).await?;
    loop {
        let (mut attempt, request) = outbound.attempt(audit).await?;
        match attempt.send(&outbound, request).await? {
            Ok(response) if outbound.renews(&attempt.used, response.status()).await => audit.retry(),
            Ok(response) => return outbound.sent(attempt, response, audit),
            Err(failure) => outbound.recover(attempt, &failure, audit).await?,
        }
    }
}
