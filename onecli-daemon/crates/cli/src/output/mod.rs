//! All output of the CLI: JSON for programs, aligned tables for people.
//!
//! Agents choose part of the displayed text: paths, hosts, process names, file names. Characters that control a
//! terminal or mislead a reader are therefore always escaped: controls, C1 controls, direction overrides, invisible
//! characters.

mod progress;
mod report;
mod style;
mod table;
mod time;

pub(crate) use progress::{Progress, Unit};
pub(crate) use report::{note, print_error, print_report};

use std::io::{self, BufWriter, IsTerminal as _, Write};

use jiff::Timestamp;
use onecli_model::{Check, CheckStatus, Clock, printable, printable_json};
use onecli_sys::SystemClock;
use serde::Serialize;
use terminal_size::{Width, terminal_size_of};

use style::{BAD, GOOD, HEADING, WARNING, shows_colors};

/// Standard output. The caller handles write errors, because a closed pipe is not a failure.
pub(crate) struct Output {
    json: bool,
    is_terminal: bool,
    has_colors: bool,
    /// The number of columns of the terminal.
    width: Option<u16>,
    out: Box<dyn Write>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Output {
        let out = io::stdout();
        Output {
            json,
            is_terminal: out.is_terminal(),
            has_colors: shows_colors(&out),
            width: terminal_size_of(&out).map(|(Width(columns), _)| columns),
            out: Box::new(BufWriter::new(out)),
        }
    }

    /// Returns whether the output is JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Returns whether the output is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Prints one JSON document.
    pub(crate) fn document(&mut self, document: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string_pretty(document)?;
        writeln!(self.out, "{}", printable_json(&text))
    }

    /// Prints one or several lines of text. A line break in `text` comes from the CLI itself.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        text.split('\n').try_for_each(|line| writeln!(self.out, "{}", printable(line)))
    }

    /// Prints one audit record, as JSON or CSV. Programs get exactly the bytes in the log.
    pub(crate) fn record(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_terminal {
            return self.line(&String::from_utf8_lossy(line.trim_ascii_end()));
        }
        self.out.write_all(line)?;
        self.out.write_all(b"\n")
    }

    /// Prints a warning on standard error, separate from output for programs.
    #[expect(clippy::unused_self, reason = "all output goes through this type")]
    pub(crate) fn warning(&mut self, text: &str) -> io::Result<()> {
        report::warning(text)
    }

    /// Prints a completion script. All of it comes from this program.
    pub(crate) fn script(&mut self, script: &[u8]) -> io::Result<()> {
        self.out.write_all(script.trim_ascii_end())?;
        self.out.write_all(b"\n")
    }

    /// Prints a table with a heading. On a terminal, cells wrap so that the table fits its width.
    pub(crate) fn table<const N: usize>(
        &mut self,
        heading: [&str; N],
        rows: &[[String; N]],
    ) -> io::Result<()> {
        self.table_of(self.width, heading, rows)
    }

    /// Prints a table that is at most `width` columns wide.
    pub(crate) fn table_within<const N: usize>(
        &mut self,
        width: u16,
        heading: [&str; N],
        rows: &[[String; N]],
    ) -> io::Result<()> {
        self.table_of(Some(self.width.map_or(width, |columns| columns.min(width))), heading, rows)
    }

    fn table_of<const N: usize>(
        &mut self,
        width: Option<u16>,
        heading: [&str; N],
        rows: &[[String; N]],
    ) -> io::Result<()> {
        let rows = rows.iter().map(|row| row.each_ref().map(|cell| printable(cell)));
        let lines = table::lines(heading, rows, width);
        for (at, line) in lines.iter().enumerate() {
            let line = if at == 0 { self.painted(HEADING, line) } else { line.clone() };
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    /// Prints a row of cells in columns of fixed width, for data that arrives one row at a time.
    pub(crate) fn cells<const N: usize>(
        &mut self,
        cells: &[String; N],
        widths: &[usize; N],
    ) -> io::Result<()> {
        let cells = cells.each_ref().map(|cell| printable(cell));
        self.out.write_all(aligned(cells.each_ref().map(String::as_str), widths).as_bytes())
    }

    /// Prints names and values, one pair per line. Empty values are left out.
    pub(crate) fn fields(&mut self, fields: &[(&str, String)]) -> io::Result<()> {
        let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            writeln!(self.out, "{name:<width$}  {}", printable(value))?;
        }
        Ok(())
    }

    /// Prints a check with its status, and its fix below. `width` is the width of the longest name.
    pub(crate) fn check(&mut self, check: &Check, width: usize) -> io::Result<()> {
        let (status, style) = match check.status {
            CheckStatus::Ok => ("OK", GOOD),
            CheckStatus::Warn => ("WARN", WARNING),
            CheckStatus::Fail => ("FAIL", BAD),
        };
        let detail = printable(&check.detail.replace('\n', "; "));
        let status = self.painted(style, &format!("{status:<4}"));
        writeln!(self.out, "{status}  {:<width$}  {detail}", printable(&check.name))?;
        match &check.fix {
            Some(fix) => writeln!(self.out, "{:4}  {:width$}  -> {}", "", "", printable(fix)),
            None => Ok(()),
        }
    }

    /// Formats a time relative to now. JSON output contains the exact time.
    #[expect(clippy::unused_self, reason = "all output goes through this type")]
    pub(crate) fn time(&self, time: Timestamp) -> String {
        time::relative(time, SystemClock.now())
    }

    /// Formats a time like [`Output::time`]; `-` if there is none.
    pub(crate) fn time_or_dash(&self, time: Option<Timestamp>) -> String {
        time.map_or_else(|| "-".to_owned(), |time| self.time(time))
    }

    /// Flushes the output.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn painted(&self, style: anstyle::Style, text: &str) -> String {
        style::painted(style, text, self.has_colors)
    }
}

