//! Names of files that other programs execute, or take commands from, when a user works in a directory.

/// The programs that execute a file. Those that ask the user least come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Any git command.
    Git,
    /// Any git command there, or in a program that searches the project.
    Repository,
    /// Git commands that continue an interrupted operation.
    Interrupted,
    /// Shells that enter the directory.
    Shell,
    /// Editors, debuggers and assistants.
    Editor,
    /// Package managers.
    Package,
}

impl Kind {
    /// All kinds, in order.
    pub(super) const ALL: [Kind; 6] =
        [Kind::Git, Kind::Repository, Kind::Interrupted, Kind::Shell, Kind::Editor, Kind::Package];

    /// Returns the heading for reports.
    pub(super) fn heading(self) -> &'static str {
        match self {
            Kind::Git => "git configuration, hooks, and files that they name",
            Kind::Repository => "git repositories",
            Kind::Interrupted => {
                "interrupted git operations (git executes their files when you continue them)"
            }
            Kind::Shell => "shell environments",
            Kind::Editor => "settings of editors, debuggers and assistants",
            Kind::Package => "package managers and their scripts",
        }
    }
}

/// Names of files.
pub(super) const FILES: &[(&str, Kind)] = &[
    (".devcontainer.json", Kind::Editor),
    // direnv: runs when a shell enters the directory, once the user has allowed it.
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
/// Names of directories; all files below them count.
pub(super) const DIRECTORIES: &[(&str, Kind)] = &[
    (".claude", Kind::Editor),
    (".cursor", Kind::Editor),
    (".devcontainer", Kind::Editor),
    (".husky", Kind::Package),
    (".idea", Kind::Editor),
    (".vscode", Kind::Editor),
    (".zed", Kind::Editor),
];
/// Only the scripts in it count.
pub(super) const PACKAGE: &str = "package.json";
/// The packages that npm and others install. Their scripts run at installation, so below it only git repositories
/// count.
pub(super) const DEPENDENCIES: &str = "node_modules";
/// The git directory of a working tree, or a file or a link that names it.
pub(super) const GIT: &str = ".git";

/// Files of a git directory (gitrepository-layout(5)) from which git takes commands, or the path of such files.
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
/// Directories of a git directory that an interrupted rebase, `git am`, cherry-pick or revert leaves. When git
/// continues, it executes `exec` lines and the named strategy (`git-merge-NAME`, a path as well).
pub(super) const GIT_INTERRUPTED: &[&str] = &["rebase-merge", "rebase-apply", "sequencer"];
