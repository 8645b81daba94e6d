//! The users that agents run as.

use nix::unistd::User;
use onecli_model::{Agent, AgentId};
use onecli_store::StoreContents;

use crate::context::AdminContext;
use crate::error::AdminError;

pub(crate) fn agents(stored: &StoreContents) -> impl Iterator<Item = &Agent> {
    stored.agents.iter().map(|stored| &stored.agent)
}

/// Checks that a user exists, is neither root nor one of OneCLI's own users, and belongs to no other agent. Processes
/// with the same uid can read each other's memory.
pub(super) async fn check_user(
    context: &AdminContext,
    user: &str,
    own: Option<AgentId>,
    stored: &StoreContents,
) -> Result<(), AdminError> {
    let others = agents(stored)
        .filter(|agent| Some(agent.id) != own)
        .filter_map(|agent| Some((agent.name.clone(), agent.user.clone()?)))
        .collect::<Vec<_>>();
    let (user, ours) = (user.to_owned(), context.handles.own_uids.clone());
    // The user database may be on another host.
    let checked = tokio::task::spawn_blocking(move || {
        let entry = lookup(&user)?;
        if ours.contains(&entry.uid.as_raw()) {
            return Err(AdminError::Invalid(format!(
                "the user '{user}' belongs to OneCLI: an agent that runs as this user could read keys and credentials"
            )));
        }
        for (agent, other) in others {
            if other == user || lookup(&other).is_ok_and(|other| other.uid == entry.uid) {
                return Err(AdminError::Exists {
                    message: format!("the user '{user}' belongs to agent '{agent}'"),
                    hint: "processes of one user can read each other's memory: use a separate user for each agent"
                        .to_owned(),
                });
            }
        }
        Ok(())
    });
    checked.await.map_err(|_| AdminError::Internal("the user lookup failed"))?
}

fn lookup(user: &str) -> Result<User, AdminError> {
    let mut entry = User::from_name(user);
    if let (Ok(None), Ok(uid)) = (&entry, user.parse()) {
        entry = User::from_uid(nix::unistd::Uid::from_raw(uid));
    }
    match entry {
        Ok(Some(entry)) if entry.uid.is_root() || entry.gid.as_raw() == 0 => Err(AdminError::Invalid(
            format!("an agent never runs as root ('{user}' has uid or gid 0): name another user"),
        )),
        Ok(Some(entry)) => Ok(entry),
        Ok(None) => Err(AdminError::Invalid(format!(
            "there is no user '{user}' on this host: create it with 'useradd --system {user}'"
        ))),
        Err(error) => Err(AdminError::Host(format!("cannot look up user '{user}': {error}"))),
    }
}
