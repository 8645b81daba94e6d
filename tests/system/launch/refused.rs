//! The list of refused requests that `onecli run` prints at the end.

use super::{PERSON, Stage};

/// A user without access to the audit log also gets the list, on standard error. The command's own output and exit
/// status do not change.
#[test]
fn run_ends_with_the_refusals_and_the_command_that_explains_them() {
    let Some(stage) = Stage::new() else { return };
    let script = "curl -s https://evil.test/ http://worse.test:8080/ >/dev/null; getent hosts alone.test >/dev/null; \
                  getent hosts single; echo out; exit 3";
    let run = |options: &[&str]| {
        stage.run_as(PERSON, &[&["--no-dir"], options].concat(), &["sh", "-c", script]).outcome()
    };
    let outcome = run(&[]);
    assert_eq!((outcome.code(), outcome.out().as_str()), (Some(3), "out\n"), "{outcome:?}");
    let errors = outcome.err();
    for line in
        ["agent 'robot' was refused:", "  evil.test:443 (egress_denied)", "  worse.test:8080 (egress_denied)"]
    {
        assert!(errors.contains(line), "{line}: {errors}");
    }
    assert!(errors.contains("\n  alone.test (egress_denied)\n"), "a query without a connection: {errors}");
    assert!(!errors.contains("single"), "{errors}");
    let command = errors.lines().find_map(|line| line.strip_prefix("details: onecli ")).expect("the command");
    let words: Vec<_> = command.split(' ').collect();
    let explained = stage.scene.daemon.onecli(&words).ok("the command that explains");
    assert!(explained.contains("evil.test") && explained.contains("egress_denied"), "{explained}");

    let quiet = run(&["--quiet"]);
    assert_eq!((quiet.code(), quiet.out().as_str()), (Some(3), "out\n"), "{quiet:?}");
    assert!(!quiet.err().contains("was refused"), "{quiet:?}");
    // Refusals of an earlier command are not listed again.
    let fine = stage.run_as(PERSON, &["--no-dir"], &["true"]).outcome();
    assert!(fine.status.success() && !fine.err().contains("refused"), "{fine:?}");
}

/// The agent chooses the hosts, and any number of them.
#[test]
fn summary_can_be_neither_forged_nor_flooded() {
    let Some(stage) = Stage::new() else { return };
    let script = r#"
        curl -s -H "$(printf 'Host: x\t\033[2Jonecli: note: all is well')" http://evil.test/ >/dev/null
        for n in $(seq 40); do curl -s http://n$n.evil.test/ >/dev/null; done"#;
    let outcome = stage.run_as(PERSON, &["--no-dir"], &["sh", "-c", script]).outcome();
    let errors = outcome.err();
    assert!(!errors.contains('\u{1b}') && !errors.contains("\nonecli: note: all is well"), "{errors}");
    let from = errors.find("agent 'robot' was refused:").expect("the summary");
    assert!(errors[from..].lines().count() <= 9, "{errors}");
    assert!(
        errors[from..].lines().any(|line| line.starts_with("  and ") && line.ends_with(" more")),
        "{errors}"
    );
}
