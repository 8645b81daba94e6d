//! The command's output for people and for programs: errors, colours, times, numbers, completions.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use onecli_tests::bins;
use onecli_tests::client::{Outcome, Run};
use onecli_tests::daemon::Daemon;
use serde_json::Value;

const BOLD: &str = "\u{1b}[1m";

fn daemon() -> Daemon {
    Daemon::builder().no_ebpf().start()
}

/// Runs the command on a terminal with this many columns.
fn on_terminal(daemon: &Daemon, columns: u16, command: &str, variables: &[(&str, &str)]) -> String {
    let onecli = bins::path("onecli");
    let line = format!(
        "stty cols {columns} rows 50; exec {} --socket {} {command}",
        onecli.display(),
        daemon.home().socket().display()
    );
    let mut run = Run::new("script").args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    run = run.env("TERM", "xterm-256color");
    for (name, value) in variables {
        run = run.env(name, value);
    }
    run.outcome().out().replace('\r', "")
}

#[test]
fn error_has_a_help_line_and_is_json_for_programs() {
    let daemon = daemon();
    let absent = daemon.onecli(&["agent", "show", "nobody"]);
    assert_eq!(absent.code(), Some(1), "{absent:?}");
    let text = absent.err();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "error: there is no agent 'nobody'");
    assert!(lines[1].starts_with("help: ") && lines.len() == 2, "{lines:?}");

    let check = |args: &[&str], exit: i32, code: &str| {
        check_json_error(&daemon.onecli(&[&["--json"], args].concat()), args, exit, code);
    };
    check(&["agent", "show", "nobody"], 1, "not_found");
    check(&["agent", "show"], 2, "usage");
    check(&["agent", "show", "NO NAME"], 2, "usage");
    check(&["rule", "add", "allow"], 2, "usage");
    check(&["secret", "add", "s", "--host", "a.test", "--bearer", "--value-file", "/absent"], 1, "value");
    check(&["run"], 125, "usage");
    check(&["run", "--", "true"], 125, "not_permitted");
    check(
        &["restore", "/absent/backup", "--data-dir", "/absent/data", "--config", "/absent/config"],
        78,
        "bad_config",
    );
    let down = ["--json", "--socket", "/absent/admin.sock", "status"];
    let outcome = Run::new(bins::path("onecli")).args(down).outcome();
    check_json_error(&outcome, &down, 3, "daemon_not_reachable");
}

