//! Documentation names files and modules that exist.

use std::collections::BTreeSet;

use super::source::{Problem, Source, extension};

const CRATES: &str = "onecli-daemon/crates/";

/// Checks the code spans of Markdown pages: paths of Rust files, and modules such as `proxy::exchange`.
///
/// A path begins at the root of the repository, or at a crate of the daemon, with or without its `src`: `proxy/h1/section.rs`.
pub(super) fn check(sources: &[Source]) -> Vec<Problem> {
    let files: BTreeSet<&str> = sources.iter().map(|source| source.path.as_str()).collect();
    let pages = sources.iter().filter(|source| source.is_markdown());
    pages.flat_map(|page| problems(page, &files)).collect()
}

fn problems(page: &Source, files: &BTreeSet<&str>) -> Vec<Problem> {
    let lines = (1..).zip(page.text.lines());
    let spans =
        lines.flat_map(|(number, line)| line.split('`').skip(1).step_by(2).map(move |span| (number, span)));
    spans
        .filter(|(_, span)| !is_there(span, files))
        .map(|(number, span)| Problem::new(page, number, format!("`{span}` does not exist")))
        .collect()
}

/// Whether a code span names no file or module, or one that exists.
fn is_there(span: &str, files: &BTreeSet<&str>) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-./:".contains(c);
    if !span.chars().all(is_name) {
        return true;
    }
    if let Some(path) =
        span.split("::").next().filter(|path| path.contains('/') && extension(path) == Some("rs"))
    {
        let (name, inside) = path.split_once('/').unwrap_or_default();
        let below = [String::new(), CRATES.to_owned()].map(|folder| folder + path);
        let in_crate = format!("{CRATES}{name}/src/{inside}");
        return below.iter().chain([&in_crate]).any(|path| files.contains(path.as_str()));
    }
    let mut segments = span.split("::");
    match (segments.next(), segments.next()) {
        (Some(name), Some(module)) if module.starts_with(|c: char| c.is_ascii_lowercase()) => {
            has_module(name, module, files)
        }
        _ => true,
    }
}

/// Whether a crate of the daemon has a module of this name, at any depth. True for other crates.
fn has_module(name: &str, module: &str, files: &BTreeSet<&str>) -> bool {
    let src = if name == "daemon" { "onecli-daemon/src/".to_owned() } else { format!("{CRATES}{name}/src/") };
    let mut own = files.iter().filter_map(|path| path.strip_prefix(&src)).peekable();
    let has = |path: &str| path.trim_end_matches(".rs").split('/').any(|segment| segment == module);
    own.peek().is_none() || own.any(has)
}
