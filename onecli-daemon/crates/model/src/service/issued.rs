//! Credentials that a service issues, described by their location in responses and by their form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The maximum length of a prefix and of the minimum length that a template may name, in bytes. The number of
/// response bytes that are held back depends on it.
pub const MAX_SHAPE: usize = 64;

/// One kind of credential that a service issues.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuedShape {
    /// The page, or the description of the API with its version.
    pub source: String,
    /// The date of reading: `YYYY-MM-DD`.
    pub date: String,
    /// Members of JSON objects, XML elements and form fields that contain it, in any letter case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// Header fields that contain it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Its possible prefixes. Without one it is recognized by its member alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// The minimum number of characters after the prefix.
    pub length: usize,
}

impl IssuedShape {
    /// Returns whether the description can be searched for and respects [`MAX_SHAPE`].
    pub fn is_bounded(&self) -> bool {
        let is_told = !self.members.is_empty() || !self.headers.is_empty() || !self.prefixes.is_empty();
        is_told
            && (8..=MAX_SHAPE).contains(&self.length)
            && self.prefixes.iter().all(|prefix| (1..=MAX_SHAPE).contains(&prefix.len()))
    }
}

/// The treatment of credentials that a service issues in a response to a request with the secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskIssued {
    /// They pass, with an alert.
    None,
    /// They are masked in the members that the template lists. Elsewhere they pass, with an alert.
    #[default]
    Listed,
    /// They are masked wherever their prefix identifies them.
    All,
}

impl MaskIssued {
    /// Returns whether this is the default.
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
            .ok_or("use none, listed or all")
    }
}
