//! Tables for people. Columns are as wide as their widest cell, limited by the width of the terminal.

use tabled::builder::Builder;
use tabled::settings::peaker::Priority;
use tabled::settings::{Padding, Style, Width};

/// Blank columns between two cells.
const GAP: usize = 2;

/// Returns the lines of a table, heading first. Cells wrap between words if the table is wider than `width`. If the
/// longest words do not fit, or without a width, each row is one line, which the terminal breaks.
pub(super) fn lines<const N: usize>(
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    width: Option<u16>,
) -> Vec<String> {
    let mut builder = Builder::default();
    let mut longest = heading.map(|cell| cell.chars().count());
    builder.push_record(heading);
    for row in rows {
        for (longest, cell) in longest.iter_mut().zip(&row) {
            *longest = cell.split(' ').map(|word| word.chars().count()).fold(*longest, usize::max);
        }
        builder.push_record(row);
    }
    let least = longest.iter().sum::<usize>() + GAP * (N - 1);
    let mut table = builder.build();
    table.with(Style::empty()).with(Padding::new(0, GAP, 0, 0));
    if let Some(width) = width.filter(|width| least <= usize::from(*width)) {
        // The gap after the last column is trimmed.
        let width = usize::from(width) + GAP;
        table.with(Width::wrap(width).priority(Priority::max(true)).keep_words(true));
    }
    table.to_string().lines().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: [&str; 2]) -> [String; 2] {
        cells.map(str::to_owned)
    }

    #[test]
    fn columns_line_up_and_lines_do_not_trail() {
        let lines = lines(["NAME", "X"], [row(["ab", "c"]), row(["äöüß日本", ""])], None);
        assert_eq!(lines, ["NAME      X", "ab        c", "äöüß日本"]);
    }

    #[test]
    fn wide_cells_wrap_within_the_width() {
        let long = "one two three four five six seven eight nine ten";
        for width in [25, 40, 300] {
            let lines = lines(["NAME", "TEXT"], [row(["ab", long])], Some(width));
            assert!(lines.iter().all(|line| line.chars().count() <= usize::from(width)), "{lines:#?}");
            let words = lines[1..].join(" ");
            assert!(long.split(' ').all(|word| words.contains(word)), "{lines:#?}");
            assert_eq!(lines.len() > 2, width < 60, "{lines:#?}");
        }
    }

    #[test]
    fn words_are_not_broken() {
        let lines =
            lines(["NAME", "PATH"], [row(["ab", "/a/long/path/that/is/one/word and more"])], Some(20));
        assert_eq!(lines.len(), 2, "{lines:#?}");
    }

    #[test]
    fn rows_are_one_line_without_a_width() {
        let long = "word ".repeat(200);
        assert_eq!(lines(["NAME", "TEXT"], [row(["ab", &long])], None).len(), 2);
    }
}
