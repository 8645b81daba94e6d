//! `agent env`: the settings with which a container runs as an agent, authenticated by token.

use jiff::{SignedDuration, Timestamp, Unit};
use onecli_api::{AgentEnv, AgentEnvRequest};
use onecli_model::{Agent, AgentName, Token};

use super::error::AdminError;
use super::session;
use super::state::{Find, State};

/// Creates a session token for an environment that runs the agent elsewhere.
pub(super) async fn start(
    state: &State,
    name: &AgentName,
    request: AgentEnvRequest,
) -> Result<AgentEnv, AdminError> {
    let host = &state.handles.host;
    let stored = state.load().await?;
    let agent = stored.agent(name)?;
    session::check_enabled(agent)?;
    let (addresses, tls_addresses) = host.explicit_addresses();
    if addresses.is_empty() && tls_addresses.is_empty() {
        return Err(AdminError::NotReady {
            message: "the explicit proxy does not listen".to_owned(),
            hint: "set an address in listen.explicit in the daemon's configuration".to_owned(),
        });
    }
    let placeholders = session::placeholders(state, &stored, agent);
    let lifetime = SignedDuration::from_hours(request.hours.into());
    let (token, expires) = mint(state, agent, lifetime, None).await?;
    let cgroup = agent.factors.cgroup.then(|| format!("/{}/{}", state.handles.agents_root, agent.cgroup));
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

/// Creates a session token for a command that user `launched_by` starts. The token is valid when this returns.
pub(super) async fn mint(
    state: &State,
    agent: &Agent,
    lifetime: SignedDuration,
    launched_by: Option<u32>,
) -> Result<(Token, Timestamp), AdminError> {
    let handles = &state.handles;
    let change = state.begin_change().await?;
    let now = handles.clock.now();
    let expires = now
        .checked_add(lifetime)
        .and_then(|expires| expires.round(Unit::Second))
        .map_err(|_| AdminError::Internal("the expiry time is out of range"))?;
    let token = Token::generate_session(handles.random.as_ref())?;
    handles.store.prune_sessions(now).await?;
    handles.store.add_session(agent.id, &handles.vault.token_hash(&token), expires, launched_by).await?;
    change.in_force("session", agent.name.as_str()).await?;
    Ok((token, expires))
}
