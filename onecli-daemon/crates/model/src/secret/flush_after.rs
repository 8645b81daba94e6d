//! The time for which bytes of a response that may be the beginning of a secret's value wait.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The minimum. Shorter pauses occur in any network.
const SHORTEST: Duration = Duration::from_millis(10);
/// The maximum. A longer time has the same effect as no limit.
const LONGEST: Duration = Duration::from_hours(1);

/// The silence of an upstream after which held bytes are released: 10 ms to 1 h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FlushAfter(Duration);

/// The text is not such a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a pause from 10ms to 1h: write, for example, 250ms or 2s")]
pub struct FlushAfterError(String);

impl FlushAfter {
    /// Returns the duration.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for FlushAfter {
    type Err = FlushAfterError;

    fn from_str(text: &str) -> Result<FlushAfter, FlushAfterError> {
        let duration = humantime::parse_duration(text).ok();
        let duration = duration.filter(|duration| (SHORTEST..=LONGEST).contains(duration));
        let short = || text.chars().take(80).flat_map(char::escape_default).collect();
        duration.map(FlushAfter).ok_or_else(|| FlushAfterError(short()))
    }
}

impl fmt::Display for FlushAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl TryFrom<String> for FlushAfter {
    type Error = FlushAfterError;

    fn try_from(text: String) -> Result<FlushAfter, FlushAfterError> {
        text.parse()
    }
}

impl From<FlushAfter> for String {
    fn from(pause: FlushAfter) -> String {
        pause.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_limited_and_round_trip() {
        for (text, written) in [("10ms", "10ms"), ("250 ms", "250ms"), ("1500ms", "1s 500ms"), ("1h", "1h")] {
            let pause: FlushAfter = text.parse().unwrap();
            assert_eq!(pause.to_string(), written);
            assert_eq!(written.parse(), Ok(pause));
        }
        for bad in ["", "0s", "9ms", "61m", "250", "-1s"] {
            assert!(bad.parse::<FlushAfter>().is_err(), "{bad}");
        }
    }
}