fn check_json_error(outcome: &Outcome, args: &[&str], exit: i32, code: &str) {
    assert_eq!(outcome.code(), Some(exit), "{args:?}: {outcome:?}");
    assert_eq!(outcome.out(), "", "{args:?}: {outcome:?}");
    let error: Value = serde_json::from_str(&outcome.err()).unwrap_or_else(|e| panic!("{e}: {outcome:?}"));
    assert_eq!(error["error"]["code"], code, "{args:?}: {error}");
    assert!(error["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
}

#[test]
fn colors_follow_the_terminal_and_the_option() {
    let daemon = daemon();
    let _ = daemon.add_agent("coder", &["--factors", "token"]);
    let has_codes = |text: &str| text.contains('\u{1b}');
    let list = |option: &[&str]| daemon.onecli(&[option, &["agent", "list"]].concat()).ok("agent list");
    assert!(!has_codes(&list(&[])), "output to a file contains no colour codes");
    assert!(list(&["--color", "always"]).starts_with(BOLD));
    let shown = on_terminal(&daemon, 100, "agent list", &[]);
    assert!(shown.starts_with(BOLD), "{shown:?}");
    assert!(!has_codes(&on_terminal(&daemon, 100, "agent list", &[("NO_COLOR", "1")])));
    assert!(!has_codes(&on_terminal(&daemon, 100, "agent list", &[("TERM", "dumb")])));
    assert!(!has_codes(&on_terminal(&daemon, 100, "agent list --color never", &[])));
    let error = daemon.onecli(&["--color", "always", "agent", "show", "x"]).err();
    assert!(error.lines().next().is_some_and(|line| line.contains(BOLD)), "{error:?}");
    assert!(!error.lines().nth(1).unwrap().contains(BOLD), "{error:?}");
}

#[test]
fn tables_fit_the_terminal_and_otherwise_use_one_line_per_row() {
    let daemon = daemon();
    let patterns: Vec<String> = (0..12).map(|n| format!("/repos/acme/project-{n}/**")).collect();
    let mut rule = vec!["rule", "add", "allow", "--host", "api.github.test"];
    for pattern in &patterns {
        rule.extend(["--path", pattern]);
    }
    daemon.onecli(&rule).ok("rule add");
    let whole = daemon.onecli(&["rule", "list"]).ok("rule list");
    assert_eq!(whole.lines().count(), 2, "{whole}");
    let narrow = on_terminal(&daemon, 110, "rule list", &[("NO_COLOR", "1")]);
    assert!(narrow.lines().count() > 3 && narrow.lines().all(|line| line.chars().count() <= 110), "{narrow}");
    assert!(patterns.iter().all(|pattern| narrow.contains(pattern)), "{narrow}");
}

#[test]
fn template_list_fits_100_columns() {
    let listed = Run::new(bins::path("onecli")).args(["template", "list"]).outcome().ok("template list");
    assert!(listed.lines().count() > 40, "{listed}");
    assert!(listed.lines().all(|line| line.chars().count() <= 100), "{listed}");
    assert!(listed.lines().any(|line| line.starts_with("openai ")), "{listed}");
}

#[test]
fn port_of_a_rule_is_a_number() {
    let daemon = daemon();
    daemon.onecli(&["rule", "add", "allow", "--host", "a.test", "--port", "8443"]).ok("rule add");
    daemon.onecli(&["rule", "add", "deny", "--host", "b.test"]).ok("rule add");
    let rules = daemon.onecli_json(&["rule", "list"]);
    assert_eq!((&rules[0]["port"], &rules[1]["port"]), (&8443.into(), &Value::Null), "{rules}");
    let text = daemon.onecli(&["rule", "list"]).ok("rule list");
    let rows: Vec<_> = text.lines().collect();
    assert!(rows[1].contains(" 8443 ") && rows[2].contains(" * "), "{text}");
}

#[test]
fn factors_are_accepted_in_two_forms_and_printed_in_one() {
    let daemon = Daemon::builder().start();
    for (name, factors) in [("plus", "token+cgroup"), ("comma", "token,cgroup")] {
        let _ = daemon.add_agent(name, &["--factors", factors]);
        assert_eq!(daemon.onecli_json(&["agent", "show", name])["factors"], "token+cgroup");
        let text = daemon.onecli(&["agent", "show", name]).ok("agent show");
        assert!(text.contains("token+cgroup") && !text.contains("token,cgroup"), "{text}");
    }
    let refused = daemon.onecli(&["agent", "add", "other", "--factors", "token;cgroup"]).err();
    assert!(refused.contains("token+cgroup"), "{refused}");
}

#[test]
fn times_are_relative_for_people_and_exact_for_programs() {
    let daemon = daemon();
    daemon.onecli(&["key", "add-recovery"]).ok("key add-recovery");
    let keys = daemon.onecli(&["key", "status"]).ok("key status");
    assert!(keys.contains(" ago") || keys.contains("just now"), "{keys}");
    let created = daemon.onecli_json(&["key", "status"])["slots"][1]["created"].clone();
    assert!(created.as_str().is_some_and(|time| time.ends_with('Z') && time.contains('T')), "{created}");
}

/// Completes the last word as the shell would.
fn completed(daemon: &Daemon, shell: &str, words: &[&str]) -> Outcome {
    let index = (words.len() - 1).to_string();
    let mut run = Run::new(bins::path("onecli")).args(["--"]).args(words);
    for (name, value) in [
        ("_ONECLI_COMPLETE", shell),
        ("_CLAP_COMPLETE_INDEX", &index),
        ("_CLAP_IFS", "\n"),
        ("_CLAP_COMPLETE_COMP_TYPE", "9"),
        ("_CLAP_COMPLETE_SPACE", "true"),
    ] {
        run = run.env(name, value);
    }
    run.env("ONECLI_SOCKET", daemon.home().socket()).outcome()
}

#[test]
fn work_over_a_second_shows_progress_on_a_terminal() {
    let daemon = daemon();
    let file = daemon.home().dir().join("values.env");
    std::fs::write(&file, "OPENAI_API_KEY=sk-proj-Zm9yIHRlc3RzIG9ubHksIG5vdCByZWFs\n").unwrap();
    let import = format!("secret import {} --dry-run", file.display());
    let quick = on_terminal(&daemon, 100, &import, &[]);
    assert!(quick.contains("OPENAI_API_KEY") && !quick.contains("importing"), "{quick:?}");

    let pid = Pid::from_raw(daemon.pid().try_into().unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    let slow = std::thread::scope(|scope| {
        let shown = scope.spawn(|| on_terminal(&daemon, 100, &import, &[]));
        std::thread::sleep(Duration::from_millis(2500));
        kill(pid, Signal::SIGCONT).unwrap();
        shown.join().unwrap()
    });
    assert!(slow.contains("importing") && slow.contains("OPENAI_API_KEY"), "{slow:?}");
}

/// The candidate on a line. zsh separates the help by a colon and escapes colons of names by a backslash; fish
/// separates it by a tab.
fn name(shell: &str, line: &str) -> String {
    let end = match shell {
        "zsh" => line.replace("\\:", "\\\\").find(':'),
        "fish" => line.find('\t'),
        _ => None,
    };
    line[..end.unwrap_or(line.len())].replace("\\:", ":")
}

#[test]
fn names_are_completed_in_every_shell() {
    let daemon = daemon();
    let _ = daemon.add_agent("coder", &["--factors", "token"]);
    let _ = daemon.add_agent("crawler", &["--factors", "token"]);
    daemon.add_secret("github-main", "v-0123456789abcdef", &["--host", "api.github.test", "--bearer"]);
    daemon.onecli(&["rule", "add", "allow", "--host", "docs.test"]).ok("rule add");
    let check = |words: &[&str], expected: &[&str]| {
        for shell in ["bash", "zsh", "fish"] {
            let shown = completed(&daemon, shell, words).ok(shell);
            // Options are candidates, too, if nothing was typed.
            let names = shown.lines().map(|line| name(shell, line));
            let names: Vec<_> = names.filter(|name| !name.starts_with("--")).collect();
            assert_eq!(names, expected, "{shell} {words:?}");
        }
    };
    check(&["onecli", "agent", "show", "c"], &["coder", "crawler"]);
    check(&["onecli", "run", "--agent", "cr"], &["crawler"]);
    check(&["onecli", "grant", "coder", "git"], &["github-main"]);
    check(&["onecli", "secret", "add", "x", "--template", "openai:c"], &["openai:chat"]);
    check(&["onecli", "template", "show", "opena"], &["openai"]);
    check(&["onecli", "rule", "remove", ""], &["1"]);
    // A new object needs a new name.
    check(&["onecli", "agent", "add", "cod"], &[]);
    // If the daemon is down, completion returns nothing and no error.
    let socket = daemon.home().socket().with_file_name("absent.sock");
    let down = Run::new(bins::path("onecli")).args(["--", "onecli", "agent", "show", ""]);
    let down = down.env("_ONECLI_COMPLETE", "fish").env("ONECLI_SOCKET", socket).outcome();
    assert!(!down.ok("complete").contains("coder"));
}

#[test]
fn bash_completes_with_the_generated_script() {
    let daemon = daemon();
    let _ = daemon.add_agent("coder", &["--factors", "token"]);
    let program = bins::path("onecli");
    let script = format!(
        "PATH={}:$PATH; source <(onecli completions bash); COMP_WORDS=(onecli agent show co); COMP_CWORD=3; COMP_TYPE=9; \
         COMP_LINE='onecli agent show co'; COMP_POINT=20; $(complete -p onecli | sed 's/.*-F \\([^ ]*\\).*/\\1/') onecli co show; \
         echo \"${{COMPREPLY[@]}}\"",
        program.parent().unwrap().display()
    );
    let run = Run::new("bash").args(["--norc", "-c", &script]).env("ONECLI_SOCKET", daemon.home().socket());
    assert_eq!(run.outcome().ok("bash").trim(), "coder");
}
