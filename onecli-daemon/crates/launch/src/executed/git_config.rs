//! The names in a git configuration: hooks, included files, programs (git-config(1)).

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::path::{Component, Path, PathBuf};
use std::str::Chars;

use shlex::Shlex;

/// Largest git configuration, bytes.
pub(super) const MAX_CONFIG: u64 = 1024 * 1024;

/// Git's use of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// The directory of hooks.
    Hooks,
    /// A file with more configuration, relative to the one that names it.
    Include,
    /// A word of a value, which may be a command.
    Word,
}

/// A name in a configuration that may be a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) path: PathBuf,
    pub(super) used: Use,
}

/// Returns the names in a configuration. The parser is lenient: a superfluous name is looked up without result.
pub(super) fn named(text: &[u8]) -> Vec<Named> {
    let text = String::from_utf8_lossy(text);
    Variables::of(&text)
        .filter(|variable| !variable.names_refs())
        .flat_map(|variable| variable.names())
        .collect()
}

/// Returns `core.worktree`: the working tree, relative to the git directory.
pub(super) fn worktree(text: &[u8]) -> Option<PathBuf> {
    let text = String::from_utf8_lossy(text);
    let found = Variables::of(&text).filter(|variable| variable.is("core", "worktree")).last();
    found.map(|variable| PathBuf::from(variable.value))
}

/// Whether git also reads `config.worktree`.
pub(super) fn reads_worktree_config(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).to_ascii_lowercase().contains("worktreeconfig")
}

/// `section.key = value`. The names are in lower case and without the subsection.
#[derive(Debug, Default, PartialEq, Eq)]
struct Variable {
    section: String,
    key: String,
    value: String,
}

impl Variable {
    fn is(&self, section: &str, key: &str) -> bool {
        self.section == section && self.key == key
    }

    /// Whether it holds branches or refspecs: `refs/heads/main` is a file of the git directory, and not a program.
    fn names_refs(&self) -> bool {
        self.section == "branch" || self.section == "remote" && matches!(&*self.key, "fetch" | "push")
    }

    fn names(&self) -> Vec<Named> {
        let used = match &*self.key {
            "hookspath" => Use::Hooks,
            "path" if self.section.starts_with("include") => Use::Include,
            _ => return words(&self.value).map(|path| Named { path, used: Use::Word }).collect(),
        };
        vec![Named { path: PathBuf::from(&self.value), used }]
    }
}

/// Returns the words of a command as a shell separates them, and their parts: `a|b`, `--file=x`, a script in quotes.
fn words(value: &str) -> impl Iterator<Item = PathBuf> {
    let value = value.strip_prefix('!').unwrap_or(value);
    let is_between = |c: char| c.is_whitespace() || "|&;<>()$`\"'{}=,!:".contains(c);
    let mut seen = BTreeSet::new();
    let all = Shlex::new(value).chain(value.split(is_between).map(str::to_owned));
    let all = all.filter(|word| !word.starts_with('-')).map(PathBuf::from);
    all.filter(|path| path.components().any(|part| matches!(part, Component::Normal(_))))
        .filter(move |path| seen.insert(path.clone()))
        .collect::<Vec<_>>()
        .into_iter()
}

/// The variables of a configuration.
struct Variables<'t> {
    rest: Peekable<Chars<'t>>,
    section: String,
}

impl<'t> Variables<'t> {
    fn of(text: &'t str) -> Self {
        Self { rest: text.chars().peekable(), section: String::new() }
    }

    /// Reads `[section "subsection"]`, starting after the opening bracket.
    fn header(&mut self) {
        let mut header = String::new();
        let mut is_quoted = false;
        while let Some(c) = self.rest.next_if(|c| *c != '\n' && (is_quoted || *c != ']')) {
            is_quoted ^= c == '"';
            header.push(c);
        }
        self.rest.next_if_eq(&']');
        let name = header.split(|c: char| c.is_whitespace() || c == '"' || c == '.').next();
        self.section = name.unwrap_or_default().to_ascii_lowercase();
    }

