//! Errors, warnings and notes on standard error. A failure to write them cannot be reported anywhere.

use std::io::{self, Write as _};

use onecli_api::ErrorDetail;
use onecli_model::printable;

use super::style::{BAD, HEADING, HELP as HELP_STYLE, WARNING, painted, shows_colors};

/// Prints an error; in JSON like the daemon's responses.
pub(crate) fn print_report(error: &ErrorDetail, json: bool) {
    let text =
        if json { error.printable_json() } else { text(error, "error: ", shows_colors(&io::stderr())) };
    let _ = writeln!(io::stderr(), "{text}");
}

/// Lines of the message after the first are details.
fn text(error: &ErrorDetail, prefix: &str, has_colors: bool) -> String {
    let mut lines = error.message.split('\n').map(printable);
    let first = lines.next().unwrap_or_default();
    let mut text = painted(BAD, prefix, has_colors) + &painted(HEADING, &first, has_colors);
    for line in lines {
        text.push('\n');
        text.push_str(&line);
    }
    for line in error.hint.lines() {
        text.push('\n');
        text.push_str(&painted(HELP_STYLE, "help: ", has_colors));
        text.push_str(&printable(line));
    }
    text
}

/// Prints an error among an agent's own output. The line begins with the program's name.
pub(crate) fn print_error(error: &dyn std::fmt::Display) {
    let detail = ErrorDetail::new("", error);
    let _ = writeln!(io::stderr(), "{}", text(&detail, "onecli: ", shows_colors(&io::stderr())));
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
        let report =
            ErrorDetail::new("not_found", &"there is no agent 'x'\n  detail\nhelp: list them\u{1b}[2J");
        assert_eq!(
            text(&report, "error: ", false),
            "error: there is no agent 'x'\n  detail\nhelp: list them\\u{1b}[2J"
        );
        let colored = text(&report, "error: ", true);
        assert!(colored.contains("\u{1b}[1mthere is no agent 'x'\u{1b}[0m\n  detail\n"), "{colored:?}");
        assert_eq!(colored.matches("\u{1b}[1m").count(), 2, "{colored:?}");
    }

    #[test]
    fn error_for_programs_is_one_json_object() {
        let report = ErrorDetail::new("timeout", &"late\u{202e}\nhelp: look");
        let parsed: serde_json::Value = serde_json::from_str(&report.printable_json()).unwrap();
        assert_eq!(parsed["error"]["code"], "timeout");
        assert_eq!(parsed["error"]["message"], "late\u{202e}");
        assert_eq!(parsed["error"]["hint"], "look");
        assert!(report.printable_json().is_ascii());
    }
}
