//! Rules about text in any language.

use std::collections::BTreeMap;
use std::path::Path;

use super::rules::{LONGEST, README_NAMES};
use super::source::{Problem, Source};

/// Words that mark postponed work, which belongs in an issue. They are split so that this file does not match.
const PUT_OFF: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!("), concat!("unimple", "mented!(")];

/// Paths that are valid only on one machine: the workspace's and users' home directories.
pub(super) fn machine_paths(workspace: &Path, home: Option<&Path>) -> Vec<String> {
    let mut paths = vec![concat!("/ro", "ot/.").to_owned(), concat!("/Us", "ers/").to_owned()];
    for path in [Some(workspace), home].into_iter().flatten() {
        let text = path.display().to_string();
        // `/` exists on every machine.
        if text.len() > 1 {
            paths.push(format!("{}/", text.trim_end_matches('/')));
        }
    }
    paths
}

/// The rules for a single file.
pub(super) fn check(source: &Source, machine: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let lines = source.text.lines().count();
    if source.is_rust() {
        if !source.text.starts_with("//!") {
            problems.push(Problem::new(source, 1, "a file must begin with a `//!` line that describes it"));
        }
        if lines > LONGEST && !source.is_test() {
            let message = format!("{lines} lines; a file of code may have at most {LONGEST}");
            problems.push(Problem::new(source, lines, message));
        }
    }
    for (number, line) in (1..).zip(source.text.split('\n')) {
        if line.ends_with([' ', '\t', '\r']) {
            problems.push(Problem::new(source, number, "white space at the end of the line"));
        }
        if let Some(word) = PUT_OFF.iter().find(|word| stands_alone(line, word)) {
            problems.push(Problem::new(source, number, format!("`{word}`: open an issue instead")));
        }
        if let Some(path) = machine.iter().find(|path| begins(line, path)) {
            problems.push(Problem::new(source, number, format!("`{path}` is valid only on one machine")));
        }
    }
    if !source.text.is_empty() && !source.text.ends_with('\n') {
        problems.push(Problem::new(source, lines, "no newline at the end of the file"));
    }
    problems
}

/// Returns whether `line` contains `path`, and not inside a longer one such as `/proc/self/root/`.
fn begins(line: &str, path: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    line.match_indices(path).any(|(at, _)| !line[..at].ends_with(inside))
}

/// Returns whether `line` contains `word` as a whole word.
pub(super) fn stands_alone(line: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let after = line[at + word.len()..].chars().next();
        !part(line[..at].chars().next_back()) && (word.ends_with('(') || !part(after))
    })
}

/// Checks that the README names the commands that a new developer needs.
pub(super) fn readme(sources: &[Source]) -> Vec<Problem> {
    let Some(readme) = sources.iter().find(|s| s.path == "README.md") else {
        return vec![Problem {
            path: "README.md".to_owned(),
            line: 1,
            message: "the file is missing".to_owned(),
        }];
    };
    let missing = README_NAMES.iter().filter(|name| !readme.text.contains(**name));
    missing.map(|name| Problem::new(readme, 1, format!("does not name `{name}`"))).collect()
}

/// Checks `migrations/BACKEND/NNNN_what.sql`: numbers start at 1 without a gap, and are the same for every backend.
pub(super) fn migrations(sources: &[Source]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut backends: BTreeMap<&str, Vec<(u32, &Source)>> = BTreeMap::new();
    for source in sources {
        let Some(inside) = source.path.strip_prefix("migrations/") else { continue };
        let Some((backend, name)) = inside.split_once('/') else { continue };
        let sql = Path::new(name).extension().is_some_and(|extension| extension == "sql");
        let number = name.split_once('_').filter(|_| sql).and_then(|(n, _)| n.parse().ok());
        match number {
            Some(number) => backends.entry(backend).or_default().push((number, source)),
            None => problems.push(Problem::new(source, 1, "a migration must be named NNNN_what.sql")),
        }
    }
    for found in backends.values_mut() {
        found.sort_by_key(|(number, _)| *number);
        for (expected, (number, source)) in (1..).zip(found.iter()) {
            if *number != expected {
                let message = format!("expected migration {expected}, found {number}");
                problems.push(Problem::new(source, 1, message));
                break;
            }
        }
    }
    let longest = backends.values().map(Vec::len).max().unwrap_or_default();
    for found in backends.values().filter(|found| found.len() != longest) {
        if let Some((number, source)) = found.last() {
            let message = format!("ends at {number}; another backend has {longest} migrations");
            problems.push(Problem::new(source, 1, message));
        }
    }
    problems
}
