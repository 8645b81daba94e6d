//! Checks that the files of a crate import each other in one direction.
//!
//! At most three files of a crate may import each other in a circle, and folders of a crate may not. A file is a module;
//! a `pub use` leads to the module that it names, so that a re-export alone is no import. Tests are left out.

use std::collections::{BTreeMap, BTreeSet};

use syn::{File, Item};

use super::resolve::{self, Named};
use super::source::{Problem, Source};

/// The largest number of files that may import each other in a circle.
const MOST_FILES: usize = 3;
/// The number of re-exports that are followed from one name.
const MOST_EXPORTS: usize = 8;

/// The path of a module inside its crate; empty for the crate's root.
type Module = Vec<String>;
/// Which nodes import which.
type Graph<N> = BTreeMap<N, BTreeSet<N>>;

/// A module that is a file.
struct Parsed<'s> {
    source: &'s Source,
    named: Vec<Named>,
}

/// The files of one crate.
#[derive(Default)]
struct Crate<'s> {
    modules: BTreeMap<Module, Parsed<'s>>,
}

/// One import of another file, and its line.
type Imports = BTreeMap<(Module, Module), usize>;

/// Checks every crate. `files` are the files that parse.
pub(super) fn check(files: &[(&Source, File)]) -> Vec<Problem> {
    let roots = roots(files.iter().map(|(source, _)| source.path.as_str()));
    let mut crates: BTreeMap<&str, Vec<&(&Source, File)>> = BTreeMap::new();
    for file in files {
        if let Some(root) = root_of(&file.0.path, &roots) {
            crates.entry(root).or_default().push(file);
        }
    }
    crates.into_iter().flat_map(|(root, files)| Crate::new(root, &files).problems()).collect()
}

/// The folders of all crates, with `/` at the end: those with `lib.rs` or `main.rs`.
fn roots<'s>(paths: impl Iterator<Item = &'s str>) -> BTreeSet<&'s str> {
    let names = ["lib.rs", "main.rs"];
    let root = |path: &'s str| names.iter().find_map(|name| path.strip_suffix(name));
    paths.filter_map(root).filter(|root| root.contains("src/") && root.ends_with('/')).collect()
}

/// The innermost crate that contains the file.
fn root_of<'r>(path: &str, roots: &BTreeSet<&'r str>) -> Option<&'r str> {
    roots.iter().copied().filter(|root| path.starts_with(root)).max_by_key(|root| root.len())
}

