//! Every crate forbids `unsafe` code, but for those that need it.

use syn::File;

use super::rules::UNSAFE;
use super::source::{Problem, Source};

/// Checks the root file of a crate: a library, a program, a test program.
pub(super) fn check(source: &Source, file: &File) -> Vec<Problem> {
    if !is_root(&source.path) || UNSAFE.iter().any(|name| source.path.starts_with(&format!("{name}/"))) {
        return Vec::new();
    }
    let forbids = file.attrs.iter().any(|attribute| {
        attribute.path().is_ident("forbid")
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "unsafe_code")
    });
    if forbids {
        return Vec::new();
    }
    vec![Problem::new(
        source,
        1,
        "a crate says `#![forbid(unsafe_code)]`; see UNSAFE in xtask/src/tidy/rules.rs",
    )]
}

/// Whether rustc begins at this file.
fn is_root(path: &str) -> bool {
    let Some((before, file)) = path.rsplit_once('/') else { return false };
    match file {
        "lib.rs" => true,
        "main.rs" => before.ends_with("/src") || before.contains("/bin/") || before.ends_with("/system"),
        _ => before.ends_with("/src/bin") || before.ends_with("/examples"),
    }
}
