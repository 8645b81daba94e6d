//! A user other than root starts an agent: who is permitted, and what the launcher passes between the user and the
//! command.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use onecli_tests::cgroup::processes;
use onecli_tests::{need, wait_for};

use super::{PERSON, Stage};
use crate::scene::VALUE;

#[test]
fn agent_of_an_unprivileged_user_uses_a_credential() {
    let Some(stage) = Stage::new() else { return };
    let url = stage.scene.url("/echo");
    let script = format!(r#"exec curl -sS -H "Authorization: Bearer $API_KEY" {url}"#);
    stage.shell(&script).outcome().ok("curl");
    stage.scene.injected_once(&format!("Bearer {VALUE}"));
    let record = stage.scene.daemon.audit_until("the injection", |r| r["verdict"] == "inject");
    assert_eq!((&record["agent"], &record["uid"]), (&"robot".into(), &5.into()), "{record}");

    let status = stage.run(&["cat", "/proc/self/status", "/proc/self/cgroup"]).outcome().ok("cat");
    for line in [
        "Uid:\t5\t5\t5\t5",
        "Gid:\t60\t60\t60\t60",
        "Groups:\t60 ",
        "CapPrm:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line:?} is missing: {status}");
    }
    let cgroup = stage.scene.daemon.agent_cgroup(&stage.robot);
    let own = status.lines().find_map(|line| line.strip_prefix("0::")).expect("a cgroup2 line");
    let (agent, command) = own.rsplit_once('/').expect("a path");
    assert!(cgroup.ends_with(agent.trim_start_matches('/')), "{own} is not in {}", cgroup.display());
    assert!(command.starts_with("run-"), "{own} is not the cgroup of a single command");
}

#[test]
fn user_without_permission_gets_a_fix() {
    let Some(stage) = Stage::new() else { return };
    let daemon = &stage.scene.daemon;
    let refused = |outcome: onecli_tests::client::Outcome, words: &[&str]| {
        assert_eq!(outcome.code(), Some(125), "{outcome:?}");
        assert!(words.iter().all(|word| outcome.err().contains(word)), "{outcome:?}");
    };
    refused(stage.run_as("man", &[], &["id"]).outcome(), &["uid 6 may not run agent 'robot'", "allow-run"]);
    daemon.onecli(&["agent", "allow-run", "robot", "@man"]).ok("allow-run");
    let id = stage.run_as("man", &[], &["id", "-un"]).outcome().ok("id");
    assert_eq!(id, "games\n");
    daemon.onecli(&["agent", "deny-run", "robot", "@man"]).ok("deny-run");
    refused(stage.run_as("man", &[], &["id"]).outcome(), &["may not run agent 'robot'"]);
    refused(stage.run_as(PERSON, &["--user", "nobody"], &["id"]).outcome(), &["may not", "as user 'nobody'"]);
    daemon.onecli(&["agent", "disable", "robot"]).ok("disable");
    refused(stage.run(&["id"]).outcome(), &["is disabled"]);
    daemon.onecli(&["agent", "enable", "robot"]).ok("enable");

    // An administrator who may assign users to agents need not be root, and must not gain access to another user's
    // account.
    let _ = daemon.add_agent("thief", &["--user", "lp", "--runner", PERSON]);
    let run = |options: &[&str]| {
        let cli = daemon.home().cli(&[&["run", "--agent", "thief"], options, &["--", "id", "-un"]].concat());
        let mut run = onecli_tests::client::Run::new("setpriv").args([
            "--reuid",
            PERSON,
            "--regid",
            PERSON,
            "--clear-groups",
        ]);
        run = run.arg(cli.program()).args(cli.arguments());
        run.outcome()
    };
    refused(run(&[]), &["user 'lp' is not in the group of users for agents", "usermod -a -G"]);
    // As the user itself, cooperatively.
    assert_eq!(run(&["--scope"]).ok("--scope"), "bin\n");
    // An agent cannot start another agent.
    let inside = format!(
        "{} --socket {} run --agent thief --scope -- id",
        onecli_tests::bins::path("onecli").display(),
        daemon.home().socket().display()
    );
    refused(stage.shell(&inside).outcome(), &["agents may not"]);
}

