//! Credentials that a service issues, by where they stand in its responses and by how they look.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest prefix and least length that a template may name, in bytes. What is held back of a response depends on it.
pub const MAX_SHAPE: usize = 64;

/// One kind of credential that a service issues.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuedShape {
    /// The page, or the description of the API with its version.
    pub source: String,
    /// When it was read: `YYYY-MM-DD`.
    pub date: String,
    /// Members of JSON objects, XML elements and form fields that hold it, in any letter case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// Header fields that hold it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// What it begins with. Without one it is known by its member alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// So many characters it has behind the prefix, at least.
    pub length: usize,
}

impl IssuedShape {
    /// Is it something to look for, of at most [`MAX_SHAPE`]?
    pub fn is_bounded(&self) -> bool {
        let is_told = !self.members.is_empty() || !self.headers.is_empty() || !self.prefixes.is_empty();
        is_told
            && (8..=MAX_SHAPE).contains(&self.length)
            && self.prefixes.iter().all(|prefix| (1..=MAX_SHAPE).contains(&prefix.len()))
    }
}

/// What happens to credentials that a service issues in a response to a request with the secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskIssued {
    /// They pass, with an alert.
    None,
    /// Where the template lists them they are masked; elsewhere they pass, with an alert.
    #[default]
    Listed,
    /// They are masked wherever their prefix tells them.
    All,
}

impl MaskIssued {
    /// Is it what holds where nothing is given?
    pub fn is_default(&self) -> bool {
        *self == MaskIssued::default()
    }
}

impl fmt::Display for MaskIssued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            MaskIssued::None => "none",
            MaskIssued::Listed => "listed",
            MaskIssued::All => "all",
        })
    }
}

impl FromStr for MaskIssued {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<MaskIssued, Self::Err> {
        [MaskIssued::None, MaskIssued::Listed, MaskIssued::All]
            .into_iter()
            .find(|mode| mode.to_string() == text)
            .ok_or("give none, listed or all")
    }
}
