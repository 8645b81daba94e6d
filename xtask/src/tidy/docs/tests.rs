//! Each rule with texts that break it and texts that do not.

use super::*;

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

fn shown(problems: Vec<Problem>) -> Vec<String> {
    problems.into_iter().map(|p| format!("{}:{}: {}", p.path, p.line, p.message)).collect()
}

/// A page with invariants 1 and 2, each with a test.
const PAGE: &str = "# Invariants\n\n## 1. One holds\n\n- `a/b.rs::one`\n\n## 2. Two holds\n\nSee `x::Y` and `a/b.rs::two`.\n\n\
                    ## Planned\n\n- 3, later\n";

fn with_page(page: &str, path: &str, text: &str) -> Vec<String> {
    let tests = source("a/b.rs", "//! x\n#[test]\nfn one() {}\nasync fn two() {}\nfn three_and_more() {}\n");
    shown(invariants(&[source(INVARIANTS, page), tests, source(path, text)]))
}

#[test]
fn cited_numbers_are_invariants() {
    for (text, expected) in [
        ("// Invariant 3: later\n", &["src/a.rs:1: docs/security/invariants.md has no invariant 3"][..]),
        ("\n(invariants 1, 2 and 14)\n", &["src/a.rs:2: docs/security/invariants.md has no invariant 14"]),
        (
            "invariants 2 to 4",
            &[
                "src/a.rs:1: docs/security/invariants.md has no invariant 3",
                "src/a.rs:1: docs/security/invariants.md has no invariant 4",
            ],
        ),
        ("invariant 12", &["src/a.rs:1: docs/security/invariants.md has no invariant 12"]),
        ("Invariant 1, and invariants 1 and 2.", &[]),
        ("invariants 1, 2, and 1; 3 more", &[]),
        ("an invariant: 3 of them; invariants of 4", &[]),
    ] {
        assert_eq!(with_page(PAGE, "src/a.rs", text), expected, "{text}");
    }
    assert_eq!(with_page(PAGE, "xtask/src/tidy/a.rs", "invariant 9"), [""; 0]);
    assert_eq!(invariants(&[source("a.rs", "invariant 1")]).len(), 1, "without a page there are none");
}

#[test]
fn invariants_name_tests_that_exist() {
    for (page, expected) in [
        (PAGE, &[][..]),
        ("## 1. One\n\nno test\n", &["docs/security/invariants.md:1: invariant 1 names no test"]),
        ("## 1. One\n\n`Type::NAME`\n", &["docs/security/invariants.md:1: invariant 1 names no test"]),
        ("## 1. One\n`a/b.rs::other`\n", &["docs/security/invariants.md:2: no test `a/b.rs::other`"]),
        ("## 1. One\n`a/b.rs::three`\n", &["docs/security/invariants.md:2: no test `a/b.rs::three`"]),
        ("## 1. One\n`b.rs::one`\n", &["docs/security/invariants.md:2: no test `b.rs::one`"]),
        (
            "## 1. One\n`a/b.rs::one`\n## 1. Two\n`a/b.rs::two`\n",
            &["docs/security/invariants.md:3: invariant 1 is there twice"],
        ),
        (
            "## More\n- **It holds**\n  - `a/b.rs::none`\n",
            &["docs/security/invariants.md:3: no test `a/b.rs::none`"],
        ),
    ] {
        assert_eq!(with_page(page, "src/a.rs", ""), expected, "{page}");
    }
}

#[test]
fn the_contract_is_not_named() {
    let name = CONTRACT;
    for bad in [format!("see {name} section 7"), format!("{name}.md"), format!("({name})")] {
        assert_eq!(contract(&source("a.md", &bad)).len(), 1, "{bad}");
    }
    for good in [name.to_lowercase(), format!("RE{name}"), format!("{name}ED")] {
        assert_eq!(contract(&source("a.md", &good)).len(), 0, "{good}");
    }
}

#[test]
fn words_of_the_list_are_avoided_in_prose() {
    let word = "nobody";
    for (path, text, lines) in [
        (
            "a.rs",
            format!("/// {word} is here\nfn f() {{}}\n    // And {}.\n", word.to_uppercase()),
            &[1, 3][..],
        ),
        (
            "a.rs",
            format!("fn {word}() {{}} // {word}\nlet s = \"{word}\";\n// `{word}` and {word}_else\n"),
            &[],
        ),
        ("docs/a/b.md", format!("# {word}\n\n```\n{word}\n```\n\n`{word}`, then {word}\n"), &[1, 7]),
        ("README.md", word.to_owned(), &[]),
        ("a.rs", "// That is had\n// from a place. It is had from there.\n".to_owned(), &[1, 2, 2]),
        ("docs/a.md", "A fact that is in the kernel's word.\n".to_owned(), &[1]),
        ("docs/a.md", "The daemon keeps a copy and reports it.\n".to_owned(), &[]),
    ] {
        let found: Vec<usize> = words(&source(path, &text)).into_iter().map(|p| p.line).collect();
        assert_eq!(found, lines, "{path}: {text}");
    }
}

#[test]
fn the_list_has_one_word_a_line() {
    let mut lines = WORDS.lines();
    assert!(lines.next().is_some_and(|line| line.starts_with('#')), "a comment that describes the list");
    for word in lines {
        assert!(!word.is_empty() && word == word.trim() && word == word.to_lowercase(), "{word:?}");
    }
}
