//! Snapshots before and after changes, in directories on the disk.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};

use std::path::{Path, PathBuf};

use super::report::MAX_REPORTED;

use super::*;
use crate::files::start_time::StartTime;
use crate::files::tree::Tree;

mod git;

struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), content).unwrap();
    }

    /// Makes the relevant files of `git init`.
    fn repository(&self, path: &str) {
        for directory in ["objects", "refs", "hooks", "info"] {
            fs::create_dir_all(self.at(path).join(directory)).unwrap();
        }
        self.write(&format!("{path}/HEAD"), "ref: refs/heads/main\n");
        self.write(&format!("{path}/config"), "[core]\n\tbare = false\n");
        self.write(&format!("{path}/hooks/pre-commit.sample"), "#!/bin/sh\n");
    }

    fn take(&self) -> Snapshot {
        self.take_with(&UserConfig::default())
    }

    fn take_with(&self, user: &UserConfig) -> Snapshot {
        Snapshot::take(&Tree::new(File::open(self.0.path()).unwrap().into()), self.0.path(), user)
    }

    /// Returns the report about the changes that `change` makes.
    fn report(&self, change: impl FnOnce()) -> Vec<String> {
        let before = self.take();
        change();
        before.report(&self.take(), Path::new("/p"), StartTime::default())
    }

    /// Returns the changes that `change` makes, as `KIND path`.
    fn changed(&self, change: impl FnOnce()) -> Vec<String> {
        let before = self.take();
        change();
        let changes = before.changes(&self.take(), StartTime::default());
        changes.iter().map(|(path, change)| format!("{change:?} {}", path.display())).collect()
    }
}

