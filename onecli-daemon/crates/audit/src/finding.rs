//! A finding of the verification.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// A finding: a part of the log that differs from what was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}{}: {what}", file.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The record's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The record's time, as written in the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The problem.
    pub what: String,
}

impl Finding {
    pub(super) fn file(path: &Path, what: impl Into<String>) -> Finding {
        Finding { file: path.to_owned(), line: None, seq: None, time: None, what: what.into() }
    }
}