fn aligned<const N: usize>(cells: [&str; N], widths: &[usize; N]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let padding = width.saturating_sub(cell.chars().count()) + 2;
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', padding));
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

/// Formats a value; `-` if there is none.
pub(crate) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

/// Joins items with commas; returns `none` if there are none.
pub(crate) fn joined<T: ToString>(items: impl IntoIterator<Item = T>, none: &str) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { none.to_owned() } else { items.join(", ") }
}

#[cfg(test)]
mod tests {
    use onecli_model::misleads;

    use super::*;

    #[test]
    fn columns_line_up_and_lines_do_not_trail() {
        let widths = [4, 3];
        assert_eq!(aligned(["ab", "c"], &widths), "ab    c\n");
        assert_eq!(aligned(["äöüß", ""], &widths), "äöüß\n");
    }

    /// A buffer shared with an [`Output`] under test.
    #[derive(Clone, Default)]
    struct Captured(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printed(is_terminal: bool, print: impl Fn(&mut Output) -> io::Result<()>) -> String {
        let captured = Captured::default();
        let mut output = Output {
            json: false,
            is_terminal,
            has_colors: false,
            width: None,
            out: Box::new(captured.clone()),
        };
        print(&mut output).unwrap();
        String::from_utf8(captured.0.take()).unwrap()
    }

    /// ESC, a C1 control, a direction override, an invisible character beyond the first plane.
    const HOSTILE: &str = "a\u{1b}[2J\u{9b}b\u{202e}c\u{e0041}";

    #[test]
    fn every_print_function_escapes_misleading_characters() {
        type Print = fn(&mut Output) -> io::Result<()>;
        let ways: [(&str, Print); 6] = [
            ("document", |output| output.document(&[HOSTILE])),
            ("line", |output| output.line(&format!("answered {HOSTILE}\nnext"))),
            ("record", |output| output.record(serde_json::to_string(HOSTILE)?.as_bytes())),
            ("table", |output| output.table([""], &[[HOSTILE.to_owned()]])),
            ("fields", |output| output.fields(&[("name", HOSTILE.to_owned())])),
            ("check", |output| output.check(&Check::fail(HOSTILE, HOSTILE, HOSTILE), 3)),
        ];
        for (name, print) in ways {
            let text = printed(true, print);
            assert!(
                text.contains('a') && text.chars().all(|c| c == '\n' || !misleads(c)),
                "{name}: {text:?}"
            );
        }
    }

    #[test]
    fn escaped_json_parses_to_the_same_value() {
        let text = printed(false, |output| output.document(&[HOSTILE]));
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), [HOSTILE]);
    }

    #[test]
    fn record_is_printed_byte_for_byte_for_programs() {
        let line = serde_json::to_string(HOSTILE).unwrap();
        assert_eq!(printed(false, |output| output.record(line.as_bytes())), format!("{line}\n"));
    }

    #[test]
    fn output_never_contains_terminal_controls() {
        assert_eq!(printable("a\u{1b}[31mb\n\u{202e}c\u{200f}"), "a\\u{1b}[31mb\\n\\u{202e}c\\u{200f}");
    }
}
