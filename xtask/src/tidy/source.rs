//! The files that tidy reads, and the problems that it finds.

use std::fmt;

/// A tracked text file.
pub(super) struct Source {
    /// Path from the workspace's root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

impl Source {
    pub(super) fn is_rust(&self) -> bool {
        extension(&self.path) == Some("rs")
    }

    pub(super) fn is_markdown(&self) -> bool {
        extension(&self.path) == Some("md")
    }

    /// Returns whether the file contains only tests: `tests.rs`, `tests/` beside the code, system tests.
    pub(super) fn is_test(&self) -> bool {
        let inside = self.path.split_once('/').map_or("", |(_, rest)| rest);
        self.path.starts_with("tests/system/") || inside.ends_with("/tests.rs") || inside.contains("/tests/")
    }
}

/// Returns the text after the last dot of a path.
pub(super) fn extension(path: &str) -> Option<&str> {
    path.rsplit_once('.').map(|(_, extension)| extension)
}

/// A broken rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    pub(super) path: String,
    pub(super) line: usize,
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(source: &Source, line: usize, message: impl Into<String>) -> Self {
        Self { path: source.path.clone(), line, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}
