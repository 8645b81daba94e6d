//! Checks `docs/security/attacks.md`: it names every row, and every test that it names exists.

use std::collections::BTreeSet;

use onecli_tests::bins::workspace;

use crate::report::{DOCUMENT, is_known_open};
use crate::techniques::table;

/// The cells of the document's tables, without the header rows.
fn lines() -> impl Iterator<Item = Vec<&'static str>> {
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Technique"));
    rows.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
}

/// The parts in backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn row_names() -> BTreeSet<&'static str> {
    table::rows().map(|row| row.name).collect()
}

#[test]
fn every_row_is_documented_once() {
    assert_eq!(row_names().len(), table::rows().count(), "two rows have the same name");
    let tests: Vec<&str> =
        lines().flat_map(|cells| cells.last().copied().map(quoted).unwrap_or_default()).collect();
    for name in row_names() {
        let count = tests.iter().filter(|test| **test == name).count();
        assert_eq!(count, 1, "`{name}` must appear once in the test column of docs/security/attacks.md");
    }
}

#[test]
fn every_documented_test_exists() {
    for cells in lines() {
        assert_eq!(cells.len(), 3, "a row needs technique, defence and test: {cells:?}");
        let tests = quoted(cells[2]);
        assert!(!tests.is_empty(), "a technique without a test: {cells:?}");
        for test in tests {
            assert!(
                exists(test),
                "docs/security/attacks.md names `{test}`, which is neither a row nor a test"
            );
        }
    }
}

/// Returns whether `test` is a row, `FILE::FUNCTION`, or `FILE` and a row of the escape suite in that file.
fn exists(test: &str) -> bool {
    let Some((file, function)) = test.split_once("::") else { return row_names().contains(test) };
    let source = std::fs::read_to_string(workspace().join(file)).unwrap_or_default();
    source.contains(&format!("fn {function}(")) || source.contains(&format!("(\"{function}\")"))
}

#[test]
fn known_open_techniques_are_rows() {
    assert!(!is_known_open("no/such-row"));
    let section = DOCUMENT.split_once("## Known to be open").map(|(_, rest)| rest).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    for name in quoted(section).into_iter().filter(|name| name.contains('/') && !name.contains('.')) {
        assert!(row_names().contains(name), "`{name}` is not a row");
    }
}
