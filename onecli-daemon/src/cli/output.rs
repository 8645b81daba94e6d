//! What the CLI prints: JSON for programs, aligned tables for people.

use std::io::{self, BufWriter, Stdout, Write};

use serde::Serialize;

use crate::audit::misleads;

/// Standard output. Errors come back to the caller, because a closed pipe is no failure.
pub(super) struct Output {
    json: bool,
    out: BufWriter<Stdout>,
}

impl Output {
    pub(super) fn new(json: bool) -> Output {
        Output { json, out: BufWriter::new(io::stdout()) }
    }

    /// Were programs asked for?
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// One JSON document.
    pub(super) fn document(&mut self, document: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.out, document)?;
        self.out.write_all(b"\n")
    }

    /// A line for people.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Bytes as they are, and a line end.
    /// Prints a warning, apart from what a program may read.
    pub(super) fn warning(&mut self, text: &str) -> io::Result<()> {
        writeln!(io::stderr(), "warning: {text}")
    }

    pub(super) fn raw_line(&mut self, line: &[u8]) -> io::Result<()> {
        self.out.write_all(line)?;
        self.out.write_all(b"\n")
    }

    /// A table with a heading; columns as wide as their widest cell.
    pub(super) fn table<const N: usize>(
        &mut self,
        heading: [&str; N],
        rows: &[[String; N]],
    ) -> io::Result<()> {
        let rows: Vec<[String; N]> =
            rows.iter().map(|row| row.each_ref().map(|cell| printable(cell))).collect();
        let mut widths = heading.map(|cell| cell.chars().count());
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        self.out.write_all(aligned(heading, &widths).as_bytes())?;
        for row in &rows {
            self.out.write_all(aligned(row.each_ref().map(String::as_str), &widths).as_bytes())?;
        }
        Ok(())
    }

    /// A line of cells in columns of fixed width, for what comes in one by one.
    pub(super) fn cells<const N: usize>(
        &mut self,
        cells: &[String; N],
        widths: &[usize; N],
    ) -> io::Result<()> {
        let cells = cells.each_ref().map(|cell| printable(cell));
        self.out.write_all(aligned(cells.each_ref().map(String::as_str), widths).as_bytes())
    }

    /// Names and what they are, one per line; what is empty is left out.
    pub(super) fn fields(&mut self, fields: &[(&str, String)]) -> io::Result<()> {
        let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            writeln!(self.out, "{name:<width$}  {}", printable(value))?;
        }
        Ok(())
    }

    /// Sends what is buffered on its way.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
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

/// Agents choose some of what is shown (paths, process names): nothing in it may drive the terminal.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if misleads(c) { c.escape_default().collect() } else { vec![c] }).collect()
}

/// `-` where there is nothing.
pub(super) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

/// Joined by commas; `none` where there is nothing.
pub(super) fn joined<T: ToString>(items: impl IntoIterator<Item = T>, none: &str) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { none.to_owned() } else { items.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_do_not_trail() {
        let widths = [4, 3];
        assert_eq!(aligned(["ab", "c"], &widths), "ab    c\n");
        assert_eq!(aligned(["äöüß", ""], &widths), "äöüß\n");
    }

    #[test]
    fn nothing_drives_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\n\u{202e}c\u{200f}"), "a\\u{1b}[31mb\\n\\u{202e}c\\u{200f}");
    }
}
