//! The location of a credential's value in an external vault.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The maximum length of a reference, in bytes.
const LONGEST: usize = 1024;

/// A field of a secret in HashiCorp Vault or OpenBao: `PATH#FIELD`, or `PATH?version=N#FIELD` for one version of KV
/// version 2. The path has the format of `vault kv get`: mount first, without the `data/` of the API.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VaultReference {
    path: String,
    version: Option<u32>,
    field: String,
}

/// The reason why a reference was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultReferenceError {
    /// The text is not `PATH#FIELD`.
    #[error("'{0}' is not PATH#FIELD: write it as in 'secret/openai#api_key'")]
    Form(String),
    /// The path is empty, relative or contains other characters than permitted.
    #[error(
        "'{0}' is not a path in a vault: write the mount first, then segments separated by '/', none of them empty, '.' or '..'"
    )]
    Path(String),
    /// The text after `?` is not `version=N`.
    #[error("'{0}' is not a version: write 'version=N' after '?', with N from 1")]
    Version(String),
}

impl VaultReference {
    /// Returns the path, without a leading or trailing `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the pinned version of KV version 2.
    pub fn version(&self) -> Option<u32> {
        self.version
    }

    /// Returns the field's name.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Parses a path without version and field, with the checks of a reference.
    ///
    /// # Errors
    /// [`VaultReferenceError::Path`].
    pub fn parse_path(text: &str) -> Result<String, VaultReferenceError> {
        let path = text.strip_prefix('/').unwrap_or(text);
        let path = path.strip_suffix('/').unwrap_or(path);
        // The result is sent unchanged in a request line, so it must not contain characters that could end or change
        // the line.
        let plain = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~@:+=, ".contains(&b))
        };
        if path.len() > LONGEST || !path.contains('/') || !path.split('/').all(plain) {
            return Err(VaultReferenceError::Path(shown(text)));
        }
        Ok(path.to_owned())
    }
}

impl FromStr for VaultReference {
    type Err = VaultReferenceError;

    fn from_str(text: &str) -> Result<VaultReference, VaultReferenceError> {
        let (place, field) = text.split_once('#').ok_or_else(|| VaultReferenceError::Form(shown(text)))?;
        if field.is_empty() || field.len() > 256 || field.chars().any(char::is_control) {
            return Err(VaultReferenceError::Form(shown(text)));
        }
        let (path, version) = match place.split_once('?') {
            None => (place, None),
            Some((path, query)) => {
                let version = query.strip_prefix("version=").and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                (path, Some(version.ok_or_else(|| VaultReferenceError::Version(shown(query)))?))
            }
        };
        Ok(VaultReference { path: VaultReference::parse_path(path)?, version, field: field.to_owned() })
    }
}

impl fmt::Display for VaultReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "{}?version={version}#{}", self.path, self.field),
            None => write!(f, "{}#{}", self.path, self.field),
        }
    }
}

impl TryFrom<String> for VaultReference {
    type Error = VaultReferenceError;

    fn try_from(text: String) -> Result<VaultReference, VaultReferenceError> {
        text.parse()
    }
}

impl From<VaultReference> for String {
    fn from(reference: VaultReference) -> String {
        reference.to_string()
    }
}

/// Returns a text for an error message: bounded, and without characters that a terminal would interpret.
fn shown(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let check = |text: &str, expected: Option<(&str, Option<u32>, &str)>| {
            let parsed = text.parse::<VaultReference>().ok();
            let parts = parsed.as_ref().map(|r| (r.path(), r.version(), r.field()));
            assert_eq!(parts, expected, "{text:?}");
        };
        check("secret/openai#key", Some(("secret/openai", None, "key")));
        check("/secret/a/b/#key", Some(("secret/a/b", None, "key")));
        check("secret/openai?version=3#key", Some(("secret/openai", Some(3), "key")));
        check("database/creds/read only#password", Some(("database/creds/read only", None, "password")));
        for bad in [
            "",
            "secret/openai",
            "secret/openai#",
            "secret#key",
            "#key",
            "secret//openai#key",
            "secret/../sys/seal#key",
            "secret/./a#key",
            "secret/%2e%2e/a#key",
            "secret/a\r\nX: y#key",
            "secret/a?version=0#key",
            "secret/a?version=x#key",
            "secret/a?list=true#key",
            "secret/a#k\ney",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn text_form_round_trips() {
        for text in ["secret/openai#key", "secret/openai?version=3#key"] {
            assert_eq!(text.parse::<VaultReference>().unwrap().to_string(), text);
        }
    }
}
