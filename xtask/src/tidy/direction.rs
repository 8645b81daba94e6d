//! Which module of onecli-daemon may name which, and which may name a crate.

use syn::File;

use super::resolve::{module_of, paths};
use super::rules::{EDGES, Names, OWNERS};
use super::{Problem, Source};

/// Checks a file of onecli-daemon; tests may name what they like.
pub(super) fn check(source: &Source, file: &File) -> Vec<Problem> {
    let Some(module) = module_of(&source.path) else { return Vec::new() };
    if source.is_test() {
        return Vec::new();
    }
    let top = module.first().map(String::as_str);
    let rule = top.and_then(|top| EDGES.iter().find(|(name, _)| *name == top));
    let mut problems = Vec::new();
    if let Some(top) = top
        && top != "bin"
        && rule.is_none()
    {
        let message = format!("module `{top}` is not in the table of directions (xtask/src/tidy/rules.rs)");
        problems.push(Problem::new(source, 1, message));
    }
    for named in paths(file, &module) {
        let mut segments = named.segments.iter().map(String::as_str);
        match (segments.next(), segments.next()) {
            (Some("crate"), Some(other)) => {
                // A name that is no module is an item of the crate's root.
                let is_module = EDGES.iter().any(|(name, _)| *name == other);
                if let (Some((top, Names::Only(allowed))), true) = (rule, is_module)
                    && *top != other
                    && !allowed.contains(&other)
                {
                    let message = format!("`{top}` may not name `{other}`; it may name: {}", list(allowed));
                    problems.push(Problem::new(source, named.line, message));
                }
            }
            (Some(first), _) => {
                if let Some((name, owners)) = OWNERS.iter().find(|(name, _)| *name == first)
                    && !owners.iter().any(|owner| within(&module, owner))
                {
                    let message = format!("crate `{name}` belongs to {} alone", list(owners));
                    problems.push(Problem::new(source, named.line, message));
                }
            }
            (None, _) => {}
        }
    }
    problems
}

/// Is `module` the module `owner` (`vault::envelope`) or below it?
fn within(module: &[String], owner: &str) -> bool {
    let owner: Vec<_> = owner.split("::").collect();
    module.len() >= owner.len() && module.iter().zip(&owner).all(|(m, o)| m == o)
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing else".to_owned() } else { names.join(", ") }
}
