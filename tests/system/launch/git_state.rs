//! Other sources of git's commands: the state of interrupted operations, remotes, repositories within a git directory,
//! scripts named by a configuration.

use super::git::Project;
use super::people::{ALICE, dir, file};

/// A rebase of two commits that stops at the first one.
const CONFLICT: &str =
    "git switch -qc topic; echo a > file; git commit -qam a; echo b > file; git commit -qam b
    git switch -q main; echo c > file; git commit -qam c; git switch -q topic; git rebase main || true";

#[test]
fn git_state_that_names_programs_is_reported_or_protected() {
    let Some(project) = Project::new() else { return };
    let reported = [
        (
            r"mkdir .git/sequencer; printf '[options]\n\tstrategy = x/../evil\n' > .git/sequencer/opts",
            "  {}/.git/sequencer",
        ),
        ("mkdir .git/rebase-apply; echo x/../evil > .git/rebase-apply/strategy", "  {}/.git/rebase-apply"),
        (
            "mkdir -p .git/objects/aa; git init -q --bare .git/objects/aa/ev",
            "new git repository: {}/.git/objects/aa/ev",
        ),
        ("mkdir -p .git/logs/x; git init -q --bare .git/logs/x/ev", "new git repository: {}/.git/logs/x/ev"),
        (
            "mkdir -p .git/modules/m/refs; git init -q --bare .git/modules/m/refs/ev",
            "new git repository: {}/.git/modules/m/refs/ev",
        ),
        ("git init -q --bare .git/worktrees/ev", "new git repository: {}/.git/worktrees/ev"),
        ("echo $PWD/x/objects > .git/objects/info/alternates", "new: {}/.git/objects/info/alternates"),
    ];
    for (script, line) in reported {
        let out = project.agent(script);
        out.ok(script);
        let line = line.replace("{}", project.path.to_str().unwrap());
        assert!(out.err().contains("WARNING") && out.err().contains(&line), "{script}: {out:?}");
    }
    for script in
        ["echo URL: ../x > .git/remotes/origin", "echo ../x > .git/branches/other", "mv .git/remotes x"]
    {
        let out = project.agent(script);
        assert!(!out.status.success() && !out.err().contains("WARNING"), "{script}: {out:?}");
    }
    assert!(!project.at(".git/remotes").exists(), "a placeholder is left");
    project.allow("yes");
    let out = project.agent("mkdir .git/remotes; echo URL: ../x > .git/remotes/origin");
    assert!(out.err().contains(&format!("new: {}", project.at(".git/remotes/origin").display())), "{out:?}");
}

/// Control: every change that is reported or refused takes effect outside of an agent.
#[test]
fn git_executes_programs_that_its_state_names() {
    let Some(project) = Project::new() else { return };
    let script = r"git switch -qc b; echo b > file; git commit -qam 1; echo c > file; git commit -qam 2
        git switch -q main; echo z > file; git commit -qam 3; git cherry-pick b~1 b >/dev/null 2>&1 || true
        mkdir git-merge-x; printf '#!/bin/sh\necho ran > strategy-ran\nexit 1\n' > evil; chmod +x evil
        printf '[options]\n\tstrategy = x/../evil\n' > .git/sequencer/opts
        echo q > file; git add file; git -c core.editor=true cherry-pick --continue >/dev/null 2>&1 || true";
    Project::git(&project.path, script);
    assert!(project.at("strategy-ran").exists());
    let script = r"mkdir -p .git/objects/aa .git/remotes; git init -q --bare .git/objects/aa/ev
        printf '#!/bin/sh\necho ran > %s/hook-ran\n' $PWD > .git/objects/aa/ev/hooks/pre-receive
        chmod +x .git/objects/aa/ev/hooks/pre-receive; echo URL: $PWD/.git/objects/aa/ev > .git/remotes/other
        git push -q other HEAD:refs/heads/x";
    Project::git(&project.path, script);
    assert!(project.at("hook-ran").exists());
}

