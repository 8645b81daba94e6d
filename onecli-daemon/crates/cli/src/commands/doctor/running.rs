//! Whether a daemon runs, as seen from `onecli doctor`.

use onecli_config::DaemonLayout;

/// Whether a daemon runs, as seen from this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DaemonPresence {
    /// The daemon responds and reports its locations.
    Yes(DaemonLayout),
    /// No daemon responds.
    No,
    /// The daemon may run, but this process may not query it.
    Unknown,
}
