//! Names of files that other programs execute, or take commands from, when somebody works in a directory.

/// Files.
pub(super) const FILES: &[&str] = &[
    ".devcontainer.json",
    // direnv: runs when a shell enters the directory, once it was allowed.
    ".envrc",
    ".exrc",
    ".gdbinit",
    // Commands that Claude Code and others start as MCP servers.
    ".mcp.json",
    ".mise.toml",
    // Names the programs that npm and Yarn start.
    ".npmrc",
    ".nvim.lua",
    ".nvimrc",
    ".pre-commit-config.yaml",
    ".yarnrc",
    ".yarnrc.yml",
    "mise.toml",
    PACKAGE,
];
/// Directories, with all files below them.
pub(super) const DIRECTORIES: &[&str] =
    &[".claude", ".cursor", ".devcontainer", ".husky", ".idea", ".vscode", ".zed"];
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
    // `exec` lines that the next `git rebase --continue` runs.
    "rebase-merge/git-rebase-todo",
];
