//! Reports to the client, or to the log if it is gone.

use std::io::{self, Write as _};

use crate::protocol::wire::{Event, Wire};

/// Reports files that the agent should not have left or changed. They go to the launcher's log if the client is gone.
pub(super) fn report(client: Option<&Wire>, lines: impl IntoIterator<Item = String>) {
    for line in lines {
        let sent = client.is_some_and(|wire| wire.send(&Event::Notice(line.clone()), &[]).is_ok());
        if !sent {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}
