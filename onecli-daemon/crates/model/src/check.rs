//! One line of `onecli doctor`.

use serde::{Deserialize, Serialize};

/// One thing that was looked at, how it is, and what to do about it.
///
/// Whoever knows a part of the system makes its checks; the command puts them together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at, always by the same name.
    pub name: String,
    /// How it is.
    pub status: CheckStatus,
    /// What was found.
    pub detail: String,
    /// What to do about it; `None` where nothing is to be done.
    pub fix: Option<String>,
}

/// How bad it is, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could, or could not be looked at.
    Warn,
    /// It does not work.
    Fail,
}

impl Check {
    /// As it should be.
    pub fn ok(name: impl Into<String>, detail: impl Into<String>) -> Check {
        Check { name: name.into(), status: CheckStatus::Ok, detail: detail.into(), fix: None }
    }

    /// It works, or may, but somebody should look at it.
    pub fn warn(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Check {
        let fix = Some(fix.into());
        Check { name: name.into(), status: CheckStatus::Warn, detail: detail.into(), fix }
    }

    /// It does not work.
    pub fn fail(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Check {
        Check { status: CheckStatus::Fail, ..Check::warn(name, detail, fix) }
    }
}