#[test]
fn files_codes_and_signals_pass_through() {
    let Some(stage) = Stage::new() else { return };
    let outcome = stage.shell("cat; echo problem >&2; exit 7").stdin("x".repeat(1 << 20)).outcome();
    assert_eq!(
        (outcome.code(), outcome.stdout.len(), outcome.err().as_str()),
        (Some(7), 1 << 20, "problem\n")
    );
    assert_eq!(stage.run(&["no-such-command-here"]).outcome().code(), Some(127));
    assert_eq!(stage.run(&["/etc/passwd"]).outcome().code(), Some(126));
    // `onecli run` ends in the same way as its command.
    let killed = stage.shell("kill -SEGV $$").outcome();
    assert_eq!(killed.status.signal(), Some(Signal::SIGSEGV as i32), "{killed:?}");

    let signalled = |signal: Signal| {
        let running = stage.shell("trap 'echo term; exit 3' TERM; trap 'echo usr1; exit 4' USR1; echo ready; while :; do sleep 0.05; done");
        let running = running.start();
        // The command prints a line after it has set its traps, but not on a terminal. The cgroup also shows that it
        // runs.
        let cgroup = stage.scene.daemon.agent_cgroup(&stage.robot);
        let two = || (processes(&cgroup).len() >= 2).then_some(());
        assert!(wait_for(Duration::from_secs(10), two).is_some());
        kill(Pid::from_raw(running.pid().cast_signed()), signal).unwrap();
        running.finish()
    };
    let outcome = signalled(Signal::SIGTERM);
    assert_eq!((outcome.code(), outcome.out().as_str()), (Some(3), "ready\nterm\n"), "{outcome:?}");
    let outcome = signalled(Signal::SIGUSR1);
    assert_eq!((outcome.code(), outcome.out().as_str()), (Some(4), "ready\nusr1\n"), "{outcome:?}");
    let outcome = signalled(Signal::SIGINT);
    assert_eq!(outcome.status.signal(), Some(Signal::SIGINT as i32), "{outcome:?}");
    // A killed client sends no message: the command receives SIGHUP.
    signalled(Signal::SIGKILL);
    let cgroup = stage.scene.daemon.agent_cgroup(&stage.robot);
    let empty = || processes(&cgroup).is_empty().then_some(());
    assert!(wait_for(Duration::from_secs(10), empty).is_some(), "the command outlives its client");
}

/// A connection made outside passes no hook, and a directory bypasses the agent's view.
#[test]
fn standard_files_that_bypass_the_view_are_refused() {
    let Some(stage) = Stage::new() else { return };
    let script = r#"
import os, socket, subprocess, sys
listener = socket.create_server(("127.0.0.1", 0))
network = socket.create_connection(listener.getsockname())
for name, fd in (("network", network.fileno()), ("directory", os.open("/", os.O_RDONLY))):
    done = subprocess.run(sys.argv[1:], stdin=fd, capture_output=True, text=True)
    print(name, done.returncode, done.stderr.strip())
"#;
    let run = stage.run(&["true"]);
    let python = onecli_tests::client::Run::new("python3")
        .args(["-c", script])
        .arg(run.program())
        .args(run.arguments());
    let out = python.outcome().ok("python");
    assert!(out.contains("network 125 onecli: standard input is a network connection"), "{out}");
    assert!(out.contains("directory 125 onecli: standard input is a directory"), "{out}");
}

