//! `onecli setup` as users run it: with a home, programs on their PATH, and their own rights.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;

use onecli_tests::client::{Outcome, PATH, Run};
use onecli_tests::daemon::Daemon;
use onecli_tests::group::AdminGroup;
use onecli_tests::{bins, canary, need};
use serde_json::Value;

/// The user who runs setup, which exists on every Debian.
const PERSON: &str = "bin";
const PERSON_ID: u32 = 2;
/// The user of the agent.
const ROBOT: &str = "games";

const GITHUB: &str = "ghp_0f3A9Zq7x0f3A9Zq7x0f3A9Zq7x0f3A9Zq7";
const GITLAB: &str = "glpat-0f3A9Zq7x1f3A9Zq7x";
const DEPLOY: &str = "deploy-0f3A9Zq7x2f3A9Zq7x";
const OPENAI: &str = "sk-proj-0f3A9Zq7x3f3A9Zq7x0f3A";
const GROQ: &str = "gsk_0f3A9Zq7x4f3A9Zq7x0f3A9Zq7x0f3A9Zq7x0f3A9Zq7";
const AWS_ID: &str = "AKIA0F3A9ZQ7X5F3A9ZQ";
const AWS_SECRET: &str = "0f3A9Zq7x6f3A9Zq7x0f3A9Zq7x0f3A9Zq7x+/Zq";

/// A daemon with an agent, and a user with credentials.
struct World {
    daemon: Daemon,
    // Separate from the daemon's directory, which must not contain a value.
    person: tempfile::TempDir,
}

