//! Users and groups that may start commands as an agent.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A user or a group of this host, by name: `alice`, `@devs`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Runner {
    /// One user.
    User(String),
    /// Every member of a group.
    Group(String),
}

/// The text names neither a user nor a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a user or group: use a user such as alice, or a group such as @devs")]
pub struct RunnerError(String);

impl FromStr for Runner {
    type Err = RunnerError;

    /// Accepts names as useradd(8) does, with upper case and dots in addition. Numbers are ids and are not accepted.
    fn from_str(text: &str) -> Result<Runner, RunnerError> {
        let (name, group) = text.strip_prefix('@').map_or((text, false), |name| (name, true));
        let first_ok = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        let rest_ok =
            name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'$'));
        if !first_ok || !rest_ok || name.len() > 64 {
            return Err(RunnerError(text.chars().take(80).flat_map(char::escape_default).collect()));
        }
        let name = name.to_owned();
        Ok(if group { Runner::Group(name) } else { Runner::User(name) })
    }
}

impl fmt::Display for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Runner::User(name) => write!(f, "{name}"),
            Runner::Group(name) => write!(f, "@{name}"),
        }
    }
}

impl TryFrom<String> for Runner {
    type Error = RunnerError;

    fn try_from(text: String) -> Result<Runner, RunnerError> {
        text.parse()
    }
}

impl From<Runner> for String {
    fn from(runner: Runner) -> String {
        runner.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_by_name() {
        let user = |name: &str| Ok(Runner::User(name.to_owned()));
        for (text, expected) in [
            ("alice", user("alice")),
            ("a.b-c_D9$", user("a.b-c_D9$")),
            ("@devs", Ok(Runner::Group("devs".to_owned()))),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
            assert_eq!(text.parse::<Runner>().unwrap().to_string(), text);
        }
        for text in ["", "@", "@@x", "0", "1000", "-x", "a/b", "a b", "a\n", "a:b", &"x".repeat(65)] {
            assert!(text.parse::<Runner>().is_err(), "{text:?}");
        }
    }
}
