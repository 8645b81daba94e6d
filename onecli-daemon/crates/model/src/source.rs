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
    /// A command of the daemon's host that prints the value.
    Exec(SourceCommand),
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
            Source::Exec(command) => write!(f, "exec:{command}"),
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

/// A program's absolute path and its arguments, with single spaces between them. No shell reads it: nothing is quoted,
/// expanded or redirected, so that what runs is what stands there. What needs more is a script.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceCommand {
    program: SourceFile,
    arguments: Vec<String>,
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceCommandError {
    /// Its program is not named in one way.
    #[error("the command's program: {0}")]
    Program(#[from] SourceFileError),
    /// Too long, or with characters that no argument should have.
    #[error(
        "the command has control characters, or more than 1024 bytes: put it into a script, and name that"
    )]
    Text,
    /// What a shell would take apart.
    #[error(
        "no shell reads the command, so the quotation marks in it would be passed on: put it into a script, and name that"
    )]
    Quoted,
}

impl SourceCommand {
    /// What is executed.
    pub fn program(&self) -> &SourceFile {
        &self.program
    }

    /// What it is given.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }
}

impl std::str::FromStr for SourceCommand {
    type Err = SourceCommandError;

    fn from_str(text: &str) -> Result<SourceCommand, SourceCommandError> {
        if text.len() > LONGEST_PATH || text.chars().any(char::is_control) {
            return Err(SourceCommandError::Text);
        }
        let mut words = text.split(' ').filter(|word| !word.is_empty());
        let program = words.next().unwrap_or_default().parse()?;
        let arguments: Vec<String> = words.map(str::to_owned).collect();
        if arguments.iter().any(|word| word.starts_with(['\'', '"'])) {
            return Err(SourceCommandError::Quoted);
        }
        Ok(SourceCommand { program, arguments })
    }
}

impl TryFrom<String> for SourceCommand {
    type Error = SourceCommandError;

    fn try_from(text: String) -> Result<SourceCommand, SourceCommandError> {
        text.parse()
    }
}

impl From<SourceCommand> for String {
    fn from(command: SourceCommand) -> String {
        command.to_string()
    }
}

impl fmt::Display for SourceCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.program.fmt(f)?;
        self.arguments.iter().try_for_each(|word| write!(f, " {word}"))
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
            ("exec:/usr/bin/pass show npm", r#"{"exec":"/usr/bin/pass show npm"}"#),
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

    #[test]
    fn commands_are_words() {
        let command: SourceCommand = " /bin/a  -x  b ".parse().unwrap();
        assert_eq!((command.to_string().as_str(), command.arguments().len()), ("/bin/a -x b", 2));
        for bad in ["", " ", "a", "./a b", "/bin/../a", "/bin/a\nb", "/bin/sh -c 'echo x'", "/bin/a \"b\""] {
            assert!(bad.parse::<SourceCommand>().is_err(), "{bad:?}");
        }
        assert!(format!("/bin/a {}", "b".repeat(1024)).parse::<SourceCommand>().is_err());
    }
}
