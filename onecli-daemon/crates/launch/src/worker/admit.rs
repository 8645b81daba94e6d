//! Decides whether a client may have the command that it requests.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};
use onecli_model::Clock as _;
use onecli_sys::SystemClock;

use super::permission::{Caller, Permission, PermissionQuery};
use crate::process::deadline::Deadline;
use crate::protocol::wire::{LaunchIdentity, LauncherMessage, LauncherSocket, Request};

/// An older permission is requested again before the command starts.
const PERMITTED_FOR: Duration = Duration::from_millis(500);
/// Time for a client to send its subject, and after its authorisation for its whole request.
pub(super) const REQUEST_TIME: Duration = Duration::from_secs(10);

/// A permission of the daemon, and the time at which it was given.
pub(super) struct Authorisation {
    pub(super) permission: Permission,
    pub(super) since: Instant,
}

impl Authorisation {
    /// Returns the current permission. A caller may take minutes to send its request or to answer a question. Meanwhile
    /// an administrator may revoke the permission or detach the kernel programs.
    pub(super) fn renewed(
        self,
        request: &Request,
        caller: &Caller,
        ask: PermissionQuery<'_>,
    ) -> Result<Permission, String> {
        if SystemClock.instant().duration_since(self.since) < PERMITTED_FOR {
            return Ok(self.permission);
        }
        let permission = ask(&request.subject(), caller)?;
        let is_same = (permission.agent, &permission.user) == (self.permission.agent, &self.permission.user);
        is_same.then_some(permission).ok_or_else(|| "the agent was changed: try again".to_owned())
    }
}

/// Reads the identity for the command, and asks whether the caller may use it. Returns `None` if the client has closed
/// the connection.
pub(super) fn authorise(
    socket: &LauncherSocket,
    caller: &Caller,
    ask: PermissionQuery<'_>,
) -> Result<Option<(LaunchIdentity, Permission)>, String> {
    let unread = |error: io::Error| format!("the launcher cannot read agent and user: {error}");
    let deadline = Deadline::after(REQUEST_TIME).map_err(unread)?;
    let Some(subject) = socket.receive_subject(&deadline).map_err(unread)? else { return Ok(None) };
    let named = named_user(subject.clone(), caller)?;
    ask(&named, caller).map(|permission| Some((subject, permission)))
}

/// Receives the request of an authorised caller. Returns `None` if the client has closed the connection.
pub(super) fn receive(
    socket: &LauncherSocket,
    caller: &Caller,
    subject: LaunchIdentity,
) -> Result<Option<(Request, Vec<OwnedFd>)>, String> {
    let unread = |error: io::Error| format!("the launcher cannot read the request: {error}");
    socket.send(&LauncherMessage::Permitted, &[]).map_err(unread)?;
    let deadline = Deadline::after(REQUEST_TIME).map_err(unread)?;
    let Some((mut request, descriptors)) = socket.receive_before::<Request>(&deadline).map_err(unread)?
    else {
        return Ok(None);
    };
    if request.subject() != subject {
        return Err("the request is for another agent or user than the one that was authorised".to_owned());
    }
    request.user = named_user(subject, caller)?.user;
    Ok(Some((request, descriptors)))
}

/// With `--scope` the user is the caller.
fn named_user(mut subject: LaunchIdentity, caller: &Caller) -> Result<LaunchIdentity, String> {
    if subject.scope {
        let entry = User::from_uid(Uid::from_raw(caller.uid)).ok().flatten();
        subject.user = Some(entry.map_or_else(|| caller.uid.to_string(), |entry| entry.name));
        if caller.uid == 0 {
            return Err("--scope runs as you, and an agent never runs as root: use another user".to_owned());
        }
    }
    Ok(subject)
}
