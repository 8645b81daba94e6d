//! The hosts of one secret. A service may have several.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{HostPattern, PatternError};
use crate::host::authority::Host;

/// The maximum number of patterns. More are a mistake, and each costs time in every match.
const MOST: usize = 32;

/// One or more host patterns, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostSet(Vec<HostPattern>);

impl HostSet {
    /// Returns whether one of the patterns contains `host`.
    pub fn matches(&self, host: &Host) -> bool {
        self.0.iter().any(|pattern| pattern.matches(host))
    }

    /// Returns the specificity of the most specific pattern that contains `host`; greater is more specific.
    pub fn specificity(&self, host: &Host) -> Option<(u8, usize)> {
        self.0.iter().filter(|pattern| pattern.matches(host)).map(HostPattern::specificity).max()
    }

    /// Returns the patterns.
    pub fn iter(&self) -> impl Iterator<Item = &HostPattern> {
        self.0.iter()
    }

    /// Returns the patterns that are a single host.
    pub fn exact(&self) -> impl Iterator<Item = &Host> {
        self.0.iter().filter_map(|pattern| match pattern {
            HostPattern::Exact(host) => Some(host),
            _ => None,
        })
    }
}

impl FromIterator<HostPattern> for HostSet {
    /// Takes the first 32, without repetition.
    fn from_iter<I: IntoIterator<Item = HostPattern>>(patterns: I) -> HostSet {
        let mut all: Vec<HostPattern> = Vec::new();
        for pattern in patterns {
            if !all.contains(&pattern) && all.len() < MOST {
                all.push(pattern);
            }
        }
        HostSet(all)
    }
}

impl From<HostPattern> for HostSet {
    fn from(pattern: HostPattern) -> HostSet {
        HostSet(vec![pattern])
    }
}

impl FromStr for HostSet {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<HostSet, PatternError> {
        let patterns: Vec<HostPattern> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        if patterns.len() > MOST {
            return Err(PatternError::TooManyHosts(MOST));
        }
        Ok(patterns.into_iter().collect())
    }
}

impl TryFrom<String> for HostSet {
    type Error = PatternError;

    fn try_from(text: String) -> Result<HostSet, PatternError> {
        text.parse()
    }
}

impl From<HostSet> for String {
    fn from(set: HostSet) -> String {
        set.to_string()
    }
}

impl fmt::Display for HostSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, pattern) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            pattern.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_lists_are_parsed_as_one_set() {
        let set: HostSet = "api.github.com,*.githubusercontent.net,api.github.com".parse().unwrap();
        assert_eq!(set.to_string(), "api.github.com,*.githubusercontent.net");
        let host = |text: &str| text.parse::<Host>().unwrap();
        assert!(set.matches(&host("api.github.com")) && set.matches(&host("raw.githubusercontent.net")));
        assert!(!set.matches(&host("github.com")));
        assert!(
            set.specificity(&host("api.github.com")) > set.specificity(&host("raw.githubusercontent.net"))
        );
        assert_eq!(set.specificity(&host("x.test")), None);
        for bad in ["", "a.test,", ",", "*.com", "a.test,*.co.uk", &["a.test"; 33].join(",")] {
            assert!(bad.parse::<HostSet>().is_err(), "{bad:?}");
        }
    }
}