/// The module of a file, from its path inside its crate: `http/mod.rs` and `http.rs` are both `["http"]`.
fn module_of(inside: &str) -> Module {
    let mut parts: Module = inside.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let is_root = parts.len() == 1 && ["lib", "main"].contains(&parts[0].as_str());
    if is_root || parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

impl<'s> Crate<'s> {
    fn new(root: &str, files: &[&'s (&'s Source, File)]) -> Crate<'s> {
        let has_lib = files.iter().any(|(source, _)| source.path[root.len()..] == *"lib.rs");
        let mut modules = BTreeMap::new();
        let mut tests = BTreeSet::new();
        for (source, file) in files {
            let inside = &source.path[root.len()..];
            // `main.rs` beside `lib.rs` is a program that uses the library. A file of `bin` is a program of its own.
            let is_program = (has_lib && inside == "main.rs") || inside.starts_with("bin/");
            if is_program || source.is_test() || inside.ends_with("testing.rs") {
                continue;
            }
            let module = module_of(inside);
            tests.extend(test_modules(file, &module));
            let named = resolve::paths(file, &module);
            modules.insert(module, Parsed { source, named });
        }
        modules.retain(|module, _| !(1..=module.len()).any(|length| tests.contains(&module[..length])));
        Crate { modules }
    }

    fn problems(&self) -> Vec<Problem> {
        let imports = self.imports();
        let mut files: Graph<&Module> = self.modules.keys().map(|module| (module, BTreeSet::new())).collect();
        let mut folders: Graph<&str> = BTreeMap::new();
        for (from, to) in imports.keys() {
            files.entry(from).or_default().insert(to);
            let (from, to) = (self.folder(from), self.folder(to));
            if from != to {
                folders.entry(from).or_default().insert(to);
            }
        }
        let large = circles(&files).into_iter().filter(|circle| circle.len() > MOST_FILES);
        let of_files = large.map(|circle| self.file_problem(&circle, &imports));
        let of_folders = circles(&folders).into_iter().map(|circle| self.folder_problem(&circle, &imports));
        of_files.chain(of_folders).collect()
    }

    fn file_problem(&self, circle: &BTreeSet<&Module>, imports: &Imports) -> Problem {
        let is_inside = |module: &Module| circle.contains(module);
        let names: Vec<&str> = circle.iter().map(|module| self.path(module)).collect();
        let message = format!(
            "{} files import each other in a circle, at most {MOST_FILES} may: {}; move what they share into a file \
             that imports none of them",
            circle.len(),
            names.join(", ")
        );
        self.problem(imports, |from, to| is_inside(from) && is_inside(to), message)
    }

    fn folder_problem(&self, circle: &BTreeSet<&str>, imports: &Imports) -> Problem {
        let crosses = |from: &Module, to: &Module| {
            let (from, to) = (self.folder(from), self.folder(to));
            from != to && circle.contains(from) && circle.contains(to)
        };
        let pairs: Vec<String> = imports
            .keys()
            .filter(|(from, to)| crosses(from, to))
            .map(|(from, to)| format!("{} -> {}", self.path(from), self.path(to)))
            .collect();
        let message = format!("folders import each other in a circle: {}", pairs.join(", "));
        self.problem(imports, crosses, message)
    }

    /// A problem at the first import that `is_part` accepts.
    fn problem(
        &self,
        imports: &Imports,
        is_part: impl Fn(&Module, &Module) -> bool,
        message: String,
    ) -> Problem {
        let first = imports.iter().find(|((from, to), _)| is_part(from, to));
        let (path, line) = first.map_or(("", 1), |((from, _), line)| (self.path(from), *line));
        Problem { path: path.to_owned(), line, message }
    }

    fn path(&self, module: &Module) -> &'s str {
        self.modules.get(module).map_or("", |parsed| parsed.source.path.as_str())
    }

    fn folder(&self, module: &Module) -> &'s str {
        self.path(module).rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// The first line on which one file names something in another.
    fn imports(&self) -> Imports {
        let mut all = Imports::new();
        for (module, parsed) in &self.modules {
            for named in &parsed.named {
                let Some(target) = self.absolute(module, &named.segments).and_then(|path| self.find(path))
                else {
                    continue;
                };
                let is_public = named.import.as_ref().is_some_and(|import| import.is_public);
                let is_export = is_public && target.starts_with(module);
                if target != *module && !is_export {
                    all.entry((module.clone(), target)).or_insert(named.line);
                }
            }
        }
        all
    }

    /// The path from the crate's root on; `None` for another crate's. A path without `crate`, `self` or `super` may begin
    /// with a child module or with an imported name.
    fn absolute(&self, module: &Module, segments: &[String]) -> Option<Vec<String>> {
        let (first, rest) = segments.split_first()?;
        if first == "crate" {
            return Some(rest.to_vec());
        }
        // A single word may be a variable.
        if rest.is_empty() {
            return None;
        }
        let child: Module = module.iter().chain([first]).cloned().collect();
        if self.modules.contains_key(&child) {
            return Some(child.into_iter().chain(rest.iter().cloned()).collect());
        }
        let import = self.import(module, first, |_| true)?;
        let inside = import.segments.strip_prefix(&["crate".to_owned()])?;
        Some(inside.iter().chain(rest).cloned().collect())
    }

    /// The file in which the item is: the innermost module, and from there along re-exports.
    fn find(&self, mut path: Vec<String>) -> Option<Module> {
        for _ in 0..MOST_EXPORTS {
            let length = (0..=path.len()).rev().find(|length| self.modules.contains_key(&path[..*length]))?;
            let (module, rest) = path.split_at(length);
            let module = module.to_vec();
            let exported = rest.first().and_then(|name| self.import(&module, name, |is_public| is_public));
            let target = exported.and_then(|export| self.target(&module, &export.segments));
            match target {
                Some(target) => path = target.into_iter().chain(rest[1..].iter().cloned()).collect(),
                None => return Some(module),
            }
        }
        None
    }

    /// The path that an import leads to, if it is in this crate.
    fn target(&self, module: &Module, segments: &[String]) -> Option<Vec<String>> {
        match segments.split_first()? {
            (first, rest) if first == "crate" => Some(rest.to_vec()),
            _ => self.absolute(module, segments),
        }
    }

    fn import(&self, module: &Module, name: &str, is_wanted: impl Fn(bool) -> bool) -> Option<&Named> {
        let is_it = |named: &&Named| {
            let import = named.import.as_ref();
            import.is_some_and(|import| import.name.as_deref() == Some(name) && is_wanted(import.is_public))
        };
        self.modules.get(module)?.named.iter().find(is_it)
    }
}

/// The modules that a file declares only for tests.
fn test_modules(file: &File, module: &Module) -> Vec<Module> {
    let of = |item: &Item| match item {
        Item::Mod(child) if resolve::is_test(&child.attrs) => Some(child.ident.to_string()),
        _ => None,
    };
    let path = |name: String| module.iter().cloned().chain([name]).collect();
    file.items.iter().filter_map(of).map(path).collect()
}

/// The sets of nodes that reach each other, of two nodes or more.
fn circles<N: Ord + Copy>(graph: &Graph<N>) -> Vec<BTreeSet<N>> {
    let reach: Graph<N> = graph.keys().map(|node| (*node, reached(graph, *node))).collect();
    let mut found: Vec<BTreeSet<N>> = Vec::new();
    for node in graph.keys() {
        let is_mutual = |other: &N| reach.get(other).is_some_and(|back| back.contains(node));
        let circle: BTreeSet<N> = reach[node].iter().copied().filter(is_mutual).collect();
        if circle.len() > 1 && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

/// Every node that `start` leads to.
fn reached<N: Ord + Copy>(graph: &Graph<N>, start: N) -> BTreeSet<N> {
    let mut seen = BTreeSet::new();
    let mut open = vec![start];
    while let Some(node) = open.pop() {
        for next in graph.get(&node).into_iter().flatten() {
            if seen.insert(*next) {
                open.push(*next);
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests;
