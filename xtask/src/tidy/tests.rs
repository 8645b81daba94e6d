//! Tests each rule with files that break it and files that do not.

use std::path::Path;

use super::*;

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

/// The messages of all problems in one file, except those about the README and migrations.
fn problems(path: &str, text: &str) -> Vec<String> {
    let readme = source("README.md", "cargo xtask demo, cargo xtask test\n");
    let machine = text::machine_paths(Path::new("/build/one"), Some(Path::new("/people/me")));
    let found = check(&[source(path, text), readme], &machine);
    found.into_iter().map(|p| format!("{}: {}", p.line, p.message)).collect()
}

/// `code` after the documentation line in a file of a crate of ours.
fn in_daemon(file: &str, code: &str) -> Vec<String> {
    problems(&format!("onecli-daemon/crates/{file}"), &format!("//! x\n{code}\n"))
}

#[test]
fn crates_forbid_unsafe_code() {
    let bad = [
        ("onecli-daemon/crates/proxy/src/lib.rs", "//! x\npub mod a;\n"),
        ("onecli-daemon/src/main.rs", "//! x\n#![deny(unsafe_code)]\nfn main() {}\n"),
        ("onecli-daemon/crates/syslog/src/lib.rs", "//! x\n"),
        ("tests/src/bin/demo.rs", "//! x\nfn main() {}\n"),
        ("tests/src/bin/bench/main.rs", "//! x\nfn main() {}\n"),
        ("tests/system/main.rs", "//! x\nmod a;\n"),
        ("onecli-daemon/crates/audit/examples/a.rs", "//! x\nfn main() {}\n"),
    ];
    for (path, code) in bad {
        let found = problems(path, code);
        assert!(found.iter().any(|p| p.contains("forbid(unsafe_code)")), "{path}: {found:?}");
    }
    let good = [
        ("onecli-daemon/crates/proxy/src/lib.rs", "//! x\n\n#![forbid(unsafe_code)]\npub mod a;\n"),
        ("onecli-daemon/crates/sys/src/lib.rs", "//! x\npub mod a;\n"),
        ("onecli-daemon/crates/launch/src/lib.rs", "//! x\n"),
        ("onecli-ebpf/src/main.rs", "//! x\n"),
        ("onecli-daemon/crates/proxy/src/scrub.rs", "//! x\nmod a;\n"),
        ("tests/src/bin/bench/load.rs", "//! x\nfn f() {}\n"),
    ];
    for (path, code) in good {
        assert_eq!(problems(path, code), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn zeroed_values_are_not_printed() {
    for code in [
        "#[derive(Clone, Debug)] struct S { a: u8, b: Option<zeroize::Zeroizing<String>> }",
        "#[derive(Debug)] struct S(Zeroizing<Vec<u8>>);",
        "#[derive(std::fmt::Debug)] enum E { A, B { b: Arc<Zeroizing<String>> } }",
        "fn f() { #[derive(Debug)] struct S(Zeroizing<Vec<u8>>); }",
    ] {
        let found = in_daemon("proxy/src/a.rs", code);
        assert!(found.iter().any(|p| p.contains("derives `Debug` over a `Zeroizing`")), "{code}: {found:?}");
    }
    for code in [
        "#[derive(Clone)] struct S(Zeroizing<Vec<u8>>);",
        "#[derive(Debug)] struct S(SecretValue);",
        "#[derive(Debug)] struct S; fn f(_: Zeroizing<String>) {}",
    ] {
        assert_eq!(in_daemon("proxy/src/a.rs", code), Vec::<String>::new(), "{code}");
    }
    // The same type under another name.
    let with_keyring = |file: &str, code: &str| {
        let using = source(&format!("onecli-daemon/crates/vault/src/{file}"), &format!("//! x\n{code}\n"));
        let readme = source("README.md", "cargo xtask demo, cargo xtask test\n");
        let keyring =
            source("onecli-daemon/crates/vault/src/keyring.rs", "//! x\ntype Key = Zeroizing<[u8; 32]>;\n");
        check(&[using, keyring, readme], &[]).len()
    };
    for code in [
        "use super::keyring::Key; #[derive(Debug)] struct S(Key);",
        "use super::keyring::{KeyId, Key as Root}; #[derive(Debug)] struct S { a: Option<Root> }",
        "#[derive(Debug)] struct S(super::keyring::Key);",
        "use zeroize::Zeroizing as Z; #[derive(Debug)] struct S(Z<String>);",
    ] {
        assert_eq!(with_keyring("slots.rs", code), 1, "{code}");
    }
    for code in [
        "#[derive(Debug)] struct Key; #[derive(Debug)] struct S(Key);",
        "use super::binding::Key; #[derive(Debug)] struct S(Key);",
        "use super::keyring::Key; struct S(Key);",
    ] {
        assert_eq!(with_keyring("slots.rs", code), 0, "{code}");
    }
    let own = "type Key = Zeroizing<[u8; 32]>; #[derive(Debug)] struct S(Key);";
    assert_eq!(in_daemon("vault/src/other.rs", own).len(), 1);
}

#[test]
fn fields_named_like_values_are_not_printed() {
    for code in [
        "#[derive(Debug)] struct SlotAdded { recovery_key: Option<String> }",
        "#[derive(Debug)] enum E { A { password: String } }",
        "#[derive(Debug)] struct Request { env: Vec<(OsString, OsString)> }",
    ] {
        let found = in_daemon("proxy/src/a.rs", code);
        assert!(found.iter().any(|p| p.contains("derives `Debug` over the plain")), "{code}: {found:?}");
    }
    for code in [
        "struct SlotAdded { recovery_key: Option<String> }",
        "#[derive(Debug)] struct S { password: WireValue, env: Option<String> }",
        "#[derive(Debug)] struct S { passphrases: Vec<WireValue> }",
        "#[derive(Debug)] struct S { password_file: String }",
    ] {
        assert_eq!(in_daemon("proxy/src/a.rs", code), Vec::<String>::new(), "{code}");
    }
}

#[test]
fn broken_text_rules_are_reported() {
    let put_off = concat!("TO", "DO");
    let long = format!("//! x\n{}", "fn f() {}\n".repeat(500));
    let bad: &[(&str, &str, &str)] = &[
        ("xtask/src/a.rs", "fn f() {}\n", "1: a file must begin with a `//!` line"),
        ("xtask/src/a.rs", &long, "501: 501 lines; a file of code may have at most 500"),
        ("xtask/src/a.rs", "//! x\nfn f( {}\n", "2: "),
        ("a.md", "x \n", "1: white space at the end of the line"),
        ("a.sql", "x\r\n", "1: white space at the end of the line"),
        ("a.md", "x", "1: no newline at the end of the file"),
        ("xtask/src/a.rs", &format!("//! x\n// {put_off}: later\n"), "2: `TO"),
        ("xtask/src/a.rs", &format!("//! x\nfn f() {{ {}) }}\n", concat!("to", "do!(")), "2: `to"),
        ("a.md", "see /build/one/x\n", "1: `/build/one/` is valid only on one machine"),
        ("a.md", "see /people/me/x\n", "1: `/people/me/` is valid only on one machine"),
    ];
    for (path, text, message) in bad {
        let found = problems(path, text);
        assert!(found.iter().any(|p| p.starts_with(message)), "{path}: {text:?}: {found:?}");
    }
    let good: &[(&str, &str)] = &[
        ("xtask/src/tests.rs", &long),
        ("tests/system/a.rs", &long),
        ("a.md", &format!("{put_off}S and MAS{put_off} are other words\n")),
        ("empty.md", ""),
        ("a.md", "/builds/one and /proc/self/build/one/x\n"),
    ];
    for (path, text) in good {
        assert_eq!(problems(path, text), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn readme_without_a_command_is_reported() {
    let found = |text: &str| text::readme(&[source("README.md", text)]).len();
    assert_eq!(found("cargo xtask demo\ncargo xtask test\n"), 0);
    assert_eq!(found("cargo xtask demo\n"), 1);
    assert_eq!(text::readme(&[]).len(), 1);
}

#[test]
fn gaps_in_migration_numbers_are_reported() {
    let cases: &[(&[&str], usize)] = &[
        (&[], 0),
        (&["sqlite/0001_start.sql", "sqlite/0002_more.sql"], 0),
        (&["sqlite/0001_start.sql", "postgres/0001_start.sql"], 0),
        (&["sqlite/0002_start.sql"], 1),
        (&["sqlite/0001_start.sql", "sqlite/0003_more.sql"], 1),
        (&["sqlite/0001_start.sql", "sqlite/0001_again.sql"], 1),
        (&["sqlite/start.sql"], 1),
        (&["sqlite/0001_start.txt"], 1),
        (&["sqlite/0001_a.sql", "sqlite/0002_b.sql", "postgres/0001_a.sql"], 1),
    ];
    for (names, expected) in cases {
        let sources: Vec<_> = names.iter().map(|n| source(&format!("migrations/{n}"), "")).collect();
        assert_eq!(text::migrations(&sources).len(), *expected, "{names:?}");
    }
}

#[test]
fn files_and_modules_named_by_pages_exist() {
    let found = |page: &str| {
        let files = [
            source("docs/a.md", page),
            source("onecli-daemon/src/run.rs", "//! x\n"),
            source("onecli-daemon/crates/proxy/src/h1/section.rs", "//! x\n"),
            source("tests/system/leak.rs", "//! x\n"),
        ];
        paths::check(&files).into_iter().map(|p| format!("{}: {}", p.line, p.message)).collect::<Vec<_>>()
    };
    for page in [
        "see `proxy/h1/section.rs`, `proxy/src/h1/section.rs`, `onecli-daemon/crates/proxy/src/h1/section.rs` and `tests/system/leak.rs::a_test`",
        "see `proxy::h1`, `proxy::section`, `proxy::Exchange`, `daemon::run`, `std::fs`, `FILE::FUNCTION` and `a.rs`",
        "run `cargo test a/b.rs`, not proxy/gone.rs",
    ] {
        assert_eq!(found(page), Vec::<String>::new(), "{page}");
    }
    for (page, message) in [
        ("x\nsee `proxy/h2/section.rs`", "2: `proxy/h2/section.rs` does not exist"),
        ("see `tests/system/gone.rs::a_test`", "1: `tests/system/gone.rs::a_test` does not exist"),
        ("see `proxy::gone`", "1: `proxy::gone` does not exist"),
        ("see `daemon::gone::deeper`", "1: `daemon::gone::deeper` does not exist"),
    ] {
        assert_eq!(found(page), [message], "{page}");
    }
}