/// The complete procedure on a host whose user database is a temporary copy.
#[test]
fn user_is_created_for_an_agent() {
    if !need::root("everything") || !need::program("everything", "useradd", "passwd") {
        return;
    }
    const ON_A_COPY: &str = r#"
        set -e
        mkdir "$1/upper" "$1/work"
        mount -t tmpfs tmpfs "$1/upper" && mkdir "$1/upper/u" "$1/upper/w" "$1/upper/homes"
        mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/upper/u,workdir=$1/upper/w" /etc
        mkdir -p /var/lib/onecli-agents; mount --bind "$1/upper/homes" /var/lib/onecli-agents
        "$2" --config "$1/config.toml" --no-ebpf >"$1/daemon.log" 2>&1 &
        daemon=$!
        trap 'kill $daemon' EXIT
        cli=$3; dir=$1
        onecli() { "$cli" --socket "$dir/admin.sock" "$@"; }
        for i in $(seq 100); do onecli status >/dev/null 2>&1 && break; sleep 0.1; done
        onecli agent add a.b --create-user --factors token >/dev/null
        id onecli-a-a_b; ls -ld /var/lib/onecli-agents/onecli-a-a_b
        onecli run --agent a.b -- sh -c 'ls -ld ~; id -un; cd; touch x && ls'
        # A refused command leaves no user behind.
        onecli agent add a.b --create-user --user other 2>&1 || true
        id other 2>&1 || true
        onecli agent add c --create-user --user bin 2>&1 || true"#;
    let home = onecli_tests::daemon::Daemon::builder().no_ebpf().prepare();
    let run = onecli_tests::client::Run::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", ON_A_COPY, "sh"])
        .arg(home.dir())
        .arg(onecli_tests::bins::path("onecli-daemon"))
        .arg(onecli_tests::bins::path("onecli"));
    let out = run.outcome().ok("a copy");
    for part in [
        "(onecli-agents)",
        "drwxr-xr-x 2 root root",
        "drwx------",
        "onecli-a-a_b\nx\n",
        "agent 'a.b' already exists",
        "no such user",
        "user 'bin' already exists",
    ] {
        assert!(out.contains(part), "{part:?}: {out}");
    }
    assert!(
        nix::unistd::User::from_name("onecli-a-a_b").unwrap().is_none(),
        "the host's users are unchanged"
    );
}

/// For the whole host, on a copy of its trust store.
#[test]
fn authority_is_installed_and_removed() {
    let Some(stage) = Stage::new() else { return };
    if !need::program("everything", "update-ca-certificates", "ca-certificates") {
        return;
    }
    const ON_A_COPY: &str = r#"
        set -e
        mkdir "$1/etc"; mount -t tmpfs tmpfs "$1/etc" && mkdir "$1/etc/u" "$1/etc/w"
        mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc/u,workdir=$1/etc/w" /etc
        mount -t tmpfs tmpfs /usr/local/share/ca-certificates
        # Hooks of other packages are slow, and irrelevant here.
        rm -rf /etc/ca-certificates/update.d; mkdir /etc/ca-certificates/update.d
        ask() { curl -sS -o /dev/null --proxy "$3" "$2" 2>/dev/null && echo trusted || echo "curl $?"; }
        ask "$@"
        "$4" --socket "$5" ca install; ask "$@"
        "$4" --socket "$5" ca uninstall; ask "$@"
        "$4" --socket "$5" ca uninstall"#;
    let daemon = &stage.scene.daemon;
    let run = onecli_tests::client::Run::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", ON_A_COPY, "sh"])
        .arg(daemon.home().dir())
        .arg(stage.scene.url("/echo"))
        .arg(daemon.proxy_url(&stage.scene.outside.token))
        .arg(onecli_tests::bins::path("onecli"))
        .arg(daemon.home().socket());
    let out = run.timeout(Duration::from_mins(2)).outcome().ok("a copy");
    let lines: Vec<_> = out.lines().collect();
    // CURLE_PEER_FAILED_VERIFICATION, libcurl-errors(3).
    assert_eq!(lines[0], "curl 60", "{out}");
    assert!(lines[1].contains("trusts") && lines[2] == "trusted", "{out}");
    assert!(lines[3].starts_with("removed ") && lines[4] == "curl 60", "{out}");
    assert_eq!(lines[5], "it was not installed");
}

/// The service manager ends the launcher when the package is upgraded (`KillMode=process`). Its running commands
/// continue, and report their exit status to the user.
#[test]
fn running_command_outlives_its_launcher() {
    let Some(stage) = Stage::new() else { return };
    let running = stage.shell("sleep 4; echo still here; exit 7").start();
    let cgroup = stage.scene.daemon.agent_cgroup(&stage.robot);
    let begun = || (!processes(&cgroup).is_empty()).then_some(());
    assert!(wait_for(Duration::from_secs(20), begun).is_some(), "it does not start");
    let launcher = stage.launcher.pid();
    kill(Pid::from_raw(launcher.try_into().unwrap()), Signal::SIGTERM).unwrap();
    let ended =
        || std::fs::read_to_string(format!("/proc/{launcher}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    assert!(wait_for(Duration::from_secs(5), || ended().then_some(())).is_some(), "it does not end");
    let outcome = running.finish();
    assert_eq!((outcome.code(), outcome.out().as_str()), (Some(7), "still here\n"), "{outcome:?}");
}
