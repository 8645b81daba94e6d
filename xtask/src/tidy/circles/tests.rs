//! Small crates with and without circles.

use super::*;

/// Checks the files of a crate `a`, given as path inside `src/` and code. Returns the files of each circle.
fn found(files: &[(&str, &str)]) -> Vec<String> {
    let sources: Vec<Source> = files
        .iter()
        .map(|(path, text)| Source { path: format!("a/src/{path}"), text: (*text).to_owned() })
        .collect();
    let parsed: Vec<(&Source, File)> =
        sources.iter().map(|source| (source, syn::parse_file(&source.text).unwrap())).collect();
    check(&parsed).into_iter().map(|problem| problem.message).collect()
}

fn check_crate(name: &str, files: &[(&str, &str)], expected: &[&str]) {
    let found = found(files);
    assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
    for (found, part) in found.iter().zip(expected) {
        assert!(found.contains(part), "{name}: {found}");
    }
}

const ROOT: (&str, &str) = ("lib.rs", "mod a; mod b; mod c; mod d;");
const TO_A: (&str, &str) = ("d.rs", "use crate::a::A; struct D;");

#[test]
fn circles_of_more_than_three_files_are_found() {
    let a = ("a.rs", "use super::b::B; pub struct A;");
    let b = ("b.rs", "pub struct B; fn f() -> crate::c::C { crate::c::C }");
    let c = ("c.rs", "use crate::d; pub struct C;");
    check_crate("four", &[ROOT, a, b, c, TO_A], &["4 files import each other"]);
    check_crate("three", &[ROOT, a, b, ("c.rs", "use crate::a::A;"), ("d.rs", "")], &[]);
    check_crate("chain", &[ROOT, a, b, c, ("d.rs", "")], &[]);
    let in_macro = ("c.rs", "fn f() { assert!(matches!(1, crate::d::D)); }");
    check_crate("macro", &[ROOT, a, b, in_macro, TO_A], &["4 files"]);
    let relative = ("c.rs", "mod e { use super::super::d::D; }");
    check_crate("inline module", &[ROOT, a, b, relative, TO_A], &["4 files"]);
    let alias = ("c.rs", "use crate::d as other; fn f(_: other::D) {}");
    check_crate("alias", &[ROOT, a, b, alias, TO_A], &["4 files"]);
    let same = ("c.rs", "use super::d::{self, D}; use std::fmt;");
    check_crate("self in a group", &[ROOT, a, b, same, TO_A], &["4 files"]);
}

#[test]
fn re_exports_lead_to_the_defining_file() {
    let root = ("lib.rs", "mod a; mod b; mod c; mod d; pub use a::A; pub use d::D as Other;");
    let a = ("a.rs", "use super::b::B; pub struct A;");
    let b = ("b.rs", "use crate::c::C; pub struct B;");
    let c = ("c.rs", "use crate::Other; pub struct C;");
    check_crate("circle", &[root, a, b, c, ("d.rs", "use crate::A; pub struct D;")], &["4 files"]);
    check_crate("no circle", &[root, a, b, c, ("d.rs", "pub struct D;")], &[]);
    let twice = ("lib.rs", "mod a; mod b; mod c; mod d; mod e; pub use e::Other; pub use a::A;");
    let through = ("e.rs", "pub(crate) use super::d::D as Other;");
    check_crate("twice", &[twice, through, a, b, c, TO_A], &["4 files"]);
}

#[test]
fn tests_are_left_out() {
    let a = ("a.rs", "use super::b::B; pub struct A;");
    let b = ("b.rs", "use crate::c::C; pub struct B;");
    let in_tests = [
        ("c.rs", "#[cfg(test)] mod tests { use crate::d::D; } pub struct C;"),
        ("c.rs", "#[cfg(test)] use crate::d::D; pub struct C;"),
        (
            "c.rs",
            "#[cfg(any(test, feature = \"testing\"))] fn f() -> crate::d::D { crate::d::D } pub struct C;",
        ),
        ("c.rs", "pub struct C; impl C { #[cfg(test)] fn f() -> crate::d::D { crate::d::D } }"),
    ];
    for c in in_tests {
        check_crate(c.1, &[ROOT, a, b, c, TO_A], &[]);
    }
    let c = ("c.rs", "#[cfg(test)] mod speed; pub struct C;");
    check_crate("test module", &[ROOT, a, b, c, ("c/speed.rs", "use crate::d::D;"), TO_A], &[]);
    let c = ("c.rs", "use crate::testing::D; pub struct C;");
    check_crate("testing", &[ROOT, a, b, c, ("testing.rs", "use crate::a::A;")], &[]);
    let c = ("c.rs", "use crate::d::D; pub struct C;");
    check_crate("not a test", &[ROOT, a, b, c, ("d.rs", "#[cfg(not(test))] use crate::a::A;")], &["4 files"]);
}

#[test]
fn circles_of_folders_are_found() {
    let root = ("lib.rs", "mod one; mod two; pub use one::a::A;");
    let one = ("one/mod.rs", "pub mod a; pub mod b;");
    let two = ("two/mod.rs", "pub mod c; pub mod d;");
    let a = ("one/a.rs", "use crate::two::c::C; pub struct A;");
    let b = ("one/b.rs", "pub struct B;");
    let c = ("two/c.rs", "pub struct C;");
    let across = ("two/d.rs", "use crate::one::b::B;");
    check_crate("across", &[root, one, two, a, b, c, across], &["folders import each other in a circle"]);
    check_crate("one way", &[root, one, two, a, b, c, ("two/d.rs", "use super::c::C;")], &[]);
    let through = ("two/d.rs", "use crate::A;");
    check_crate("re-export", &[root, one, two, a, b, c, through], &["a/src/two/d.rs -> a/src/one/a.rs"]);
}

#[test]
fn programs_are_crates_of_their_own() {
    let files = [
        ("lib.rs", "pub mod a;"),
        ("a.rs", "pub struct A;"),
        ("main.rs", "use a::A;"),
        ("bin/x/main.rs", "mod one; mod two;"),
        ("bin/x/one.rs", "use crate::two::T; pub struct O;"),
        ("bin/x/two.rs", "use crate::one::O; pub struct T;"),
    ];
    check_crate("pair in a program", &files, &[]);
}
