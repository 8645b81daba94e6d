//! `secret import`: its effect on existing secrets.

use std::fs;

use onecli_tests::canary;
use onecli_tests::daemon::Daemon;
use serde_json::{Value, json};

const FIRST: &str = "sk-imported-first-0815";
const SECOND: &str = "sk-imported-second-0816";
const THIRD: &str = "sk-imported-third-0817";

/// A daemon, and a `.env` file.
struct World {
    daemon: Daemon,
    /// Separate from the daemon's directory, which must not contain a value.
    _dir: tempfile::TempDir,
    file: String,
}

impl World {
    fn new() -> World {
        [FIRST, SECOND, THIRD].into_iter().for_each(canary::watch);
        let daemon = Daemon::builder().no_ebpf().start();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env").display().to_string();
        World { daemon, _dir: dir, file }
    }

    fn write(&self, lines: &[(&str, &str)]) {
        let lines: Vec<String> = lines.iter().map(|(name, value)| format!("{name}={value}")).collect();
        fs::write(&self.file, lines.join("\n")).unwrap();
    }

    fn import(&self, options: &[&str]) -> Value {
        self.daemon.onecli_json(&[&["secret", "import", &self.file], options].concat())
    }

    /// Checks that `--dry-run` announces for every option what the import then does.
    fn import_as_foretold(&self, options: &[&str]) -> Value {
        let before = self.secrets();
        let foretold = self.import(&[options, &["--dry-run"]].concat());
        assert_eq!(self.secrets(), before, "a dry run changes nothing: {options:?}");
        let done = self.import(options);
        assert_eq!(foretold, done, "{options:?}");
        done
    }

    fn secrets(&self) -> Value {
        self.daemon.onecli_json(&["secret", "list"])
    }

    fn version(&self, secret: &str) -> Value {
        self.daemon.onecli_json(&["secret", "show", secret])["version"].clone()
    }
}

fn ends(all: &Value) -> Vec<(&str, &str)> {
    all.as_array()
        .unwrap()
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), one["end"].as_str().unwrap()))
        .collect()
}

#[test]
fn import_skips_existing_secrets_without_replace() {
    let world = World::new();
    world.write(&[("OPENAI_API_KEY", FIRST)]);
    let added = world.import_as_foretold(&[]);
    assert_eq!(ends(&added), [("OPENAI_API_KEY", "added")], "{added}");

    world.write(&[
        ("OPENAI_API_KEY", SECOND),
        ("ANTHROPIC_API_KEY", "sk-ant-imported-0816-0123456789"),
        ("DEBUG", "12345678"),
    ]);
    let skipped = world.import_as_foretold(&[]);
    assert_eq!(
        ends(&skipped),
        [("OPENAI_API_KEY", "skipped"), ("ANTHROPIC_API_KEY", "added"), ("DEBUG", "skipped")],
        "{skipped}"
    );
    assert!(skipped[0]["reason"].as_str().unwrap().contains("--replace"), "{skipped}");
    assert_eq!(world.version("openai"), json!(1), "the stored value is unchanged");

    let replaced = world.import_as_foretold(&["--replace"]);
    assert_eq!(
        ends(&replaced),
        [("OPENAI_API_KEY", "rotated"), ("ANTHROPIC_API_KEY", "unchanged"), ("DEBUG", "skipped")],
        "{replaced}"
    );
    assert_eq!(world.version("openai"), json!(2));
}

/// Two variables of one service in a file: the second must not replace the value of the first.
#[test]
fn import_takes_one_value_for_a_secret() {
    let world = World::new();
    let [first, second] = ["a", "b"].map(|letter| format!("ghp_{}", letter.repeat(36)));
    world.write(&[("GH_TOKEN", &first), ("GITHUB_TOKEN", &second), ("gh_token", &first)]);
    for options in [&[][..], &["--replace"]] {
        let done = world.import_as_foretold(options);
        let first = if options.is_empty() { "added" } else { "unchanged" };
        let expected = [("GH_TOKEN", first), ("GITHUB_TOKEN", "skipped"), ("gh_token", "unchanged")];
        assert_eq!(ends(&done), expected, "{options:?}: {done}");
    }
    assert_eq!(world.version("github"), json!(1));
}

#[test]
fn dry_run_checks_the_same_as_the_real_run() {
    let world = World::new();
    let add = ["secret", "add", "openai", "--host", "api.openai.com", "--bearer", "--value-stdin"];
    world.daemon.home().cli(&add).stdin(THIRD).outcome().ok("secret add");
    // Of another template, too short, not a pair of AWS keys.
    world.write(&[("OPENAI_API_KEY", FIRST), ("GH_TOKEN", "short"), ("AWS_SECRET_ACCESS_KEY", SECOND)]);
    let done = world.import_as_foretold(&["--replace"]);
    assert!(ends(&done).iter().all(|(_, end)| *end == "skipped"), "{done}");
    let printed = world.daemon.onecli(&["secret", "import", &world.file, "--dry-run"]);
    assert!(printed.out().contains("nothing was changed"), "{printed:?}");
}
