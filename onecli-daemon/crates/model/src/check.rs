//! One line of `onecli doctor`.

use serde::{Deserialize, Serialize};

/// The result of one check, with the next step.
///
/// Each part of the system provides its own checks, and the command combines them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The stable name of the check.
    pub name: String,
    /// The status.
    pub status: CheckStatus,
    /// The finding.
    pub detail: String,
    /// The next step; `None` if none is needed.
    pub fix: Option<String>,
}

/// The severity, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// No problem was found.
    Ok,
    /// The part works with limitations, or could not be checked.
    Warn,
    /// The part does not work.
    Fail,
}

impl Check {
    /// Returns a check without a problem.
    pub fn ok(name: impl Into<String>, detail: impl Into<String>) -> Check {
        Check { name: name.into(), status: CheckStatus::Ok, detail: detail.into(), fix: None }
    }

    /// Returns a check of a part that works, or may, but that an administrator should look at.
    pub fn warn(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Check {
        let fix = Some(fix.into());
        Check { name: name.into(), status: CheckStatus::Warn, detail: detail.into(), fix }
    }

    /// Returns a check of a part that does not work.
    pub fn fail(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Check {
        Check { status: CheckStatus::Fail, ..Check::warn(name, detail, fix) }
    }
}
