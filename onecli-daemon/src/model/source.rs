//! Where a secret's value is had from, where the store does not hold it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::reference::VaultReference;

/// Longest path of a file, in bytes.
const LONGEST_PATH: usize = 1024;

/// Where a value is fetched from, each time it is needed. The store holds a secret's source twice: in the open, and sealed
/// in the value's place; only where both say the same is anything fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// A field in the vault server of `[backend.vault]`.
    Vault(VaultReference),
    /// A file on the daemon's host, with the value in one line.
    File(SourceFile),
}

impl Source {
    /// What is sealed in the value's place.
    pub fn to_sealed_text(&self) -> String {
        format!("source {self}")
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Vault(reference) => write!(f, "vault:{reference}"),
            Source::File(file) => write!(f, "file:{file}"),
        }
    }
}

/// The path of such a file: absolute, UTF-8, and no way around.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceFile(PathBuf);

/// Why a path was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no absolute path without '.', '..' and control characters, of at most 1024 bytes")]
pub struct SourceFileError(String);

impl SourceFile {
    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl std::str::FromStr for SourceFile {
    type Err = SourceFileError;

    fn from_str(text: &str) -> Result<SourceFile, SourceFileError> {
        let plain = text.starts_with('/')
            && text.len() <= LONGEST_PATH
            && !text.chars().any(char::is_control)
            && text[1..].split('/').all(|part| !matches!(part, "" | "." | ".."));
        if plain {
            Ok(SourceFile(PathBuf::from(text)))
        } else {
            Err(SourceFileError(text.chars().take(100).flat_map(char::escape_default).collect()))
        }
    }
}

impl TryFrom<String> for SourceFile {
    type Error = SourceFileError;

    fn try_from(text: String) -> Result<SourceFile, SourceFileError> {
        text.parse()
    }
}

impl From<SourceFile> for String {
    fn from(file: SourceFile) -> String {
        file.to_string()
    }
}

impl fmt::Display for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_round_trip() {
        for (text, json) in [
            ("vault:secret/openai#key", r#"{"vault":"secret/openai#key"}"#),
            ("vault:secret/openai?version=2#key", r#"{"vault":"secret/openai?version=2#key"}"#),
            ("file:/run/keys/a b", r#"{"file":"/run/keys/a b"}"#),
        ] {
            let source: Source = serde_json::from_str(json).unwrap();
            assert_eq!(
                (source.to_string(), serde_json::to_string(&source).unwrap()),
                (text.into(), json.into())
            );
        }
    }

    #[test]
    fn files_are_named_in_one_way() {
        for bad in ["", "/", "key", "./key", "/a//b", "/a/../b", "/a/./b", "/a/", "/a\nb"] {
            assert!(bad.parse::<SourceFile>().is_err(), "{bad:?}");
        }
        assert!(format!("/{}", "a".repeat(1024)).parse::<SourceFile>().is_err());
    }
}
