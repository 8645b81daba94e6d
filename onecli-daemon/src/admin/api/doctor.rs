//! What the daemon tells `onecli doctor`.

use serde::{Deserialize, Serialize};

use crate::config::DaemonLayout;
use crate::model::Check;

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
