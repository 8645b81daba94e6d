//! Sources of secret values that are not in the store.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::reference::VaultReference;

/// The maximum length of a file path, in bytes.
const LONGEST_PATH: usize = 1024;

/// The source from which a value is fetched each time it is needed. The store holds a secret's source twice: in plain
/// text, and sealed in place of the value. The value is fetched only if both are equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// A field in the vault server of `[backend.vault]`.
    Vault(VaultReference),
    /// A file on the daemon's host, with the value in one line.
    File(SourceFile),
    /// A command on the daemon's host that prints the value.
    Exec(SourceCommand),
}

impl Source {
    /// Returns the text that is sealed in place of the value.
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

/// The path of such a file: absolute, UTF-8, without `.` or `..` segments.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceFile(PathBuf);

/// The reason why a path was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an absolute path of at most 1024 bytes without '.', '..' and control characters")]
pub struct SourceFileError(String);

impl SourceFile {
    /// Returns the path.
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

/// A program's absolute path and its arguments, separated by single spaces. No shell reads the text, so nothing is
/// quoted, expanded or redirected. A more complex command needs a script.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceCommand {
    program: SourceFile,
    arguments: Vec<String>,
}

/// The reason why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceCommandError {
    /// The path of the program is not canonical.
    #[error("the command's program: {0}")]
    Program(#[from] SourceFileError),
    /// The command is too long, or has characters that no argument should have.
    #[error(
        "the command has control characters, or more than 1024 bytes: put it into a script, and use that"
    )]
    Text,
    /// The command contains characters that a shell would interpret.
    #[error(
        "no shell reads the command, so the quotation marks in it would be passed on: put it into a script, and use that"
    )]
    Quoted,
}

impl SourceCommand {
    /// Returns the program.
    pub fn program(&self) -> &SourceFile {
        &self.program
    }

    /// Returns the arguments.
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
    fn only_canonical_file_paths_are_accepted() {
        for bad in ["", "/", "key", "./key", "/a//b", "/a/../b", "/a/./b", "/a/", "/a\nb"] {
            assert!(bad.parse::<SourceFile>().is_err(), "{bad:?}");
        }
        assert!(format!("/{}", "a".repeat(1024)).parse::<SourceFile>().is_err());
    }

    #[test]
    fn commands_are_split_at_spaces_without_a_shell() {
        let command: SourceCommand = " /bin/a  -x  b ".parse().unwrap();
        assert_eq!((command.to_string().as_str(), command.arguments().len()), ("/bin/a -x b", 2));
        for bad in ["", " ", "a", "./a b", "/bin/../a", "/bin/a\nb", "/bin/sh -c 'echo x'", "/bin/a \"b\""] {
            assert!(bad.parse::<SourceCommand>().is_err(), "{bad:?}");
        }
        assert!(format!("/bin/a {}", "b".repeat(1024)).parse::<SourceCommand>().is_err());
    }
}
