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
        self.path.rsplit_once('.').is_some_and(|(_, extension)| extension == "rs")
    }

    /// Returns whether the file contains only tests: `tests.rs`, `tests/` beside the code, system tests.
    pub(super) fn is_test(&self) -> bool {
        let inside = self.path.split_once('/').map_or("", |(_, rest)| rest);
        self.path.starts_with("tests/system/") || inside.ends_with("/tests.rs") || inside.contains("/tests/")
    }
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