#[test]
fn changes_to_executed_files_are_reported() {
    let project = Project::new();
    project.repository(".git");
    project.write("package.json", r#"{"scripts":{"test":"a"},"version":"1"}"#);
    project.write(".vscode/tasks.json", "{}");
    project.write("src/main.rs", "fn main() {}");
    let check = |path: &str, content: &str, expected: &[&str]| {
        let old = fs::read(project.at(path)).ok();
        assert_eq!(project.changed(|| project.write(path, content)), expected, "{path}");
        match old {
            Some(old) => fs::write(project.at(path), old).unwrap(),
            None => fs::remove_file(project.at(path)).unwrap(),
        }
    };
    check(".git/config", "[core]\n\tfsmonitor = ./evil\n", &["Changed .git/config"]);
    check(".git/hooks/pre-commit", "evil", &["New .git/hooks/pre-commit"]);
    for path in ["commondir", "config.worktree", "info/attributes", "rebase-merge/git-rebase-todo"] {
        check(&format!(".git/{path}"), "x", &[&format!("New .git/{path}")]);
    }
    for path in [".envrc", "sub/.envrc", ".idea/workspace.xml", ".claude/settings.json", "a/.husky/_/h"] {
        let name = path.replace("/workspace.xml", "").replace("/settings.json", "").replace("/_/h", "");
        let found = project.changed(|| project.write(path, "evil"));
        assert!(found.contains(&format!("New {path}")), "{path} ({name}): {found:?}");
        fs::remove_file(project.at(path)).unwrap();
    }
    check(".vscode/tasks.json", "{\"runOn\":1}", &["Changed .vscode/tasks.json"]);
    check("package.json", r#"{"scripts":{"test":"b"}}"#, &["Changed package.json"]);
    // Files that no program executes.
    check("package.json", r#"{"scripts":{"test":"a"},"version":"2"}"#, &[]);
    check("src/main.rs", "fn other() {}", &[]);
    check("other/package.json", "{}", &[]);
    check("node_modules/a/package.json", r#"{"scripts":{"test":"b"}}"#, &[]);
    check(".git/hooks/pre-push.sample", "x", &[]);
    check(".git/index", "x", &[]);
    let touched = project.changed(|| {
        let content = fs::read(project.at(".git/config")).unwrap();
        fs::write(project.at(".git/config"), content).unwrap();
    });
    assert_eq!(touched, [""; 0], "the same content");
}

#[test]
fn repositories_are_found_at_every_path() {
    let project = Project::new();
    project.repository(".git");
    project.repository(".git/modules/lib/one");
    project.repository("elsewhere/git");
    project.repository("bare.git");
    project.repository("node_modules/x/.git");
    project.write("lib/one/.git", "gitdir: ../../.git/modules/lib/one\n");
    project.write("tree/.git", &format!("gitdir: {}\n", project.at("elsewhere/git").display()));
    project.write("outside/.git", "gitdir: /etc\n");
    project.write(".git/worktrees/w/commondir", "../..\n");
    let found = project.take().git;
    let mut repositories: Vec<_> = found.repositories.iter().map(|path| path.to_str().unwrap()).collect();
    repositories.sort_unstable();
    let expected = [".git", ".git/modules/lib/one", "bare.git", "elsewhere/git", "node_modules/x/.git"];
    assert_eq!(repositories, expected);
    assert_eq!(found.worktrees, [Path::new(".git/worktrees/w")]);
    assert_eq!(found.git_files.len(), 3);
    for path in expected {
        let hook = format!("{path}/hooks/post-checkout");
        assert_eq!(project.changed(|| project.write(&hook, "x")), [format!("New {hook}")]);
    }
    let config = ".git/worktrees/w/commondir";
    assert_eq!(project.changed(|| project.write(config, "../../../evil")), [format!("Changed {config}")]);
    // A pointer to another directory, and a directory that becomes a link.
    let found = project.changed(|| project.write("lib/one/.git", "gitdir: ../../evil\n"));
    assert_eq!(found, ["Changed lib/one/.git"]);
    let found = project.changed(|| {
        fs::rename(project.at("node_modules/x/.git"), project.at("node_modules/x/old")).unwrap();
        symlink("old", project.at("node_modules/x/.git")).unwrap();
    });
    assert!(found.contains(&"Changed node_modules/x/.git".to_owned()), "{found:?}");
}

#[test]
fn new_repository_is_reported_as_one_line() {
    let project = Project::new();
    let found = project.changed(|| {
        project.repository("src/.git");
        project.write("src/.git/hooks/pre-commit", "evil");
        project.repository("src/.git/modules/a");
    });
    assert_eq!(found, ["Repository src/.git"]);
    // Its files are at the top, so git treats a part of the source as a bare repository.
    assert_eq!(project.changed(|| project.repository("lib")), ["Repository lib"]);
}

#[test]
fn files_named_by_the_configuration_are_compared() {
    let project = Project::new();
    project.repository(".git");
    project.write("tools/hooks/pre-commit", "ours");
    project.write("extra.cfg", "ours");
    project.write("run.sh", "ours");
    let config =
        "[core]\n hooksPath = tools/hooks\n[include]\n path = ../extra.cfg\n[alias]\n x = !./run.sh a\n";
    project.write(".git/config", config);
    for path in ["tools/hooks/pre-commit", "extra.cfg", "run.sh"] {
        assert_eq!(project.changed(|| project.write(path, "evil")), [format!("Changed {path}")]);
    }
    // A hook that is a link into the project.
    symlink("../../scripts/hook", project.at(".git/hooks/post-merge")).unwrap();
    project.write("scripts/hook", "ours");
    let found = project.changed(|| project.write("scripts/hook", "evil"));
    assert_eq!(found, ["Changed .git/hooks/post-merge"]);
    let found = project.changed(|| {
        fs::set_permissions(project.at("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    });
    assert_eq!(found, ["Changed run.sh"]);
}

#[test]
fn links_out_of_the_project_are_not_followed() {
    let (project, outside) = (Project::new(), Project::new());
    outside.write("hooks/pre-commit", "x");
    outside.repository("repository");
    project.repository(".git");
    fs::remove_dir_all(project.at(".git/hooks")).unwrap();
    symlink(outside.at("hooks"), project.at(".git/hooks")).unwrap();
    symlink(outside.at("repository"), project.at("link")).unwrap();
    fs::create_dir(project.at("sub")).unwrap();
    symlink(outside.at("repository"), project.at("sub/.git")).unwrap();
    let found = project.changed(|| {
        outside.write("hooks/pre-commit", "y");
        outside.write("repository/config", "y");
    });
    assert_eq!(found, [""; 0]);
    assert_eq!(project.take().git.repositories, [Path::new(".git")]);
}

#[test]
fn incomplete_search_is_reported() {
    let cut = |before: bool, after: bool| {
        let before = Snapshot { is_cut: before, ..Snapshot::default() };
        let after = Snapshot { is_cut: after, ..Snapshot::default() };
        before.report(&after, Path::new("/a\nb"), StartTime::default())
    };
    assert_eq!(cut(false, false), [""; 0]);
    for (before, after) in [(true, false), (false, true)] {
        let lines = cut(before, after);
        assert!(lines.len() == 1 && lines[0].starts_with("/a\\nb holds more files"), "{lines:?}");
    }
}

#[test]
fn a_long_report_is_cut_and_escaped() {
    let project = Project::new();
    let before = project.take();
    for n in 0..30 {
        project.write(&format!("{n}\u{1b}[2J/.envrc"), "x");
    }
    let lines = before.report(&project.take(), Path::new("/p"), StartTime::default());
    assert_eq!(lines.iter().filter(|line| line.starts_with("  new: ")).count(), MAX_REPORTED);
    assert!(lines.contains(&"  new: /p/0\\u{1b}[2J/.envrc".to_owned()), "{lines:?}");
    assert!(lines.contains(&format!("  and {} more", 30 - MAX_REPORTED)), "{lines:?}");
}

/// The agent chooses both names and working trees. Without a bound on their product this takes a quarter of an hour.
#[test]
fn lookups_of_names_are_bounded() {
    let project = Project::new();
    project.repository("one/.git");
    let words = (0..100_000).map(|number| number.to_string()).collect::<Vec<_>>().join(" w");
    project.write("one/.git/config", &format!("[alias]\n\tx = !{words}\n"));
    for number in 0..2_000 {
        project.write(&format!("tree{number}/.git"), "gitdir: ../one/.git\n");
    }
    assert!(project.take().is_cut());
}

/// A path that is too long for the kernel also hides its files from git.
#[test]
fn too_long_paths_mark_the_search_incomplete() {
    let project = Project::new();
    let long = "d".repeat(255);
    let mut directory: OwnedFd = File::open(project.0.path()).unwrap().into();
    for _ in 0..17 {
        mkdirat(&directory, long.as_str(), Mode::S_IRWXU).unwrap();
        directory = openat(&directory, long.as_str(), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    }
    assert!(project.take().is_cut());
}
