//! `--recipe`: the rules that an administrator adds, and the settings and shares of `onecli run`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};

use onecli_tests::bins;
use onecli_tests::client::Run;
use serde_json::Value;

use super::people::{ALICE, dir, file};
use super::{PERSON, Stage};

const SET: [&str; 5] = ["agent", "set", "robot", "--recipe", "claude-code"];
/// The hint of `onecli run` if a rule is missing.
const HINT: &str = "onecli agent set robot --recipe claude-code";

impl Stage {
    fn rules(&self) -> Vec<Value> {
        self.scene.daemon.onecli_json(&["rule", "list"]).as_array().unwrap().clone()
    }
}

#[test]
fn recipe_adds_its_rules_once() {
    let Some(stage) = Stage::new() else { return };
    let daemon = &stage.scene.daemon;
    let before = stage.rules();

    let preview = daemon.onecli(&[&SET[..], &["--dry-run"]].concat()).ok("dry run");
    assert_eq!(stage.rules(), before, "the dry run changed something");
    daemon.onecli(&SET).ok("agent set");
    let after = stage.rules();
    assert_eq!(after.len(), before.len() + 2, "{after:#?}");
    assert!(after[before.len()..].iter().all(|rule| rule["agent"] == "robot"), "{after:#?}");
    let again = daemon.onecli(&SET).ok("agent set");
    assert!(again.contains("found rule"), "{again}");
    assert_eq!(stage.rules(), after);

    // The preview, pasted into a shell, adds the same rules.
    for rule in &after[before.len()..] {
        daemon.onecli(&["rule", "remove", &rule["id"].to_string()]).ok("rule remove");
    }
    let path = bins::path("onecli").parent().unwrap().display().to_string();
    let shell = Run::new("sh").args(["-ec", &preview]).env("PATH", format!("{path}:/usr/bin:/bin"));
    shell.env("ONECLI_SOCKET", daemon.home().socket()).outcome().ok("the preview");
    let said = |rules: &[Value]| -> Vec<_> {
        rules.iter().map(|r| (r["host"].clone(), r["methods"].clone(), r["paths"].clone())).collect()
    };
    assert_eq!(said(&stage.rules()), said(&after));
}

#[test]
fn recipe_with_unknown_hosts_requires_them_for_a_new_agent() {
    let Some(stage) = Stage::new() else { return };
    let daemon = &stage.scene.daemon;
    let npm = ["agent", "add", "builder", "--factors", "token", "--recipe", "npm"];
    let refused = daemon.onecli(&npm);
    assert!(refused.code() == Some(2) && refused.err().contains("--host HOST"), "{refused:?}");
    let agents = daemon.onecli(&["agent", "list"]).ok("agent list");
    assert!(!agents.contains("builder"), "{agents}");
    daemon.onecli(&[&npm[..], &["--host", "packages.test"]].concat()).ok("agent add");
    let named =
        stage.rules().iter().filter(|r| r["agent"] == "builder" && r["host"] == "packages.test").count();
    assert_eq!(named, 2);
}

#[test]
fn run_with_a_recipe_sets_variables_and_names_missing_rules() {
    let Some(stage) = Stage::new() else { return };
    let command = ["sh", "-c", "echo $DISABLE_AUTOUPDATER"];
    let run =
        |options: &[&str]| stage.run_as(PERSON, options, &command).env("DISABLE_AUTOUPDATER", "0").outcome();
    let outcome = run(&["--recipe", "claude-code"]);
    assert_eq!(outcome.ok("run"), "1\n");
    assert!(outcome.err().contains(HINT), "{outcome:?}");
    // Only administrators add rules: the user's command adds none.
    assert!(stage.rules().iter().all(|rule| rule["host"] != "platform.claude.com"));

    let kept = run(&["--recipe", "claude-code", "--keep-env", "DISABLE_AUTOUPDATER"]);
    assert_eq!(kept.ok("run"), "0\n", "variables passed by the user take precedence");
    assert_eq!(run(&[]).ok("run"), "\n");

    stage.scene.daemon.onecli(&SET).ok("agent set");
    let outcome = run(&["--recipe", "claude-code"]);
    assert!(outcome.ok("run") == "1\n" && !outcome.err().contains(HINT), "{outcome:?}");
}

#[test]
fn run_with_a_recipe_shares_programs_read_only() {
    let Some(stage) = Stage::new() else { return };
    stage.allow_alice();
    let home = stage.home_of("alice");
    let bin = home.join(".local/bin");
    dir(&home.join(".local"), ALICE);
    dir(&bin, ALICE);
    file(&bin.join("tool"), "#!/bin/sh\necho of alice\n", ALICE);
    fs::set_permissions(bin.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    // Another user could have chosen the target of a link in the user's home.
    dir(&home.join("elsewhere"), ALICE);
    symlink(home.join("elsewhere"), home.join(".nvm")).unwrap();
    lchown(home.join(".nvm"), Some(ALICE), None).unwrap();
    let script =
        format!("cd /; {0}/tool; echo x >{0}/tool; ls -d {1}/elsewhere", bin.display(), home.display());
    let home = home.to_str().unwrap();
    let outcome = stage.alice(&["--no-dir", "--recipe", "claude-code"], &script).env("HOME", home).outcome();
    assert_eq!(outcome.out(), "of alice\n", "{outcome:?}");
    assert!(outcome.err().contains("Read-only file system"), "{outcome:?}");
    let without = stage.alice(&["--no-dir"], &script).env("HOME", home).outcome();
    assert_eq!(without.out(), "", "{without:?}");
}