#[test]
fn ordinary_git_state_causes_no_warning() {
    let Some(project) = Project::new() else { return };
    Project::git(&project.path, "git branch -q -u origin/main");
    let out = project.agent(
        "set -e; echo 2 >> file; git commit -qam two; git push -q origin main; git pull -q; git worktree add -q -b w tree
        git -C tree commit -q --allow-empty -m x; git fetch -q; git switch -qc side; git switch -q main",
    );
    out.ok("git");
    assert!(!out.err().contains("WARNING"), "{out:?}");
    let out = project.agent(CONFLICT);
    let line = format!("  {}", project.at(".git/rebase-merge").display());
    assert!(out.err().contains("WARNING") && out.err().contains(&line), "{out:?}");
    assert_eq!(out.err().matches("/.git/").count(), 1, "one line: {out:?}");
    let out = project.agent("git rebase --abort");
    out.ok("abort");
    assert!(!out.err().contains("WARNING"), "{out:?}");
}

#[test]
fn scripts_that_git_configuration_names_are_reported() {
    let Some(project) = Project::new() else { return };
    let home = project.stage.home_of("alice");
    dir(&project.at("tools"), ALICE);
    for name in ["own", "global", "included", "xdg"] {
        file(&project.at(&format!("tools/{name}.sh")), "true\n", ALICE);
    }
    Project::git(&project.path, "git config filter.x.clean 'env A=1 sh tools/own.sh'");
    file(
        &home.join(".gitconfig"),
        "[alias]\n\tx = !sh tools/global.sh\n[include]\n\tpath = included\n",
        ALICE,
    );
    file(&home.join("included"), "[core]\n\tpager = \"cat|tools/included.sh\"\n", ALICE);
    dir(&home.join("xdg"), ALICE);
    dir(&home.join("xdg/git"), ALICE);
    file(&home.join("xdg/git/config"), "[core]\n\tfsmonitor = tools/xdg.sh\n", ALICE);
    let script = "for name in own global included xdg; do echo evil > tools/$name.sh; done";
    let run = project.run(script).env("XDG_CONFIG_HOME", home.join("xdg"));
    let out = run.outcome();
    for name in ["own", "global", "included", "xdg"] {
        let line = format!("changed: {}", project.at(&format!("tools/{name}.sh")).display());
        assert!(out.err().contains(&line), "{name}: {out:?}");
    }
}

#[test]
fn report_names_git_first_and_counts_the_rest() {
    let Some(project) = Project::new() else { return };
    let out = project.agent(
        "for n in $(seq 100); do mkdir a$n; echo x > a$n/.envrc; done; mkdir z; git init -q z; mkdir .git/sequencer
        echo x > .git/sequencer/opts",
    );
    out.ok("flood");
    let err = out.err();
    let at = |text: &str| err.find(text).unwrap_or_else(|| panic!("{text}: {err}"));
    assert!(at("z/.git") < at(".git/sequencer") && at(".git/sequencer") < at(".envrc"), "{err}");
    assert!(err.contains("shell environments (100):") && err.contains("  and 90 more"), "{err}");
    // The suggested command lists all changes.
    let command = format!("run in {}: find . -newerct @", project.path.display());
    let since = err[at(&command) + command.len()..].split_whitespace().next().unwrap();
    let all = Project::git(&project.path, &format!("find . -newerct @{since} -name .envrc | wc -l"));
    assert_eq!(all.trim(), "100");
}

#[test]
fn unsearched_parts_are_reported_at_the_start_and_at_the_end() {
    let Some(project) = Project::new() else { return };
    let note = format!("{} holds more files than the launcher examines", project.path.display());
    let out = project.agent("true");
    assert!(!out.err().contains(&note), "{out:?}");
    let deep = project.at(&["d"; 70].join("/"));
    Project::git(&project.path, &format!("mkdir -p {0}; git init -q {0}", deep.display()));
    for word in ["no", "yes"] {
        project.allow(word);
        let out = project.agent("sleep 1; echo started >&2");
        let err = out.err();
        let parts: Vec<&str> = err.split("started").collect();
        let [before, after] = parts[..] else { panic!("{out:?}") };
        for part in [before, after] {
            assert!(part.contains(&note) && part.contains("not protected"), "{out:?}");
        }
    }
}
