//! Agents: identities that may use credentials, and the proofs that they present.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ids::{AgentId, AgentName};

/// A set of proofs of identity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Factors {
    /// The agent presents its token, a session token, or the placeholder of a secret.
    pub token: bool,
    /// The agent runs in its managed cgroup, according to the kernel.
    pub cgroup: bool,
}

impl Factors {
    /// The token alone.
    pub const TOKEN: Factors = Factors { token: true, cgroup: false };
    /// The cgroup alone.
    pub const CGROUP: Factors = Factors { token: false, cgroup: true };
    /// Both.
    pub const BOTH: Factors = Factors { token: true, cgroup: true };

    /// Returns whether this set contains every factor of `required`.
    pub fn satisfies(self, required: Factors) -> bool {
        (self.token || !required.token) && (self.cgroup || !required.cgroup)
    }
}

/// A factor list other than `token`, `cgroup`, `token+cgroup`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a list of factors: use token, cgroup, or token+cgroup")]
pub struct FactorsError(String);

impl FromStr for Factors {
    type Err = FactorsError;

    /// Both `,` and `+` separate factors.
    fn from_str(text: &str) -> Result<Factors, FactorsError> {
        let mut factors = Factors::default();
        for word in text.split([',', '+']) {
            match word.trim() {
                "token" => factors.token = true,
                "cgroup" => factors.cgroup = true,
                _ => {
                    return Err(FactorsError(text.chars().take(80).flat_map(char::escape_default).collect()));
                }
            }
        }
        Ok(factors)
    }
}

impl TryFrom<String> for Factors {
    type Error = FactorsError;

    fn try_from(text: String) -> Result<Factors, FactorsError> {
        text.parse()
    }
}

impl From<Factors> for String {
    fn from(factors: Factors) -> String {
        factors.to_string()
    }
}

impl fmt::Display for Factors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match (self.token, self.cgroup) {
            (true, true) => "token+cgroup",
            (true, false) => "token",
            (false, true) => "cgroup",
            (false, false) => "none",
        })
    }
}

/// The treatment of a host that neither a rule nor a grant names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Egress {
    /// Requests are refused.
    #[default]
    Deny,
    /// Requests are forwarded without a credential.
    Allow,
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Egress::Deny => "deny",
            Egress::Allow => "allow",
        })
    }
}

impl FromStr for Egress {
    type Err = String;

    fn from_str(text: &str) -> Result<Egress, String> {
        match text {
            "deny" => Ok(Egress::Deny),
            "allow" => Ok(Egress::Allow),
            _ => Err("use deny or allow".to_owned()),
        }
    }
}

/// The directory name of an agent's managed cgroup: a direct child of the agents root.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CgroupName(String);

/// The text is not a single directory name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a cgroup name: use the name of a direct child of the agents root, without '/'")]
pub struct CgroupNameError(String);

impl CgroupName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CgroupName {
    type Err = CgroupNameError;

    fn from_str(text: &str) -> Result<CgroupName, CgroupNameError> {
        let ok = (1..=255).contains(&text.len())
            && !matches!(text, "." | "..")
            && !text.starts_with("cgroup.")
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        if ok {
            Ok(CgroupName(text.to_owned()))
        } else {
            Err(CgroupNameError(text.chars().take(80).flat_map(char::escape_default).collect()))
        }
    }
}

impl TryFrom<String> for CgroupName {
    type Error = CgroupNameError;

    fn try_from(text: String) -> Result<CgroupName, CgroupNameError> {
        text.parse()
    }
}

impl From<CgroupName> for String {
    fn from(name: CgroupName) -> String {
        name.0
    }
}

impl fmt::Display for CgroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A named identity that may use credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The identity in the store.
    pub id: AgentId,
    /// The unique name.
    pub name: AgentName,
    /// The proofs that the agent must present before a credential is injected.
    pub factors: Factors,
    /// Its managed cgroup.
    pub cgroup: CgroupName,
    /// The user that its processes run as. `run --user` may name another.
    pub user: Option<String>,
    /// The treatment of hosts that no grant names.
    pub egress: Egress,
    /// A disabled agent is refused everything.
    pub enabled: bool,
    /// Incremented when the token is rotated. Placeholders are derived from it too.
    pub generation: u32,
    /// Whether its commands may change the configuration and the hooks of git repositories in a project.
    pub allow_git_config: bool,
}