    fn comment(&mut self) {
        while self.rest.next_if(|c| *c != '\n').is_some() {}
    }

    /// Reads from behind the equals sign to the end of the first line that is not continued.
    fn value(&mut self) -> String {
        let mut value = String::new();
        let mut is_quoted = false;
        while let Some(c) = self.rest.next_if(|c| is_quoted || *c != '\n') {
            match c {
                '"' => is_quoted = !is_quoted,
                '\\' => value.extend(self.escaped()),
                '#' | ';' if !is_quoted => self.comment(),
                c => value.push(c),
            }
        }
        value.trim().to_owned()
    }

    fn escaped(&mut self) -> Option<char> {
        self.rest.next_if_eq(&'\r');
        match self.rest.next()? {
            '\n' => None,
            'n' => Some('\n'),
            't' => Some('\t'),
            c => Some(c),
        }
    }
}

impl Iterator for Variables<'_> {
    type Item = Variable;

    fn next(&mut self) -> Option<Variable> {
        loop {
            match self.rest.next()? {
                '[' => self.header(),
                '#' | ';' => self.comment(),
                c if c.is_whitespace() => {}
                first => {
                    let mut key = String::from(first);
                    while let Some(c) = self.rest.next_if(|c| *c != '=' && *c != '\n') {
                        key.push(c);
                    }
                    if self.rest.next_if_eq(&'=').is_some() {
                        let key = key.trim().to_ascii_lowercase();
                        return Some(Variable { section: self.section.clone(), key, value: self.value() });
                    }
                }
            }
        }
    }
}

/// Expands a name that starts with `~` relative to the user's home. Returns `None` if there is no home.
pub(super) fn expanded(name: &Path, home: Option<&Path>) -> Option<PathBuf> {
    match name.strip_prefix("~") {
        Ok(below) => home.map(|home| home.join(below)),
        Err(_) => Some(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_may_be_paths_are_found() {
        let text = b"[core]\n\tbare = false\n\thooksPath = \"../hooks\" ; ours\n[include] path=extra.cfg\n\
            [alias]\n\tx = !./run.sh --now\n[core]\n\tworktree = ../../lib\n\tempty =\n";
        let found: Vec<_> = named(text)
            .into_iter()
            .map(|named| (named.path.to_str().unwrap().to_owned(), named.used == Use::Hooks))
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

    #[test]
    fn words_of_commands_are_found() {
        let check = |value: &str, expected: &[&str]| {
            let text = format!("[a \"b]c\"]\n\tkey = {value}\n");
            let found: Vec<_> = named(text.as_bytes()).into_iter().map(|named| named.path).collect();
            for path in expected {
                assert!(found.contains(&PathBuf::from(path)), "{value}: {path} of {found:?}");
            }
        };
        check("sh scripts/f.sh", &["scripts/f.sh"]);
        check("env A=1 x ./y", &["x", "./y"]);
        check("\"a|b;c&&d\"", &["a", "b", "c", "d"]);
        check("python3 tools/m.py %O %A", &["tools/m.py"]);
        check("!f(){ ./scripts/cred; }; f", &["./scripts/cred"]);
        check(r#""sh 'my scripts/f.sh'""#, &["my scripts/f.sh"]);
        check(r#"sh -c \"sh a/b\""#, &["a/b"]);
        check("tool --config=x/y", &["x/y"]);
        check("sh \\\n  next/line", &["next/line"]);
        check("it's broken", &["broken"]);
        check("# none \\\n\tother = behind/comment", &["behind/comment"]);
        check("\"a ; b\" # c", &["b"]);
    }

    #[test]
    fn branches_and_refspecs_are_ignored() {
        let text = b"[branch \"main\"]\n\tremote = origin\n\tmerge = refs/heads/main\n\
            [remote \"origin\"]\n\turl = ../x.git\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n";
        let found: Vec<_> = named(text).into_iter().map(|named| named.path).collect();
        assert_eq!(found, [Path::new("../x.git")]);
    }
}
