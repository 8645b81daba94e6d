//! Names of files that other programs execute, or take commands from, when somebody works in a directory.

/// Which programs execute a file; those that ask the least come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Any command of git.
    Git,
    /// Any command of git there, or of a program that looks through the project.
    Repository,
    /// Commands of git that go on with what was interrupted.
    Interrupted,
    /// Shells that enter the directory.
    Shell,
    /// Editors, debuggers and assistants.
    Editor,
    /// Package managers.
    Package,
}

impl Kind {
    /// All, in order.
    pub(super) const ALL: [Kind; 6] =
        [Kind::Git, Kind::Repository, Kind::Interrupted, Kind::Shell, Kind::Editor, Kind::Package];

    /// As a heading.
    pub(super) fn heading(self) -> &'static str {
        match self {
            Kind::Git => "git configuration, hooks, and files that they name",
            Kind::Repository => "git repositories",
            Kind::Interrupted => {
                "interrupted git operations (git executes what is in there when you continue them)"
            }
            Kind::Shell => "environments of shells",
            Kind::Editor => "settings of editors, debuggers and assistants",
            Kind::Package => "package managers and their scripts",
        }
    }
}

/// Files.
pub(super) const FILES: &[(&str, Kind)] = &[
    (".devcontainer.json", Kind::Editor),
    // direnv: runs when a shell enters the directory, once it was allowed.
    (".envrc", Kind::Shell),
    (".exrc", Kind::Editor),
    (".gdbinit", Kind::Editor),
    // Commands that Claude Code and others start as MCP servers.
    (".mcp.json", Kind::Editor),
    (".mise.toml", Kind::Shell),
    // Names the programs that npm and Yarn start.
    (".npmrc", Kind::Package),
    (".nvim.lua", Kind::Editor),
    (".nvimrc", Kind::Editor),
    (".pre-commit-config.yaml", Kind::Package),
    (".yarnrc", Kind::Package),
    (".yarnrc.yml", Kind::Package),
    ("mise.toml", Kind::Shell),
    (PACKAGE, Kind::Package),
];
/// Directories, with all files below them.
pub(super) const DIRECTORIES: &[(&str, Kind)] = &[
    (".claude", Kind::Editor),
    (".cursor", Kind::Editor),
    (".devcontainer", Kind::Editor),
    (".husky", Kind::Package),
    (".idea", Kind::Editor),
    (".vscode", Kind::Editor),
    (".zed", Kind::Editor),
];
/// Of it the scripts count.
pub(super) const PACKAGE: &str = "package.json";
/// What npm and others install. Whoever installs it runs its scripts then; below it only git repositories count.
pub(super) const DEPENDENCIES: &str = "node_modules";
/// The git directory of a working tree, or a file or a link that names one.
pub(super) const GIT: &str = ".git";

/// Files of a git directory (gitrepository-layout(5)) from which git takes commands, or the place of such files.
pub(super) const GIT_FILES: &[&str] = &[
    "config",
    "config.worktree",
    "commondir",
    "gitdir",
    "info/attributes",
    // A fetch runs git in the repositories that hold these objects.
    "objects/info/alternates",
];
/// Directories of a git directory whose files name repositories, as `remote.NAME.url` does.
pub(super) const GIT_REMOTES: &[&str] = &["remotes", "branches"];
/// Directories of a git directory that a rebase, `git am`, a cherry-pick or a revert leaves when it is interrupted. Git executes
/// `exec` lines and the named strategy (`git-merge-NAME`, a path as well) when it continues.
pub(super) const GIT_INTERRUPTED: &[&str] = &["rebase-merge", "rebase-apply", "sequencer"];