impl World {
    fn new() -> Option<World> {
        if !need::root("setup") || !need::program("setup", "setpriv", "util-linux") {
            return None;
        }
        let daemon = Daemon::builder().no_ebpf().start();
        let _ = daemon.add_agent("coder", &["--factors", "token", "--user", ROBOT]);
        let world = World { daemon, person: tempfile::tempdir().unwrap() };
        fs::set_permissions(world.person.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for dir in ["home/.aws", "project", "programs"] {
            fs::create_dir_all(world.path(dir)).unwrap();
        }
        fs::copy(bins::path("onecli"), world.path("programs/onecli")).unwrap();
        world.file(
            "home/.aws/credentials",
            &format!("[default]\naws_access_key_id = {AWS_ID}\naws_secret_access_key = {AWS_SECRET}\n"),
        );
        world.file("home/.netrc", &format!(
            "machine gitlab.com login alice password {GITLAB}\nmachine git.acme.test login deploy password {DEPLOY}\n"
        ));
        world.file("project/.env", &format!("GROQ_API_KEY=\"{GROQ}\"\nOTHER=1\n"));
        world.file(
            "programs/gh",
            &format!(
                "#!/bin/sh\necho \"$(id -u) $*\" >> {}\nprintf '%s\\n' {GITHUB}\n",
                world.path("home/gh-log").display()
            ),
        );
        for path in ["home", "home/.aws", "home/.aws/credentials", "home/.netrc", "project", "project/.env"] {
            chown(world.path(path), Some(PERSON_ID), None).unwrap();
        }
        [GITHUB, GITLAB, DEPLOY, OPENAI, GROQ, AWS_SECRET].into_iter().for_each(canary::watch);
        Some(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.person.path().join(name)
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// `onecli setup` as the user, with this group.
    fn setup(&self, group: &str, args: &[&str]) -> Outcome {
        let run = Run::new("setpriv").args(["--reuid", PERSON, "--regid", group, "--clear-groups"]);
        let run = self.surroundings(run.arg(self.path("programs/onecli")));
        run.arg("--socket").arg(self.daemon.home().socket()).arg("setup").args(args).outcome()
    }

    fn surroundings(&self, run: Run) -> Run {
        let path = format!("{}:{PATH}", self.path("programs").display());
        let run = run.env("HOME", self.path("home")).env("PATH", path).env("OPENAI_API_KEY", OPENAI);
        run.cwd(self.path("project"))
    }

    /// A file of root, which root's setup reads.
    fn own_file(&self, name: &str, text: &str) {
        fs::remove_file(self.path(name)).unwrap();
        self.file(name, text);
    }

    /// Root's `onecli setup` on a terminal.
    fn answered(&self, args: &str, answers: &str) -> Outcome {
        let program = bins::path("onecli").display().to_string();
        let socket = self.daemon.home().socket().display().to_string();
        let command = format!("{program} --socket {socket} setup {args}");
        let script = Run::new("script").args(["--quiet", "--return", "--command", &command, "/dev/null"]);
        self.surroundings(script).stdin(answers).outcome()
    }

    /// The secrets that the agent may use.
    fn granted(&self) -> Vec<String> {
        let agent = self.agent();
        let all = agent["secrets"].as_array().unwrap();
        all.iter().map(|one| one["secret"].as_str().unwrap().to_owned()).collect()
    }

    fn names(&self, list: &str) -> Vec<String> {
        let all = self.daemon.onecli_json(&[list, "list"]);
        all.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    }

    fn agent(&self) -> Value {
        self.daemon.onecli_json(&["agent", "show", "coder"])
    }

    /// Returns whether the store has the value, by the report of an import.
    fn has(&self, variable: &str, value: &str) -> bool {
        self.file("again.env", &format!("{variable}={value}\n"));
        let path = self.path("again.env");
        let import = ["secret", "import", path.to_str().unwrap()];
        self.daemon.onecli_json(&import)[0]["end"] == "unchanged"
    }
}

/// A replacement for sudo(8): a copy of env(1) that is set-user-ID root, and that only the user's group can start.
fn sudo(world: &World) {
    let (dir, sudo) = (world.path("sudo"), world.path("sudo/sudo"));
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
    chown(&dir, Some(0), Some(PERSON_ID)).unwrap();
    fs::copy("/usr/bin/env", &sudo).unwrap();
    chown(&sudo, Some(0), Some(PERSON_ID)).unwrap();
    fs::set_permissions(&sudo, fs::Permissions::from_mode(0o4750)).unwrap();
    std::os::unix::fs::symlink(sudo, world.path("programs/sudo")).unwrap();
}

const EVERYTHING: [&str; 13] = [
    "--agent", "coder", "--yes", "--import", "env", "--import", "gh", "--import", "netrc", "--import",
    "dotenv", "--import", "aws",
];

#[test]
fn setup_imports_the_credentials_of_a_user() {
    if !need::root("setup") {
        return;
    }
    // One test for all rights, because the group exists once per machine.
    let _group = AdminGroup::new();
    let Some(world) = World::new() else { return };
    without_rights(&world);
    as_a_member_of_the_group(&world);
    again(&world);
    through_sudo(&world);
}

fn as_a_member_of_the_group(world: &World) {
    let before = fs::read(world.path("home/.netrc")).unwrap();
    let out = world.setup("onecli", &EVERYTHING).ok("setup");
    assert_eq!(world.names("secret"), ["aws", "git.acme.test", "github", "gitlab", "groq", "openai"]);
    let agent = world.agent();
    assert_eq!(agent["runners"][0], PERSON, "{agent}");
    assert_eq!(agent["secrets"].as_array().unwrap().len(), 6, "{agent}");
    let ended = format!("{AWS_ID}:{AWS_SECRET}");
    for (variable, value) in [("OPENAI_API_KEY", OPENAI), ("GITHUB_TOKEN", GITHUB), ("GROQ_API_KEY", GROQ)] {
        assert!(world.has(variable, value), "{variable}");
    }
    let rotate = world.daemon.home().cli(&["secret", "rotate", "aws"]).stdin(ended.as_str()).outcome();
    let output = rotate.ok("the value of AWS has the right form");
    assert!(output.contains("unchanged"), "the imported value is that of the file: {output}");
    // Run as the user, and only with these arguments.
    let log = fs::read_to_string(world.path("home/gh-log")).unwrap();
    assert_eq!(log, format!("{PERSON_ID} auth token\n"));
    for word in [
        "gh auth logout --hostname github.com",
        "unset OPENAI_API_KEY",
        "sed -i '/^[[:space:]]*",
        "remove the entry of machine gitlab.com",
        "agent allow-run coder bin",
        "secret add github --value-stdin --template github   # standard input: gh auth token",
        "secret add git.acme.test --value-stdin --host git.acme.test --basic deploy",
        "none of them was run",
        "run --agent coder -- bash",
        "no launcher answers",
    ] {
        assert!(out.contains(word), "{word:?} in {out}");
    }
    assert!(!out.contains("sudo"), "{out}");
    assert_eq!(fs::read(world.path("home/.netrc")).unwrap(), before, "the original files are unchanged");
    removals_work(world, &out);
}

/// Runs the printed commands on copies.
fn removals_work(world: &World, out: &str) {
    for (file, gone, stays) in [
        ("project/.env", "GROQ", Some("OTHER=1")),
        ("home/.aws/credentials", "aws_secret_access_key", Some("[default]")),
    ] {
        let path = world.path(file).display().to_string();
        let copy = world.path("copy");
        fs::copy(&path, &copy).unwrap();
        let command = out.lines().find(|line| line.contains("sed -i") && line.ends_with(&path)).unwrap();
        let command = command.replace(&path, copy.to_str().unwrap());
        Run::new("sh").args(["-c", command.trim()]).outcome().ok("the removal");
        let left = fs::read_to_string(&copy).unwrap();
        assert!(!left.contains(gone) && stays.is_none_or(|text| left.contains(text)), "{command}: {left}");
    }
}

/// Nothing is stored twice, and nothing is replaced.
fn again(world: &World) {
    let out = world.setup("onecli", &EVERYTHING).ok("again");
    assert!(out.contains("secret 'github' is stored already"), "{out}");
    assert!(!out.contains("secret add github"), "{out}");
    let all = world.daemon.onecli_json(&["secret", "list"]);
    let versions: Vec<_> =
        all.as_array().unwrap().iter().map(|one| one["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, [1; 6], "nothing is replaced");
}

fn without_rights(world: &World) {
    let outcome = world.setup(PERSON, &EVERYTHING);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    for word in ["no sudo on this host", "agent add coder --create-user --runner bin", "secret add NAME"] {
        assert!(outcome.err().contains(word), "{word}: {outcome:?}");
    }
    assert!(!world.path("home/gh-log").exists(), "nothing was read");
    let outcome = world.setup(PERSON, &[]);
    assert_eq!(outcome.code(), Some(2), "{outcome:?}");
    assert!(outcome.err().contains("--yes"), "{outcome:?}");
}

fn through_sudo(world: &World) {
    sudo(world);
    world.daemon.onecli(&["secret", "remove", "github"]).ok("remove");
    let only = ["--agent", "coder", "--yes", "--import", "gh"];
    let out = world.setup(PERSON, &only).ok("setup with sudo");
    let onecli = world.path("programs/onecli").display().to_string();
    for line in [
        format!("$ sudo {onecli} --socket"),
        "secret add github --value-stdin --template github   # standard input: gh auth token".to_owned(),
    ] {
        assert!(out.contains(&line), "{line:?} in {out}");
    }
    assert!(world.has("GITHUB_TOKEN", GITHUB));
    let log = fs::read_to_string(world.path("home/gh-log")).unwrap();
    assert!(log.lines().all(|line| line == format!("{PERSON_ID} auth token")), "never as root: {log}");
}

fn as_root(world: &World, args: &[&str]) -> Run {
    world.surroundings(world.daemon.home().cli(&[&["setup"], args].concat()))
}

#[test]
fn setup_by_root_reads_no_files_of_another_user() {
    let Some(world) = World::new() else { return };
    let borrowed = as_root(&world, &EVERYTHING).env("SUDO_USER", PERSON).outcome();
    assert_eq!(borrowed.code(), Some(2), "{borrowed:?}");
    assert!(borrowed.err().contains("without sudo"), "{borrowed:?}");
    let outcome = as_root(&world, &EVERYTHING).outcome();
    // Its own environment was read; the named sources that it may not read are a failure.
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert_eq!(world.names("secret"), ["openai"]);
    assert!(outcome.err().contains("belongs to another user"), "{outcome:?}");
    assert!(!world.path("home/gh-log").exists(), "a program that another user can replace");
}

#[test]
fn partial_failure_prints_the_next_steps() {
    let Some(world) = World::new() else { return };
    let import = ["--agent", "coder", "--yes", "--import", "env", "--import", "netrc", "--import", "dotenv"];
    fs::remove_file(world.path("home/.netrc")).unwrap();
    nix::unistd::mkfifo(&world.path("home/.netrc"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Root's own.
    fs::remove_file(world.path("project/.env")).unwrap();
    world.file("project/.env", "GROQ_API_KEY=not-a-key\n");
    let outcome = as_root(&world, &import).outcome();
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    for word in ["not a regular file", "does not look right", "this command failed"] {
        assert!(outcome.err().contains(word), "{word}: {outcome:?}");
    }
    for word in ["done before the failure:", "secret add openai", "run the same 'onecli setup' again"] {
        assert!(outcome.out().contains(word), "{word}: {outcome:?}");
    }
    world.file("project/.env", &format!("GROQ_API_KEY={GROQ}\n"));
    // Without the unreadable file.
    let import = ["--agent", "coder", "--yes", "--import", "env", "--import", "dotenv"];
    as_root(&world, &import).outcome().ok("again");
    assert_eq!(world.names("secret"), ["groq", "openai"]);
    assert_eq!(world.agent()["secrets"].as_array().unwrap().len(), 2);
}

/// On a terminal each source is named before it is read.
#[test]
fn user_at_a_terminal_is_prompted() {
    let Some(world) = World::new() else { return };
    let answered = |answers: &str| world.answered("--import env", answers);
    // The agent; do not read; no template.
    let declined = answered("\nn\n\n").ok("nothing to store");
    for word in ["Name of the agent [coder]:", "Read the variables OPENAI_API_KEY of your environment? [Y/n]"]
    {
        assert!(declined.contains(word), "{word}: {declined}");
    }
    assert!(world.names("secret").is_empty());
    // The agent; read; store; grant.
    let agreed = answered("coder\ny\ny\ny\n").ok("stored");
    assert!(agreed.contains("Run this command? [Y/n]"), "{agreed}");
    assert!(world.has("OPENAI_API_KEY", OPENAI));
    assert_eq!(world.agent()["secrets"][0]["secret"], "openai");
}

/// The `.env` of a cloned repository names a stored secret.
#[test]
fn name_in_an_env_file_grants_no_stored_secret() {
    let Some(world) = World::new() else { return };
    let add = ["secret", "add", "groq", "--template", "groq", "--value-stdin"];
    world.daemon.home().cli(&add).stdin(GROQ).outcome().ok("add");
    world.own_file("project/.env", &format!("GROQ_API_KEY={}\n", GROQ.replace('4', "5")));
    let import = as_root(&world, &["--agent", "coder", "--yes", "--import", "dotenv"]).outcome();
    assert_eq!(import.code(), Some(0), "{import:?}");
    assert!(import.err().contains("grant coder groq"), "{import:?}");
    assert!(import.out().contains("remove an original only if its value is the one stored"), "{import:?}");
    assert!(import.out().lines().any(|line| line.contains("sed -i") && line.contains("GROQ_API_KEY")));
    let piped = as_root(&world, &["--agent", "coder", "--yes", "--template", "groq"]);
    let piped = piped.stdin(GROQ.replace('4', "6")).outcome();
    assert_eq!(piped.code(), Some(1), "{piped:?}");
    for word in ["grant coder groq", "secret rotate groq", "standard input is not stored"] {
        assert!(piped.err().contains(word), "{word}: {piped:?}");
    }
    let question = "may differ from GROQ_API_KEY in";
    // Read; an empty answer does not grant the stored secret.
    let declined = world.answered("--agent coder --import dotenv", "y\n\n").ok("declined");
    assert!(declined.contains(question) && declined.contains("agent 'coder'? [y/N]"), "{declined}");
    assert!(world.granted().is_empty() && world.has("GROQ_API_KEY", GROQ));
    // Read; grant the stored secret; run the command.
    world.answered("--agent coder --import dotenv", "y\ny\ny\n").ok("agreed");
    assert_eq!(world.granted(), ["groq"]);
}

#[test]
fn first_aws_profile_is_granted() {
    let Some(world) = World::new() else { return };
    let profile = |name: &str, digit: &str| {
        let (id, secret) = (AWS_ID.replace('5', digit), AWS_SECRET.replace('6', digit));
        format!("[{name}]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")
    };
    let text = [profile("work", "2"), profile("default", "4"), profile("third", "8")].concat();
    world.own_file("home/.aws/credentials", &text);
    for _ in 0..2 {
        let import = as_root(&world, &["--agent", "coder", "--yes", "--import", "aws"]).outcome();
        let out = import.ok("import");
        assert_eq!(world.names("secret"), ["aws", "aws-third", "aws-work"]);
        assert_eq!(world.granted(), ["aws-work"]);
        for word in ["ungrant coder aws-work", "grant coder aws\n", "grant coder aws-third\n"] {
            assert!(import.err().contains(word), "{word:?}: {import:?}");
        }
        assert_eq!(out.matches("  sed -i").count(), 3, "{out}");
        assert!(out.contains("run --agent coder"), "{out}");
    }
}

#[test]
fn failed_credential_does_not_stop_the_others() {
    let Some(world) = World::new() else { return };
    world.own_file(
        "project/.env",
        &format!("GROQ_API_KEY=not-a-key\nOPENAI_API_KEY={OPENAI}\nTAVILY_API_KEY='x\n"),
    );
    world.own_file("home/.netrc", &format!("machine git.acme.test login --plain-http password {DEPLOY}\n"));
    let import = ["--agent", "coder", "--yes", "--import", "dotenv", "--import", "netrc"];
    let outcome = as_root(&world, &import).outcome();
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert_eq!(world.names("secret"), ["git.acme.test", "openai"]);
    assert_eq!(world.granted().len(), 2);
    for word in ["secret add groq --template groq --force", "TAVILY_API_KEY in", "these steps failed:"] {
        assert!(outcome.err().contains(word), "{word}: {outcome:?}");
    }
    for word in ["these commands remove the originals", "run --agent coder", "--recipe NAME"] {
        assert!(outcome.out().contains(word), "{word}: {outcome:?}");
    }
}

#[test]
fn named_source_without_a_credential_is_an_error() {
    let Some(world) = World::new() else { return };
    fs::remove_file(world.path("home/.netrc")).unwrap();
    world.own_file("project/.env", "OTHER=1\n");
    let import = ["--agent", "coder", "--yes", "--import", "netrc", "--import", "dotenv", "--import", "aws"];
    let outcome = as_root(&world, &import).outcome();
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    for word in
        ["--import netrc: there is no file", "--import dotenv: nothing to store", "--import aws: cannot read"]
    {
        assert!(outcome.err().contains(word), "{word}: {outcome:?}");
    }
}

/// Ctrl-C at the prompt for a value.
#[test]
fn interrupted_prompt_restores_the_echo() {
    let Some(world) = World::new() else { return };
    let program = bins::path("onecli").display().to_string();
    let socket = world.daemon.home().socket().display().to_string();
    let log = world.path("typescript").display().to_string();
    // The key is pressed after the prompt appears and the terminal has had time to be configured.
    let script = format!(
        "(timeout 20 sh -c 'until grep -q \"not shown\" {log}; do sleep 0.05; done'; sleep 0.5; printf '\\003'; sleep 0.5) | \
         script --quiet --flush --command \
         'trap : INT; {program} --socket {socket} secret add openai --template openai; echo end $?; stty -a' {log}"
    );
    let out = Run::new("sh").args(["-c", &script]).outcome().ok("script");
    assert!(out.contains("end 130"), "{out}");
    let words: Vec<&str> = out.split_whitespace().collect();
    assert!(words.contains(&"echo") && words.contains(&"isig") && words.contains(&"icanon"), "{out}");
}

/// The query of `run` for an unprivileged user.
fn a_runner_is_told_of_its_own_agents(world: &World) {
    let list = || {
        let run = Run::new("setpriv").args(["--reuid", PERSON, "--regid", PERSON, "--clear-groups"]);
        let run = run.arg(world.path("programs/onecli")).arg("--socket").arg(world.daemon.home().socket());
        run.args(["--json", "agent", "list"]).outcome()
    };
    assert_eq!(list().code(), Some(4));
    world.daemon.onecli(&["agent", "allow-run", "second", PERSON]).ok("allow-run");
    let own = list().json("agent list");
    assert_eq!((&own[0]["name"], own.as_array().map(Vec::len)), (&"second".into(), Some(1)), "{own}");
}

#[test]
fn run_uses_the_only_agent() {
    let Some(world) = World::new() else { return };
    let run = || world.daemon.home().cli(&["run", "--no-dir", "--", "id", "-un"]).outcome();
    assert_eq!(run().ok("the only agent"), format!("{ROBOT}\n"));
    let _ = world.daemon.add_agent("second", &["--factors", "token", "--user", "lp"]);
    let several = run();
    assert_eq!(several.code(), Some(125), "{several:?}");
    assert!(several.err().contains("coder, second") && several.err().contains("--agent"), "{several:?}");
    a_runner_is_told_of_its_own_agents(&world);
    for name in ["coder", "second"] {
        world.daemon.onecli(&["agent", "disable", name]).ok("disable");
    }
    let none = run();
    assert_eq!(none.code(), Some(125), "{none:?}");
    assert!(none.err().contains("onecli setup"), "{none:?}");
}
