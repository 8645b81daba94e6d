//! `vault status`, and the end of agents' leases.

use std::sync::Arc;
use std::time::Duration;

use onecli_api::VaultView;
use onecli_model::AgentId;
use onecli_vault::sources::hashicorp::HashiCorp;

use crate::context::AdminContext;
use crate::error::AdminError;

/// A lease may still be in the process of being issued for a request that the policy allowed just before.
const LATE_LEASE_PERIOD: Duration = Duration::from_mins(1);

pub(crate) fn server(context: &AdminContext) -> Result<&Arc<HashiCorp>, AdminError> {
    context.handles.server.as_ref().ok_or_else(|| AdminError::NotReady {
        message: "no vault server is configured".to_owned(),
        hint: "add [backend.vault] to the daemon's configuration, and restart it".to_owned(),
    })
}

pub(crate) async fn status(context: &AdminContext) -> Result<VaultView, AdminError> {
    let status = server(context)?.status().await;
    Ok(VaultView {
        address: status.address,
        namespace: status.namespace,
        method: status.method.to_owned(),
        version: status.version,
        sealed: status.sealed,
        standby: status.standby,
        token_ttl_s: status.token_ttl.map(|ttl| ttl.as_secs()),
        leases: status.leases,
        fault: status.fault,
    })
}

/// Revokes an agent's leases in the background, because the server may be slow. The next start revokes leases that a
/// crash leaves behind.
pub(super) fn end_leases(context: &AdminContext, agent: AgentId) {
    let Some(server) = context.handles.server.clone() else { return };
    tokio::spawn(async move {
        server.end_agent(agent).await;
        tokio::time::sleep(LATE_LEASE_PERIOD).await;
        server.end_agent(agent).await;
    });
}
