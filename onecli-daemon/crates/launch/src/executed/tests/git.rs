//! Files from which git takes commands, or paths of repositories.

use super::*;

#[test]
fn changes_to_git_state_are_reported() {
    let project = Project::new();
    project.repository(".git");
    project.repository(".git/modules/m");
    project.write(".git/worktrees/w/commondir", "../..\n");
    let places = [".git", ".git/modules/m"];
    let files = ["remotes/origin", "branches/x", "objects/info/alternates"];
    let interrupted =
        ["sequencer/opts", "rebase-merge/strategy", "rebase-apply/strategy", "rebase-apply/0001"];
    let all = places.iter().flat_map(|place| files.iter().map(move |file| format!("{place}/{file}")));
    let state = [".git", ".git/modules/m", ".git/worktrees/w"];
    let all = all
        .chain(state.iter().flat_map(|place| interrupted.iter().map(move |file| format!("{place}/{file}"))));
    for path in all {
        assert_eq!(project.changed(|| project.write(&path, "x")), [format!("New {path}")]);
        assert_eq!(project.changed(|| project.write(&path, "y")), [format!("Changed {path}")]);
    }
    // Also through a link.
    fs::create_dir(project.at("elsewhere")).unwrap();
    fs::remove_dir_all(project.at(".git/sequencer")).unwrap();
    let found = project.changed(|| symlink("../elsewhere", project.at(".git/sequencer")).unwrap());
    assert_eq!(found, ["New .git/sequencer"]);
    assert_eq!(project.changed(|| project.write("elsewhere/opts", "x")), ["New .git/sequencer/opts"]);
}

#[test]
fn interrupted_operation_is_one_line_until_finished() {
    let project = Project::new();
    project.repository(".git");
    let begin = || {
        for file in ["git-rebase-todo", "strategy", "author-script", "patch"] {
            project.write(&format!(".git/rebase-merge/{file}"), "x");
        }
        project.write(".git/rebase-merge/quiet", "");
    };
    let lines = project.report(begin);
    assert!(lines.len() == 3 && lines[2] == "  /p/.git/rebase-merge", "{lines:?}");
    let finished = project.report(|| fs::remove_dir_all(project.at(".git/rebase-merge")).unwrap());
    assert_eq!(finished, [""; 0]);
}

#[test]
fn repositories_in_git_directories_are_found() {
    let project = Project::new();
    project.repository(".git");
    project.repository(".git/modules/m");
    for place in [
        ".git/objects/aa/ev",
        ".git/refs/heads/ev",
        ".git/logs/ev",
        ".git/lfs/objects/ev",
        ".git/worktrees/ev",
        ".git/modules/m/objects/ev",
        ".git/modules/m/refs/ev",
        ".git/evil/.git",
        ".git/.git",
    ] {
        let found = project.changed(|| project.repository(place));
        assert_eq!(found, [format!("Repository {place}")]);
        let config = format!("{place}/config");
        assert_eq!(project.changed(|| project.write(&config, "evil")), [format!("Changed {config}")]);
    }
}

#[test]
fn linked_working_trees_are_not_reported() {
    let project = Project::new();
    project.repository(".git");
    let add = |name: &str, commondir: &str| {
        project.write(&format!(".git/worktrees/{name}/HEAD"), "ref: refs/heads/x\n");
        project.write(&format!(".git/worktrees/{name}/commondir"), commondir);
        project.write(
            &format!(".git/worktrees/{name}/gitdir"),
            &format!("{}/.git\n", project.at(name).display()),
        );
        let named = project.at(&format!(".git/worktrees/{name}"));
        project.write(&format!("{name}/.git"), &format!("gitdir: {}\n", named.display()));
    };
    assert_eq!(project.changed(|| add("tree", "../..\n")), [""; 0]);
    let found = project.take().git;
    assert_eq!(found.repositories, [Path::new(".git")]);
    assert_eq!(found.worktrees, [Path::new(".git/worktrees/tree")]);
    // Hooks of the repository run at the top of each working tree.
    project.write(".git/config", "[core]\n hooksPath = hooks\n");
    let found = project.changed(|| project.write("tree/hooks/post-checkout", "x"));
    assert_eq!(found, ["New tree/hooks/post-checkout"]);
    fs::remove_dir_all(project.at("tree/hooks")).unwrap();
    let changed = project.changed(|| project.write(".git/worktrees/tree/commondir", "../../../evil"));
    assert_eq!(changed, ["Repository .git/worktrees/tree", "Changed .git/worktrees/tree/commondir"]);
    project.write(".git/worktrees/tree/commondir", "../..\n");
    let removed = project.changed(|| {
        fs::remove_dir_all(project.at(".git/worktrees/tree")).unwrap();
        fs::remove_file(project.at("tree/.git")).unwrap();
    });
    assert_eq!(removed, [""; 0]);
    // A working tree whose configuration belongs to another repository.
    let found = project.changed(|| add("other", "../../../evil\n"));
    assert_eq!(found, ["Repository .git/worktrees/other", "New other/.git"]);
}

