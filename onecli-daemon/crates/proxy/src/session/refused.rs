//! Refusals that no client reads.

use std::sync::Arc;

use onecli_model::{Code, Refusal};

use super::connection::Connection;
use super::request_audit::RequestAudit;
use crate::context::gateway::Gateway;

/// Records a refusal that cannot be reported to the client, together with its reason.
pub(crate) async fn refuse_unheard(gateway: &Arc<Gateway>, connection: &Connection, refusal: &Refusal) {
    let Ok(mut audit) = RequestAudit::of_refused(gateway, connection) else { return };
    audit.refuse_by(refusal).await;
}

/// Records a refusal that cannot be reported to the client.
pub(crate) async fn refuse_quietly(gateway: &Arc<Gateway>, connection: &Connection, code: Code) {
    let Ok(mut audit) = RequestAudit::of_refused(gateway, connection) else { return };
    audit.refuse(code).await;
}
