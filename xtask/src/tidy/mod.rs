//! `cargo xtask tidy`: rules of layout and dependency text that the compiler does not check.
//!
//! Every rule is a function from files to [`Problem`]s, so that its test can pass it a bad file.

mod circles;
mod docs;
mod paths;
mod resolve;
mod rules;
mod source;
#[cfg(test)]
mod tests;
mod text;
mod unsafety;
mod values;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use source::{Problem, Source};

/// Checks `workspace`.
pub(crate) fn run(workspace: &Path) -> Result<()> {
    let sources = sources(workspace)?;
    let machine = text::machine_paths(workspace, std::env::home_dir().as_deref());
    let problems = check(&sources, &machine);
    for problem in &problems {
        eprintln!("{problem}");
    }
    if !problems.is_empty() {
        bail!("tidy: {} problems", problems.len());
    }
    println!("tidy: {} files, no problems", sources.len());
    Ok(())
}

/// Applies every rule to every file. `machine` lists paths that are valid only on this machine.
fn check(sources: &[Source], machine: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut aliases = values::Aliases::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        // Files that do not parse are reported below.
        if let Ok(file) = syn::parse_file(&source.text) {
            values::aliases(source, &file, &mut aliases);
        }
    }
    let mut files = Vec::new();
    for source in sources {
        problems.extend(text::check(source, machine));
        problems.extend(docs::contract(source));
        problems.extend(docs::words(source));
        if source.is_rust() {
            match syn::parse_file(&source.text) {
                Ok(file) => {
                    problems.extend(unsafety::check(source, &file));
                    problems.extend(values::check(source, &file, &aliases));
                    files.push((source, file));
                }
                Err(e) => problems.push(Problem::new(source, e.span().start().line, e.to_string())),
            }
        }
    }
    problems.extend(circles::check(&files));
    problems.extend(docs::invariants(sources));
    problems.extend(paths::check(sources));
    problems.extend(text::readme(sources));
    problems.extend(text::migrations(sources));
    problems.sort();
    problems.dedup();
    problems
}

/// Tracked files, and new files that git does not ignore, if they are text.
fn sources(workspace: &Path) -> Result<Vec<Source>> {
    let output = Command::new("git")
        .current_dir(workspace)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let mut sources = Vec::new();
    // Seeds of the fuzz targets are bytes, even if they look like text.
    let is_text = |path: &&str| !path.is_empty() && !path.starts_with("tests/fuzz/corpus/");
    for path in names.split('\0').filter(is_text) {
        // A deleted file that is not staged yet, or a broken link: there is nothing to read.
        let file = workspace.join(path);
        if !file.symlink_metadata().is_ok_and(|m| m.is_file()) {
            continue;
        }
        let bytes = std::fs::read(&file).with_context(|| path.to_owned())?;
        // Skips binary files such as the built BPF object.
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source { path: path.to_owned(), text });
        }
    }
    Ok(sources)
}