#[test]
fn words_of_commands_in_the_configuration_are_followed() {
    let project = Project::new();
    project.repository(".git");
    let config = "[filter \"x\"]\n clean = sh scripts/f.sh\n[diff \"q\"]\n textconv = env A=1 ./tc\n\
        [interactive]\n diffFilter = ./idf|cat\n[merge \"m\"]\n driver = python3 tools/m.py %O %A\n\
        [credential]\n helper = \"!f(){ ./cred; }; f\"\n[include]\n path = ../one.inc\n\
        [branch \"main\"]\n merge = refs/heads/main\n[alias]\n h = log HEAD\n";
    project.write(".git/config", config);
    project.write("one.inc", "[include]\n path = two.inc\n");
    project.write("two.inc", "[core]\n fsmonitor = sh fsm.sh\n");
    for path in ["scripts/f.sh", "tc", "idf", "tools/m.py", "cred", "fsm.sh"] {
        assert_eq!(project.changed(|| project.write(path, "evil")), [format!("New {path}")]);
        assert_eq!(project.changed(|| project.write(path, "other")), [format!("Changed {path}")]);
    }
    assert_eq!(
        project.changed(|| project.write("two.inc", "[alias]\n")),
        ["Removed fsm.sh", "Changed two.inc"]
    );
    // Files that a commit changes are not programs.
    let commit = || {
        project.write(".git/refs/heads/main", "1");
        project.write(".git/HEAD", "x");
    };
    assert_eq!(project.changed(commit), [""; 0]);
}

#[test]
fn configuration_include_cycles_are_cut() {
    let project = Project::new();
    project.repository(".git");
    let twice =
        "[include]\n path = a\n path = ../a\n path = a\n path = ../a\n path = x/../../a\n path = x/../a\n";
    project.write(".git/config", twice);
    project.write("a", twice);
    let snapshot = project.take();
    assert!(snapshot.is_cut() && snapshot.files.contains_key(Path::new("a")));
}

#[test]
fn user_configuration_is_followed() {
    let (project, home) = (Project::new(), Project::new());
    project.repository(".git");
    project.write("tree/README", "");
    project.repository("tree/.git");
    project.write("dotfiles/gitconfig", "[core]\n pager = sh tools/pager.sh\n");
    home.write(
        "config",
        &format!("[core]\n hooksPath = .gh\n[include]\n path = {}\n", project.at("inc").display()),
    );
    project.write("inc", "[alias]\n x = !sh tools/x.sh\n");
    symlink(project.at("dotfiles/gitconfig"), home.at("linked")).unwrap();
    let take = || project.take_with(&UserConfig::collect(None, &[home.at("config"), home.at("linked")]));
    let cases = [
        (".gh/pre-commit", "New"),
        ("tree/.gh/pre-commit", "New"),
        ("tools/x.sh", "New"),
        ("tree/tools/pager.sh", "New"),
        ("inc", "Changed"),
        ("dotfiles/gitconfig", "Changed"),
    ];
    for (path, change) in cases {
        let before = take();
        let old = fs::read_to_string(project.at(path)).unwrap_or_default();
        project.write(path, &format!("{old}\n"));
        let changes = before.changes(&take(), StartTime::default());
        let changes: Vec<_> =
            changes.iter().map(|(path, change)| format!("{change:?} {}", path.display())).collect();
        assert_eq!(changes, [format!("{change} {path}")]);
    }
}

#[test]
fn harmless_files_do_not_hide_others() {
    let project = Project::new();
    project.repository(".git");
    let lines = project.report(|| {
        for n in 0..300 {
            project.write(&format!("a{n}/.envrc"), "x");
            project.write(&format!("a{n}/package.json"), r#"{"scripts":{"x":"y"}}"#);
            project.repository(&format!("a{n}/.git"));
        }
        project.write("z/.vscode/tasks.json", "x");
        project.write(".git/remotes/z", "x");
    });
    let at = |line: &str| {
        lines.iter().position(|other| other == line).unwrap_or_else(|| panic!("{line}: {lines:?}"))
    };
    assert_eq!(at("  new: /p/.git/remotes/z"), 2);
    assert!(at("  new: /p/z/.vscode/tasks.json") < lines.len());
    let headings: Vec<_> = lines.iter().filter(|line| line.ends_with("):")).collect();
    let counts: Vec<_> = headings.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(counts, ["(1):", "(300):", "(300):", "(2):", "(300):"]);
    assert!(lines.last().unwrap().ends_with("run in /p: find . -newerct @0"), "{lines:?}");
    assert!(lines.len() < 50);
}
