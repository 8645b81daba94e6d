//! Serves one client, from its first message to the end of its command.

use onecli_model::Clock as _;
use onecli_sys::SystemClock;

use super::admit::{Authorisation, REQUEST_TIME, authorise, receive};
use super::permission::{Authorised, Caller, PermissionQuery, Refused, Rules};
use super::prepare::prepare;
use super::watch::watch;
use crate::error::EXIT_NOT_STARTED;
use crate::protocol::wire::{LauncherMessage, LauncherSocket};

/// Serves the client at the other end of `socket` until its command ends.
pub fn serve(
    socket: &LauncherSocket,
    caller: &Caller,
    rules: &Rules,
    (ask, refused_since): (PermissionQuery<'_>, Refused<'_>),
    authorised: Authorised<'_>,
) {
    let begun = SystemClock.now();
    let refused = |message: String| {
        let _ = socket.send(&LauncherMessage::Failed { code: EXIT_NOT_STARTED, message }, &[]);
    };
    let _ = socket.set_write_timeout(Some(REQUEST_TIME));
    let received = authorise(socket, caller, ask).and_then(|authorisation| {
        let Some((subject, permission)) = authorisation else { return Ok(None) };
        let since = SystemClock.instant();
        authorised();
        let received = receive(socket, caller, subject)?;
        Ok(received.map(|(request, descriptors)| (request, Authorisation { permission, since }, descriptors)))
    });
    let (request, authorisation, descriptors) = match received {
        Ok(Some(received)) => received,
        Ok(None) => return,
        Err(message) => return refused(message),
    };
    let _ = socket.set_write_timeout(None);
    let started = prepare(socket, caller, rules, ask, authorisation, &request, descriptors);
    match started {
        Ok(command) => {
            let summary = || if request.quiet { None } else { refused_since(&request.agent, begun) };
            if let Err(error) = watch(socket, command, &summary) {
                refused(format!("the launcher cannot watch the command: {error}"));
            }
        }
        Err((code, message)) => {
            let _ = socket.send(&LauncherMessage::Failed { code, message }, &[]);
        }
    }
}
