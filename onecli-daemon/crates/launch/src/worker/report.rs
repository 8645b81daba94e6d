//! Reports to the client, or to the log if it is gone.

use std::io::{self, Write as _};

use crate::protocol::wire::{LauncherMessage, LauncherSocket};

/// Reports files that the agent should not have left or changed. They go to the launcher's log if the client is gone.
pub(super) fn report(client: Option<&LauncherSocket>, lines: impl IntoIterator<Item = String>) {
    for line in lines {
        let sent =
            client.is_some_and(|socket| socket.send(&LauncherMessage::Notice(line.clone()), &[]).is_ok());
        if !sent {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}
