//! Values that do not look like the credential are stored only if the administrator insists; how a value is read.

use std::fs;

use onecli_tests::client::{self, Outcome, Run};
use onecli_tests::daemon::Daemon;
use onecli_tests::upstream::Upstream;
use onecli_tests::{bins, canary};

use crate::scene::API;

const KEY: &str = "sk-proj-0f3A9Zq7x0f3A9Zq7x0f3A9Zq7x";
const OPENAI: [&str; 5] = ["secret", "add", "s", "--template", "openai"];

fn piped(daemon: &Daemon, args: &[&str], value: &str) -> Outcome {
    let outcome = daemon.home().cli(args).stdin(value).outcome();
    assert!(!outcome.err().contains("0f3A9Zq7x"), "a part of the value: {outcome:?}");
    outcome
}

fn version(daemon: &Daemon) -> Option<u64> {
    let all = daemon.onecli_json(&["secret", "list"]);
    all[0]["version"].as_u64()
}

fn doubted(outcome: &Outcome, word: &str) {
    assert_eq!(outcome.code(), Some(2), "{outcome:?}");
    for word in [word, "does not look right", "--force"] {
        assert!(outcome.err().contains(word), "{word:?}: {outcome:?}");
    }
}

#[test]
fn unusual_values_require_force() {
    let daemon = Daemon::builder().no_ebpf().start();
    let cases = [
        (format!("Bearer {KEY}"), "'Bearer'"),
        (format!("OPENAI_API_KEY={KEY}"), "variable's name"),
        (format!("export OPENAI_API_KEY={KEY}"), "variable's name"),
        (format!("\"{KEY}\""), "quotes"),
        (format!("{KEY} "), "white space"),
        (format!(" {KEY}"), "white space"),
        (format!("{KEY} {KEY}"), "white space in it"),
        ("not-a-key".to_owned(), "does not begin like a credential of OpenAI"),
    ];
    for (value, word) in &cases {
        doubted(&piped(&daemon, &OPENAI, value), word);
        assert_eq!(version(&daemon), None, "{word}");
    }
    // No option allows these, because they cannot be sent.
    for value in [format!("{KEY}\n{KEY}"), format!("{KEY}\t"), format!("{KEY}\n\n")] {
        let outcome = piped(&daemon, &[&OPENAI[..], &["--force"]].concat(), &value);
        assert_eq!(outcome.code(), Some(1), "{outcome:?}");
        assert!(outcome.err().contains("control character"), "{outcome:?}");
    }
    piped(&daemon, &OPENAI, KEY).ok("a key that fits");
    let rotate = ["secret", "rotate", "s"];
    for (value, word) in &cases {
        doubted(&piped(&daemon, &rotate, value), word);
    }
    assert_eq!(version(&daemon), Some(1));
    piped(&daemon, &["secret", "rotate", "s", "--force"], &cases[0].0).ok("force");
    assert_eq!(version(&daemon), Some(2));
}

#[test]
fn import_reports_unusual_values_by_name() {
    let daemon = Daemon::builder().no_ebpf().start();
    let file = daemon.home().dir().join("a.env");
    fs::write(&file, format!("OPENAI_API_KEY=not-a-key\nGROQ_API_KEY='Bearer gsk_{KEY}'\n")).unwrap();
    let import = ["secret", "import", file.to_str().unwrap()];
    let all = daemon.onecli_json(&import);
    let reason = |at: usize| all[at]["reason"].as_str().unwrap_or_default().to_owned();
    assert_eq!(all[0]["name"], "OPENAI_API_KEY");
    assert!(reason(0).contains("does not begin like a credential of OpenAI"), "{all}");
    assert!(reason(1).contains("'Bearer'"), "{all}");
    assert!(all.as_array().unwrap().iter().all(|one| one["end"] == "skipped"), "{all}");
    assert_eq!(version(&daemon), None);
    let all = daemon.onecli_json(&[&import[..], &["--force"]].concat());
    assert!(all.as_array().unwrap().iter().all(|one| one["end"] == "added"), "{all}");
}

/// As the README says: from a pipe, without an option.
#[test]
fn piped_value_needs_no_option() {
    let upstream = Upstream::start(&[API]);
    let daemon = Daemon::builder().no_ebpf().upstream(&upstream).start();
    let host = format!("{API}:{}", upstream.https_addr().port());
    let add = ["secret", "add", "s", "--bearer", "--host", &host, "--env", "KEY"];
    let empty = piped(&daemon, &add, "");
    assert_eq!(empty.code(), Some(1));
    assert!(empty.err().contains("standard input is empty"), "{empty:?}");
    canary::watch(KEY);
    piped(&daemon, &add, &format!("{KEY}\n")).ok("add");
    let agent = daemon.add_agent("a", &["--factors", "token"]);
    let granted = daemon.grant(&agent, "s");
    let ask = client::curl(&upstream.https_url(API, "/"));
    let ask = ask.arg("--header").arg(format!("authorization: Bearer {}", granted.placeholder));
    daemon.explicit(&agent.token, ask).outcome().ok("a request");
    assert_eq!(upstream.only_request().header("authorization"), Some(format!("Bearer {KEY}").as_str()));
}

/// The value comes from a pipe, so the prompt goes to the terminal.
#[test]
fn terminal_prompt_confirms_an_unusual_value() {
    let daemon = Daemon::builder().no_ebpf().start();
    let value = daemon.home().dir().join("value");
    fs::write(&value, format!("Bearer {KEY}")).unwrap();
    let socket = daemon.home().socket().display().to_string();
    let command = format!(
        "{} --socket {socket} secret add s --template openai < {}; echo code $?",
        bins::path("onecli").display(),
        value.display()
    );
    let answered = |answer: &str| {
        let script = Run::new("script").args(["--quiet", "--command", &command, "/dev/null"]);
        script.stdin(answer).outcome().out()
    };
    let declined = answered("maybe\nn\n");
    assert!(declined.contains("anyway? [y/N]") && declined.contains("code 1"), "{declined}");
    assert_eq!(version(&daemon), None);
    let agreed = answered("y\n");
    assert!(agreed.contains("code 0"), "{agreed}");
    assert_eq!(version(&daemon), Some(1));
}
