//! What the daemon tells `onecli doctor`.

use onecli_config::DaemonLayout;
use onecli_model::Check;
use serde::{Deserialize, Serialize};

/// `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doctor {
    /// The daemon's version.
    pub version: String,
    /// Where its parts are, for whoever looks at them from outside.
    pub place: DaemonLayout,
    /// What it can tell of itself.
    pub checks: Vec<Check>,
}
