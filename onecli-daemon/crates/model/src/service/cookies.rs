//! The treatment of cookies that a service sets for a request that carried a credential.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The form in which the cookies and session headers of a response to an injected request reach the agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CookieMode {
    /// As sealed stand-ins, which the daemon opens on later requests that the grant allows.
    #[default]
    Wrap,
    /// Not at all: they are removed.
    Strip,
    /// Unchanged. The agent then has the session itself, even after the grant ends.
    Pass,
}

impl CookieMode {
    /// Every mode.
    const ALL: [CookieMode; 3] = [CookieMode::Wrap, CookieMode::Strip, CookieMode::Pass];

    /// Returns the mode in the form of the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            CookieMode::Wrap => "wrap",
            CookieMode::Strip => "strip",
            CookieMode::Pass => "pass",
        }
    }

    /// Returns the stricter mode. A request with several secrets obeys all of them.
    #[must_use]
    pub fn stricter(self, other: CookieMode) -> CookieMode {
        match (self, other) {
            (CookieMode::Strip, _) | (_, CookieMode::Strip) => CookieMode::Strip,
            (CookieMode::Wrap, _) | (_, CookieMode::Wrap) => CookieMode::Wrap,
            (CookieMode::Pass, CookieMode::Pass) => CookieMode::Pass,
        }
    }
}

impl fmt::Display for CookieMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is not a [`CookieMode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("use wrap, strip or pass")]
pub struct CookieModeError;

impl FromStr for CookieMode {
    type Err = CookieModeError;

    fn from_str(text: &str) -> Result<CookieMode, CookieModeError> {
        CookieMode::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or(CookieModeError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_round_trip_and_the_stricter_one_counts() {
        for mode in CookieMode::ALL {
            assert_eq!(mode.as_str().parse(), Ok(mode));
            assert_eq!(serde_json::to_string(&mode).unwrap(), format!("\"{mode}\""));
            assert_eq!(mode.stricter(CookieMode::Strip), CookieMode::Strip);
            assert_eq!(mode.stricter(CookieMode::Pass), mode);
        }
        assert!("Wrap".parse::<CookieMode>().is_err());
    }
}
