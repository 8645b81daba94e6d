//! The error of a request.

use onecli_model::printable_json;
use serde::{Deserialize, Serialize};

/// The body of every response that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// The error code for a value that does not look like the expected credential. The same request with `force` stores the
/// value.
pub const VALUE_DOUBTFUL: &str = "value_doubtful";

/// An error, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// A machine-readable code: `not_permitted`, `not_found`, `exists`, `invalid`, ...
    pub code: String,
    /// A description of the failure.
    pub message: String,
    /// The next step for the user; may be empty.
    #[serde(default)]
    pub hint: String,
}

/// The separator before the next step in an error's text.
pub const HELP: &str = "\nhelp: ";

impl ErrorDetail {
    /// Splits an error's text at [`HELP`] into message and hint.
    pub fn new(code: &str, error: &dyn std::fmt::Display) -> ErrorDetail {
        let text = error.to_string();
        let (message, hint) = text.split_once(HELP).unwrap_or((&text, ""));
        ErrorDetail { code: code.to_owned(), message: message.to_owned(), hint: hint.to_owned() }
    }

    /// Returns `{"error": {"code", "message", "hint"}}`, as an [`ErrorBody`] is on the wire, with misleading characters escaped.
    pub fn printable_json(&self) -> String {
        printable_json(&serde_json::json!({ "error": self }).to_string())
    }
}
