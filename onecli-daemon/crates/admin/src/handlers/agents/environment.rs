//! `agent env`: the settings with which a container runs as an agent, authenticated by token.

use jiff::SignedDuration;
use onecli_api::{AgentEnv, AgentEnvRequest};
use onecli_model::AgentName;

use super::session_token::{check_enabled, mint, placeholders};
use crate::context::{AdminContext, Lookup};
use crate::error::AdminError;

/// Creates a session token for an environment that runs the agent elsewhere.
pub(crate) async fn start(
    context: &AdminContext,
    name: &AgentName,
    request: AgentEnvRequest,
) -> Result<AgentEnv, AdminError> {
    let host = &context.handles.host;
    let stored = context.load().await?;
    let agent = stored.agent(name)?;
    check_enabled(agent)?;
    let (addresses, tls_addresses) = host.explicit_addresses();
    if addresses.is_empty() && tls_addresses.is_empty() {
        return Err(AdminError::NotReady {
            message: "the explicit proxy does not listen".to_owned(),
            hint: "set an address in listen.explicit in the daemon's configuration".to_owned(),
        });
    }
    let placeholders = placeholders(context, &stored, agent);
    let lifetime = SignedDuration::from_hours(request.hours.into());
    let (token, expires) = mint(context, agent, lifetime, None).await?;
    let cgroup = agent.factors.cgroup.then(|| format!("/{}/{}", context.handles.agents_root, agent.cgroup));
    if cgroup.is_some() {
        host.ensure_cgroup(&agent.cgroup).map_err(AdminError::Host)?;
    }
    Ok(AgentEnv {
        agent: agent.name.clone(),
        addresses,
        tls_addresses,
        token: token.expose().to_owned(),
        expires,
        ca_bundle: host.ca().bundle,
        placeholders,
        cgroup,
    })
}
