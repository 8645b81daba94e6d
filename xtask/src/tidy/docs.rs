//! Rules that connect documentation and code: numbered invariants, the tests that prove them, and plain language.

use std::collections::BTreeSet;

use super::source::{Problem, Source, extension};
use super::text::stands_alone;

/// The numbered invariants, and the tests that prove each.
const INVARIANTS: &str = "docs/security/invariants.md";

/// The rules quote what they look for, and so do their tests.
const RULES: &str = "xtask/src/tidy/";

/// A document that is not part of the repository. Split so that it is not found here.
const CONTRACT: &str = concat!("DES", "IGN");

/// Words that comments and documentation avoid; a line that begins with `#` is a comment.
const WORDS: &str = include_str!("words.txt");

/// References to a document that readers of the repository do not have.
pub(super) fn contract(source: &Source) -> Vec<Problem> {
    let message =
        format!("`{CONTRACT}` is not part of the repository: state the rule, or name a page of docs/");
    let lines = (1..).zip(source.text.lines()).filter(|(_, line)| stands_alone(line, CONTRACT));
    lines.map(|(number, _)| Problem::new(source, number, message.clone())).collect()
}

/// Each invariant names tests that exist, and each number that a file cites is an invariant.
pub(super) fn invariants(sources: &[Source]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut proven = BTreeSet::new();
    if let Some(page) = sources.iter().find(|source| source.path == INVARIANTS) {
        for section in sections(&page.text) {
            if let Some(number) = section.number {
                if section.tests.is_empty() {
                    problems.push(Problem::new(
                        page,
                        section.line,
                        format!("invariant {number} names no test"),
                    ));
                }
                if !proven.insert(number) {
                    problems.push(Problem::new(
                        page,
                        section.line,
                        format!("invariant {number} is there twice"),
                    ));
                }
            }
            let missing = section.tests.into_iter().filter(|(_, path, name)| !exists(sources, path, name));
            problems.extend(
                missing
                    .map(|(line, path, name)| Problem::new(page, line, format!("no test `{path}::{name}`"))),
            );
        }
    }
    for source in sources.iter().filter(|source| !source.path.starts_with(RULES)) {
        for (line, text) in (1..).zip(source.text.lines()) {
            let unknown = cited(text).into_iter().filter(|number| !proven.contains(number));
            problems.extend(
                unknown.map(|number| {
                    Problem::new(source, line, format!("{INVARIANTS} has no invariant {number}"))
                }),
            );
        }
    }
    problems
}

/// A part of the page of invariants, from one heading to the next.
#[derive(Default)]
struct Section<'a> {
    line: usize,
    /// `None`: prose about several invariants, or plans.
    number: Option<u32>,
    /// Line, path and function of each test.
    tests: Vec<(usize, &'a str, &'a str)>,
}

fn sections(page: &str) -> Vec<Section<'_>> {
    let mut sections = vec![Section::default()];
    for (line, text) in (1..).zip(page.lines()) {
        if let Some(title) = text.strip_prefix("## ") {
            let number = title.split_once(". ").and_then(|(number, _)| number.parse().ok());
            sections.push(Section { line, number, tests: Vec::new() });
        }
        if let Some(section) = sections.last_mut() {
            section.tests.extend(tests(text).map(|(path, name)| (line, path, name)));
        }
    }
    sections
}

/// Each `PATH.rs::NAME` in backquotes.
fn tests(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.filter_map(|text| text.split_once("::")).filter(|(path, _)| extension(path) == Some("rs"))
}

fn exists(sources: &[Source], path: &str, name: &str) -> bool {
    let function = format!("fn {name}");
    sources.iter().any(|source| source.path == path && stands_alone(&source.text, &function))
}

/// The numbers behind the word in `line`: one, a list, or a range.
fn cited(line: &str) -> Vec<u32> {
    let line = line.to_lowercase();
    let mut numbers = Vec::new();
    for (at, word) in line.match_indices("invariant") {
        let rest = &line[at + word.len()..];
        let mut rest = rest.strip_prefix('s').unwrap_or(rest);
        let mut previous = None;
        while let Some((number, behind)) = leading_number(rest) {
            numbers.extend(previous.map_or(number..=number, |first| first..=number));
            let behind = behind.trim_start();
            let (next, is_range) = behind.strip_prefix("to ").map_or((behind, false), |next| (next, true));
            let next = next.strip_prefix(',').unwrap_or(next).trim_start();
            rest = next.strip_prefix("and ").unwrap_or(next);
            previous = is_range.then_some(number + 1);
            if rest.len() == behind.len() {
                break;
            }
        }
    }
    numbers
}

fn leading_number(text: &str) -> Option<(u32, &str)> {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// Words that hide the subject of a sentence, in comments of Rust files and in pages of `docs/`.
pub(super) fn words(source: &Source) -> Vec<Problem> {
    let words: Vec<&str> = WORDS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let is_page = source.path.starts_with("docs/") && source.is_markdown();
    let mut problems = Vec::new();
    let mut is_code = false;
    for (number, line) in (1..).zip(source.text.lines()) {
        let text = line.trim_start();
        if is_page && text.starts_with("```") {
            is_code = !is_code;
        }
        let is_prose = if is_page { !is_code } else { source.is_rust() && text.starts_with("//") };
        if !is_prose {
            continue;
        }
        let prose = text.split('`').step_by(2).collect::<Vec<_>>().join("`").to_lowercase();
        let found = words.iter().filter(|word| stands_alone(&prose, word));
        problems
            .extend(found.map(|word| Problem::new(source, number, format!("`{word}`: write plain English"))));
    }
    problems
}

#[cfg(test)]
mod tests;
