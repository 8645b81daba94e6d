//! The daemon's contribution to `onecli doctor`.

use onecli_config::DaemonLayout;
use onecli_model::Check;
use serde::{Deserialize, Serialize};

/// `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doctor {
    /// The daemon's version.
    pub version: String,
    /// The locations that the CLI checks from outside the daemon.
    pub place: DaemonLayout,
    /// The results of the daemon's own checks.
    pub checks: Vec<Check>,
}
