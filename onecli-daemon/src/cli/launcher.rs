//! `onecli launcher`: starts agents for users who are not root. Run by the service manager.

use super::args::LauncherArgs;
use super::client::Client;
use super::complain;
use super::user::agents_dir;
use crate::admin::api::{self, Session, SessionRequest, routes};
use crate::launch::{self, AgentEnvironment, Caller, Permission, Rules, Subject, Wire, worker};
use crate::model::AgentName;

/// Serves until it is ended.
pub(super) fn run(client: &Client, args: LauncherArgs) -> u8 {
    let path = args.listen.unwrap_or_else(|| launch::beside(client.socket()));
    let rules = Rules { users: args.users, agents: agents_dir() };
    let listener = match launch::listener(&path) {
        Ok(listener) => listener,
        Err(error) => {
            complain(&error);
            return 1;
        }
    };
    for line in launch::clean_up(&rules.agents) {
        complain(&line);
    }
    let work = |wire: &Wire, caller: &Caller, authorised: launch::Authorised<'_>| {
        work(client, &rules, wire, caller, authorised);
    };
    match launch::serve(&listener, &work) {
        Ok(never) => match never {},
        Err(error) => {
            complain(&format!("the launcher's socket is broken: {error}"));
            1
        }
    }
}

/// Serves one client.
pub(super) fn work(
    client: &Client,
    rules: &Rules,
    wire: &Wire,
    caller: &Caller,
    authorised: launch::Authorised<'_>,
) {
    worker::serve(wire, caller, rules, &|subject, caller| ask(client, subject, caller), authorised);
}

/// The daemon's word on whether `caller` may.
fn ask(client: &Client, subject: &Subject, caller: &Caller) -> Result<Permission, String> {
    let agent: AgentName = subject.agent.parse().map_err(|error| format!("{error}"))?;
    let Caller { uid, gid, cgroup } = caller.clone();
    let wanted =
        SessionRequest { user: subject.user.clone(), caller: Some(api::Caller { uid, gid, cgroup }) };
    let session: Session =
        client.post(&routes::agent_action(&agent, "session"), &wanted).map_err(|error| error.to_string())?;
    Ok(permission(session))
}

fn permission(session: Session) -> Permission {
    let mut notes = Vec::new();
    if session.cgroup.is_none() {
        notes.push(format!(
            "connections are not redirected on this host; agent '{}' is guided by proxy variables only",
            session.agent
        ));
    }
    if session.allow_git_config {
        notes.push(format!(
            "agent '{}' may change the configuration and hooks of git repositories; git runs what they name as you",
            session.agent
        ));
    }
    Permission {
        agent: session.id,
        user: session.user,
        cgroup: session.cgroup,
        environment: AgentEnvironment {
            ca_bundle: session.ca_bundle,
            placeholders: session.placeholders,
            own_view: false,
            proxy: session.proxy,
        },
        hidden: session.hidden,
        allow_git_config: session.allow_git_config,
        notes,
    }
}
