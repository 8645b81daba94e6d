//! Sessions of `onecli run`: the settings with which one command runs as an agent.

use std::net::SocketAddr;

use jiff::{SignedDuration, Timestamp};
use nix::unistd::User;
use onecli_api::{Caller, Session, SessionRequest, Transparent};
use onecli_model::{Agent, AgentName, Factors};
use onecli_store::StoreContents;

use super::session_token::{check_enabled, mint, placeholders};
use super::users::check_user;
use crate::access::peer::{Peer, Rights, is_runner};
use crate::context::{AdminContext, Lookup};
use crate::error::AdminError;
use crate::handlers::recipes;

/// The lifetime of a session token.
const LIFETIME: SignedDuration = SignedDuration::from_hours(24);

pub(crate) async fn start(
    context: &AdminContext,
    uid: u32,
    name: &AgentName,
    request: SessionRequest,
) -> Result<Session, AdminError> {
    let host = &context.handles.host;
    let stored = context.load().await?;
    if let Some(caller) = &request.caller {
        if uid != 0 {
            return Err(AdminError::NotPermitted {
                message: "only the launcher may start an agent for another user".to_owned(),
                hint: String::new(),
            });
        }
        check_caller(context, &stored, name, caller, request.user.as_deref()).await?;
    }
    let launched_by = request.caller.as_ref().map_or(uid, |caller| caller.uid);
    let agent = stored.agent(name)?;
    check_enabled(agent)?;
    let user = request.user.or_else(|| agent.user.clone()).ok_or_else(|| AdminError::NotReady {
        message: format!("agent '{name}' has no user to run as"),
        hint: format!("name one: 'onecli run --agent {name} --user USER ...'"),
    })?;
    check_user(context, &user, Some(agent.id), &stored).await?;

    let (cgroup, proxy) = match host.transparent() {
        Transparent::Available => {
            host.check_transparent().map_err(AdminError::Host)?;
            let cgroup = host.ensure_cgroup(&agent.cgroup).map_err(AdminError::Host)?;
            (Some(cgroup.path), None)
        }
        Transparent::Off { reason, fix } => {
            let address = require_explicit_proxy(agent, host.explicit_address(), &reason, &fix)?;
            (None, Some(proxy_session(context, agent, address, launched_by).await?))
        }
    };

    let placeholders = placeholders(context, &stored, agent);
    let (proxy, expires) = proxy.unzip();
    let lacks_rules = match request.recipe {
        Some(recipe) => recipes::is_refused(context, &agent.name, recipe).await?,
        None => false,
    };
    Ok(Session {
        agent: agent.name.clone(),
        id: agent.id,
        cgroup,
        user,
        ca_bundle: host.ca().bundle,
        placeholders,
        proxy,
        expires,
        hidden: host.private_dirs(),
        allow_git_config: agent.allow_git_config,
        lacks_rules,
    })
}

/// Checks that `caller` may start commands as the agent. Administrators and the agent's runners may. A caller other
/// than root may run commands only as the agent's own user or as themselves.
async fn check_caller(
    context: &AdminContext,
    stored: &StoreContents,
    name: &AgentName,
    caller: &Caller,
    user: Option<&str>,
) -> Result<(), AdminError> {
    let agent = stored.agent(name).ok();
    let runners = match agent {
        Some(agent) => context.handles.store.runners(agent.id).await?,
        None => Vec::new(),
    };
    let (caller, agents_root) = (caller.clone(), context.handles.agents_root.clone());
    let own_user = agent.and_then(|agent| agent.user.clone());
    let (user, name) = (user.map(str::to_owned), name.clone());
    let checked = tokio::task::spawn_blocking(move || {
        let Caller { uid, gid, cgroup } = caller;
        let peer = Peer::from_reported_ids(uid, gid, cgroup);
        peer.check_not_managed(&agents_root)?;
        // A missing agent gets the same refusal: a user who may run no agents must not learn which ones exist.
        if !matches!(peer.rights(&agents_root), Ok(Rights::Root | Rights::Write))
            && !is_runner(uid, gid, &runners)
        {
            return Err(AdminError::NotPermitted {
                message: format!("uid {uid} may not run agent '{name}'"),
                hint: format!("an administrator can allow it: onecli agent allow-run {name} USER|@GROUP"),
            });
        }
        let may_become = |user: &str| {
            own_user.as_deref() == Some(user)
                || matches!(User::from_name(user), Ok(Some(entry)) if entry.uid.as_raw() == uid)
        };
        match user {
            Some(user) if uid != 0 && !may_become(&user) => Err(AdminError::NotPermitted {
                message: format!("uid {uid} may not run agent '{name}' as user '{user}'"),
                hint: "omit --user; --scope runs it as yourself".to_owned(),
            }),
            _ => Ok(()),
        }
    });
    checked.await.map_err(|_| AdminError::Internal("the user lookup failed"))?
}

/// Checks the explicit proxy. Without the redirect, an agent can present only its token, so the explicit proxy is
/// required.
fn require_explicit_proxy(
    agent: &Agent,
    explicit: Option<SocketAddr>,
    reason: &str,
    fix: &str,
) -> Result<SocketAddr, AdminError> {
    if !Factors::TOKEN.satisfies(agent.factors) {
        return Err(AdminError::NotReady {
            message: format!(
                "agent '{}' requires {}, but connections are not redirected on this host: {reason}",
                agent.name, agent.factors
            ),
            hint: format!(
                "{fix}; or use the explicit proxy, with an agent that was added with '--factors token'"
            ),
        });
    }
    explicit.ok_or_else(|| AdminError::NotReady {
        message: format!("connections are not redirected ({reason}), and the explicit proxy does not listen"),
        hint: format!("{fix}; or set an address in listen.explicit in the daemon's configuration"),
    })
}

/// Creates a session token, which is valid when this returns.
async fn proxy_session(
    context: &AdminContext,
    agent: &Agent,
    address: SocketAddr,
    launched_by: u32,
) -> Result<(String, Timestamp), AdminError> {
    let (token, expires) = mint(context, agent, LIFETIME, Some(launched_by)).await?;
    // The user name is only for readers; the proxy accepts any.
    Ok((format!("http://{}:{}@{address}", agent.name, token.expose()), expires))
}
