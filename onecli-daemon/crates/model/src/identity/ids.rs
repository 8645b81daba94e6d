//! Identifiers and names.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::random::{Random, RandomError};

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map($name)
            }
        }
    };
}

uuid_id!(
    /// An agent's identity in the store (UUID version 7, RFC 9562). Names may be reused, ids never.
    AgentId
);
impl AgentId {
    /// The id for unidentified agents.
    pub const NOBODY: AgentId = AgentId(Uuid::nil());

    /// Returns the time at which the agent was added, to the millisecond. `None` for an id of another version.
    pub fn created(self) -> Option<Timestamp> {
        let (seconds, nanoseconds) = self.0.get_timestamp()?.to_unix();
        Timestamp::new(seconds.try_into().ok()?, nanoseconds.try_into().ok()?).ok()
    }
}
uuid_id!(
    /// A secret's identity in the store (UUID version 7, RFC 9562). Names may be reused, ids never.
    SecretId
);
uuid_id!(
    /// One request, from its arrival to its outcome (UUID version 7, RFC 9562).
    RequestId
);
uuid_id!(
    /// One audit log (UUID version 7, RFC 9562): that of a host until its files are lost. A store may contain rows of
    /// several.
    LogId
);

impl RequestId {
    /// Generates an id, ordered by time.
    ///
    /// # Errors
    /// The kernel has no random bytes.
    pub fn generate(now: Timestamp, random: &dyn Random) -> Result<RequestId, RandomError> {
        new_uuid(now, random).map(RequestId)
    }
}

impl LogId {
    /// Generates an id, ordered by time.
    ///
    /// # Errors
    /// The kernel has no random bytes.
    pub fn generate(now: Timestamp, random: &dyn Random) -> Result<LogId, RandomError> {
        new_uuid(now, random).map(LogId)
    }
}

/// Generates a UUID version 7 (RFC 9562 section 5.7), ordered by time to the millisecond.
///
/// # Errors
/// The kernel has no random bytes.
pub fn new_uuid(now: Timestamp, random: &dyn Random) -> Result<Uuid, RandomError> {
    let mut bits = [0; 10];
    random.fill(&mut bits)?;
    let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or(0);
    Ok(uuid::Builder::from_unix_timestamp_millis(milliseconds, &bits).into_uuid())
}

/// A refused name, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{name}' is not a valid name: use 1 to 63 of a-z, 0-9, '-', '_' and '.', starting with a letter or digit"
)]
pub struct NameError {
    name: String,
}

fn check_name(name: &str) -> Result<String, NameError> {
    let bytes = name.as_bytes();
    let first_ok = bytes.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest_ok =
        bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'));
    if first_ok && rest_ok && bytes.len() <= 63 {
        Ok(name.to_owned())
    } else {
        Err(NameError { name: name.chars().take(80).flat_map(char::escape_default).collect() })
    }
}

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check_name(text).map($name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                check_name(&text).map($name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

checked_name!(
    /// An agent's name: 1 to 63 of `a-z 0-9 - _ .`, starting with a letter or digit; unique.
    AgentName
);
checked_name!(
    /// A secret's name: 1 to 63 of `a-z 0-9 - _ .`, starting with a letter or digit; unique.
    SecretName
);
