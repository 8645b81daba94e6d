//! Errors, warnings and notes on standard error. A failure to write them cannot be reported anywhere.

use std::io::{self, Write as _};

use onecli_api::ErrorDetail;
use onecli_model::{printable, printable_json};
use serde::Serialize;

use super::style::{BAD, HEADING, HELP as HELP_STYLE, WARNING, painted, shows_colors};

/// The parts of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// A machine-readable code.
    pub(crate) code: String,
    /// A description of the failure. Lines after the first are details.
    pub(crate) message: String,
    /// The next step for the user; may be empty.
    pub(crate) hint: String,
}

impl Report {
    /// Splits an error's text into message and hint.
    pub(crate) fn new(code: &str, error: &dyn std::fmt::Display) -> Report {
        let ErrorDetail { code, message, hint } = ErrorDetail::new(code, error);
        Report { code, message, hint }
    }

    /// Prints the error; in JSON as `{"error": {"code", "message", "hint"}}`, like the daemon's responses.
    pub(crate) fn print(&self, json: bool) {
        let text = if json { self.json() } else { self.text("error: ", shows_colors(&io::stderr())) };
        let _ = writeln!(io::stderr(), "{text}");
    }

    fn json(&self) -> String {
        printable_json(&serde_json::json!({ "error": self }).to_string())
    }

    fn text(&self, prefix: &str, has_colors: bool) -> String {
        let mut lines = self.message.split('\n').map(printable);
        let first = lines.next().unwrap_or_default();
        let mut text = painted(BAD, prefix, has_colors) + &painted(HEADING, &first, has_colors);
        for line in lines {
            text.push('\n');
            text.push_str(&line);
        }
        for line in self.hint.lines() {
            text.push('\n');
            text.push_str(&painted(HELP_STYLE, "help: ", has_colors));
            text.push_str(&printable(line));
        }
        text
    }
}

/// Prints an error among an agent's own output. The line begins with the program's name.
pub(crate) fn print_error(error: &dyn std::fmt::Display) {
    let report = Report::new("", error);
    let _ = writeln!(io::stderr(), "{}", report.text("onecli: ", shows_colors(&io::stderr())));
}

/// Prints information that is not an error.
pub(crate) fn note(text: &str) {
    let lines: Vec<String> = text.split('\n').map(printable).collect();
    let _ = writeln!(io::stderr(), "onecli: note: {}", lines.join("\n"));
}

pub(super) fn warning(text: &str) -> io::Result<()> {
    let label = painted(WARNING, "warning:", shows_colors(&io::stderr()));
    writeln!(io::stderr(), "{label} {}", printable(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_prints_one_bold_line_and_a_help_line() {
        let report = Report::new("not_found", &"there is no agent 'x'\n  detail\nhelp: list them\u{1b}[2J");
        assert_eq!(
            report.text("error: ", false),
            "error: there is no agent 'x'\n  detail\nhelp: list them\\u{1b}[2J"
        );
        let colored = report.text("error: ", true);
        assert!(colored.contains("\u{1b}[1mthere is no agent 'x'\u{1b}[0m\n  detail\n"), "{colored:?}");
        assert_eq!(colored.matches("\u{1b}[1m").count(), 2, "{colored:?}");
    }

    #[test]
    fn error_for_programs_is_one_json_object() {
        let report = Report::new("timeout", &"late\u{202e}\nhelp: look");
        let parsed: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(parsed["error"]["code"], "timeout");
        assert_eq!(parsed["error"]["message"], "late\u{202e}");
        assert_eq!(parsed["error"]["hint"], "look");
        assert!(report.json().is_ascii());
    }
}
