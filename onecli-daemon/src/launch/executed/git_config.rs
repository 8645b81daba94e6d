//! What a git configuration names in the project: hooks, included files, programs (git-config(1)).

use std::path::{Path, PathBuf};

/// A value of a configuration that may be a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// The value's first word.
    pub(super) path: PathBuf,
    /// Whether it is the directory of hooks.
    pub(super) is_hooks: bool,
}

/// The values of a configuration. Read loosely: a value too many is looked at for nothing.
pub(super) fn named(text: &[u8]) -> Vec<Named> {
    String::from_utf8_lossy(text).lines().filter_map(line).collect()
}

/// `core.worktree`: the working tree, relative to the git directory.
pub(super) fn worktree(text: &[u8]) -> Option<PathBuf> {
    let text = String::from_utf8_lossy(text);
    let value = text.lines().filter_map(key_and_value).find(|(key, _)| key == "worktree");
    value.map(|(_, value)| PathBuf::from(unquoted(value)))
}

/// Whether `config.worktree` is read besides.
pub(super) fn reads_worktree_config(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).to_ascii_lowercase().contains("worktreeconfig")
}

fn line(line: &str) -> Option<Named> {
    let (key, value) = key_and_value(line)?;
    let value = unquoted(value);
    let word = value.trim_start_matches('!').split_whitespace().next()?;
    let path = Path::new(word);
    let is_path = path.components().any(|part| matches!(part, std::path::Component::Normal(_)));
    is_path.then(|| Named { path: path.to_owned(), is_hooks: key == "hookspath" })
}

/// `[section] key = value`, the section's name in the same line or not.
fn key_and_value(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.split_once('=')?;
    let key = key.rsplit(']').next()?.trim().to_ascii_lowercase();
    Some((key, value.trim()))
}

fn unquoted(value: &str) -> &str {
    value.split([';', '#']).next().unwrap_or(value).trim().trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_may_be_paths() {
        let text = b"[core]\n\tbare = false\n\thooksPath = \"../hooks\" ; ours\n[include] path=extra.cfg\n\
            [alias]\n\tx = !./run.sh --now\n[core]\n\tworktree = ../../lib\n\tempty =\n";
        let found: Vec<_> = named(text)
            .into_iter()
            .map(|named| (named.path.to_str().unwrap().to_owned(), named.is_hooks))
            .collect();
        let expected = [
            ("false", false),
            ("../hooks", true),
            ("extra.cfg", false),
            ("./run.sh", false),
            ("../../lib", false),
        ];
        assert_eq!(found, expected.map(|(path, is_hooks)| (path.to_owned(), is_hooks)));
        assert_eq!(worktree(text), Some("../../lib".into()));
        assert!(
            reads_worktree_config(b"[extensions]\n worktreeConfig = true\n") && !reads_worktree_config(text)
        );
    }
}
