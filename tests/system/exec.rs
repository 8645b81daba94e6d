//! Values that commands on the host print.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use onecli_tests::client::{self, Run};
use onecli_tests::daemon::{Agent, Builder, Daemon, UID};
use onecli_tests::upstream::Upstream;
use onecli_tests::{bins, canary, need, wait_for};
use tempfile::TempDir;

const API: &str = "api.test";
/// A token that the upstream's `/accept/N` accepts.
const FIRST: &str = "minted-token-1";
const SECOND: &str = "minted-token-2";
/// A user that exists on every Debian and runs no process.
const USER: &str = "backup";

struct World {
    daemon: Daemon,
    upstream: Upstream,
    agent: Agent,
    /// A directory of root, in which no other user can replace a command.
    dir: TempDir,
}

impl World {
    /// A daemon started by root, whose executor is its child process.
    fn new() -> Option<World> {
        if !need::root("commands as sources") {
            return None;
        }
        Some(World::of(Daemon::builder().config(&format!("[backend.exec]\nuser = \"{USER}\""))))
    }

    /// An unprivileged daemon with an executor that is a service.
    fn of_services() -> Option<World> {
        let part = "an executor that is a service";
        if !need::bpf(part) || !need::program(part, "systemd-socket-activate", "systemd") {
            return None;
        }
        Some(World::of(Daemon::builder().unprivileged()))
    }

    fn of(builder: Builder) -> World {
        canary::watch(FIRST);
        canary::watch(SECOND);
        let upstream = Upstream::start(&[API]);
        let daemon = builder.upstream(&upstream).start();
        let agent = daemon.add_agent("agent", &["--factors", "token"]);
        let dir = tempfile::Builder::new().prefix("onecli-test-").tempdir_in("/run").unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        World { daemon, upstream, agent, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file that commands may write.
    fn writable(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        path
    }

    fn script(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(
            &path,
            format!("#!/bin/sh\n{}\n", text.replace("{dir}", self.dir.path().to_str().unwrap())),
        )
        .unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs `secret add` as root, for the output of a command.
    fn try_add(&self, name: &str, command: &str) -> client::Outcome {
        let host = format!("{API}:{}", self.upstream.https_addr().port());
        let args = ["--json", "secret", "add", name, "--host", &host, "--bearer", "--exec", command];
        self.daemon.onecli(&args)
    }

    fn add(&self, name: &str, command: &str) {
        let _ = self.try_add(name, command).ok("secret add");
        let _ = self.daemon.grant(&self.agent, name);
    }

    fn run(&self, path: &str) -> Run {
        self.daemon.explicit(&self.agent.token, client::curl(&self.upstream.https_url(API, path)))
    }

    fn ask(&self, path: &str) -> (u16, String) {
        let reply = self.run(path).timeout(Duration::from_secs(30)).outcome().reply();
        (reply.status, String::from_utf8_lossy(&reply.body).into_owned())
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.path("runs")).unwrap().lines().count()
    }
}

/// The value is used until it expires or is refused. Concurrent requests share one run of the command.
fn the_main_job(world: &World) {
    let _ = world.writable("runs");
    let script = world.script("print", "echo \"$1 $2\" >> {dir}/runs\ncat {dir}/value");
    let prints = |value: &str| {
        let document = format!("{{\"value\":\"{value}\",\"expires_in\":3600}}\n");
        fs::write(world.path("value"), document).unwrap();
    };
    prints(FIRST);
    world.add("exec", &format!("{script}  one two"));
    let shown = world.daemon.onecli_json(&["secret", "show", "exec"]);
    assert_eq!(shown["profile"]["source"]["exec"], format!("{script} one two"), "{shown}");
    let all: Vec<_> = (0..8).map(|_| world.run("/accept/1").start()).collect();
    for running in all {
        assert_eq!(running.finish().reply().status, 200);
    }
    assert_eq!(fs::read_to_string(world.path("runs")).unwrap(), "one two\n", "once");
    let _ = world.daemon.audit_until("the command", |record| record["backend"] == "exec");

    // If the API refuses the value, the command runs again, and the request is sent once more.
    prints(SECOND);
    world.upstream.clear();
    assert_eq!((world.ask("/accept/2").0, world.upstream.request_count(), world.runs()), (200, 2, 2));
    let (status, body) = world.ask("/echo");
    assert_eq!(status, 200);
    assert!(!body.contains(SECOND), "scrubbed: {body}");
}

#[test]
fn value_is_read_from_a_command() {
    let Some(world) = World::new() else { return };
    the_main_job(&world);
    // An agent with the same user could read the command's output.
    let refusal = world.daemon.onecli(&["agent", "add", "other", "--user", USER]);
    assert!(!refusal.status.success() && refusal.err().contains("belongs to OneCLI"), "{refusal:?}");
}

#[test]
fn unprivileged_daemon_runs_the_command_in_the_executor_service() {
    let Some(world) = World::of_services() else { return };
    the_main_job(&world);
    // An administrator other than root: here the daemon's own user, which may do everything else.
    let cli = world.daemon.home().dir().join("onecli");
    fs::copy(bins::path("onecli"), &cli).unwrap();
    chown(&cli, Some(UID), Some(UID)).unwrap();
    let host = format!("{API}:{}", world.upstream.https_addr().port());
    for source in [["--exec", "/bin/true"], ["--file", "/etc/hostname"]] {
        let user = format!("--reuid={UID}");
        let run = Run::new("setpriv").args([&user, "--clear-groups"]).arg(&cli).arg("--socket");
        let run = run.arg(world.daemon.home().socket());
        let refused =
            run.args(["secret", "add", "other", "--host", &host, "--bearer"]).args(source).outcome();
        assert_eq!(refused.code(), Some(4), "{refused:?}");
        assert!(refused.err().contains("only root"), "{refused:?}");
    }
}

#[test]
fn value_of_a_command_is_used_until_it_expires() {
    let Some(world) = World::new() else { return };
    let _ = world.writable("runs");
    let script =
        world.script("print", "echo >> {dir}/runs\necho '{\"value\":\"minted-token-1\",\"expires_in\":2}'");
    world.add("exec", &script);
    assert_eq!((world.ask("/accept/1").0, world.ask("/accept/1").0, world.runs()), (200, 200, 1));
    // The value is dropped one fifth of its lifetime before it expires.
    std::thread::sleep(Duration::from_millis(1700));
    assert_eq!((world.ask("/accept/1").0, world.runs()), (200, 2));
}

/// The environment of a command, and the parts of the host that it cannot reach.
fn check_exec_environment(world: &World, user: &str, home: &str) {
    let seen = world.writable("seen");
    let key = world.daemon.home().data_dir().join("root.key");
    let script = world.script(
        "look",
        &format!(
            "for fd in /proc/$$/fd/*; do echo fd=$(readlink $fd) >> {{dir}}/seen; done\n\
             exec >> {{dir}}/seen 2>&1\n\
             env; echo user=$(id -u) groups=$(id -G) cwd=$(pwd) umask=$(umask)\n\
             grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status\n\
             cat {key} && echo the key was read\n\
             unshare --user true && echo a namespace was made\n\
             ulimit -c; exit 1",
            key = key.display()
        ),
    );
    world.add("look", &script);
    let (status, body) = world.ask("/echo");
    assert_eq!(status, 502, "{body}");
    assert!(body.contains("the command that prints it failed"), "{body}");
    assert!(
        world.daemon.home().log().contains("it ended with exit status: 1"),
        "{}",
        world.daemon.home().log()
    );
    let seen = fs::read_to_string(seen).unwrap();
    let has = |line: &str| assert!(seen.lines().any(|found| found == line), "{line}: {seen}");
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let known = nix::unistd::User::from_name(user).unwrap();
    let uid = known.as_ref().map_or_else(|| user.to_owned(), |user| user.uid.to_string());
    let gid = known.as_ref().map_or_else(|| user.to_owned(), |user| user.gid.to_string());
    for line in [
        path,
        "LANG=C.UTF-8",
        &format!("USER={user}"),
        &format!("LOGNAME={user}"),
        &format!("HOME={home}"),
        &format!("user={uid} groups={gid} cwd=/ umask=0077"),
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "fd=/dev/null",
        "0",
    ] {
        has(line);
    }
    let variables: Vec<&str> =
        seen.lines().filter_map(|line| Some(line.split_once('=')?.0)).filter(|name| *name != "fd").collect();
    for name in variables {
        let ours = ["PATH", "LANG", "USER", "LOGNAME", "HOME", "PWD", "OLDPWD", "SHLVL", "_", "user"];
        assert!(ours.contains(&name), "{name}: {seen}");
    }
    assert!(!seen.contains("the key was read") && !seen.contains("a namespace was made"), "{seen}");
    // Its input, output and error stream, and the script. Globs without a match stay as they are.
    let held: Vec<&str> = seen.lines().filter_map(|line| line.strip_prefix("fd=")).collect();
    let is_own = |file: &&str| {
        ["/dev/null", ""].contains(file) || file.starts_with("pipe:") || file.contains("onecli-test-")
    };
    assert!(held.len() >= 3 && held.iter().all(is_own), "{held:?}");
}

#[test]
fn command_inherits_nothing_from_the_daemon() {
    let Some(world) = World::new() else { return };
    let home = nix::unistd::User::from_name(USER).unwrap().unwrap().dir;
    check_exec_environment(&world, USER, home.to_str().unwrap());
}

#[test]
fn command_of_the_executor_service_inherits_nothing_from_the_daemon() {
    let Some(world) = World::of_services() else { return };
    check_exec_environment(&world, &(UID - 1).to_string(), "/");
}

/// Returns whether a process with this argument exists.
fn runs(argument: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|process| {
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
    })
}

fn until_gone(argument: &str) {
    let gone = wait_for(Duration::from_secs(5), || (!runs(argument)).then_some(()));
    assert!(gone.is_some(), "'{argument}' still runs");
}

#[test]
fn processes_left_by_a_command_are_killed() {
    let Some(world) = World::new() else { return };
    // The child holds the output open, which must not block the daemon.
    let script = world.script("leave", "sleep 3601.5 &\necho minted-token-1");
    world.add("exec", &script);
    assert_eq!(world.ask("/accept/1").0, 200);
    until_gone("3601.5");
    // Processes in their own sessions and groups, below the command and orphaned.
    let script = world.script(
        "daemon",
        "setsid sleep 3606.5 &\nsetsid sh -c 'sleep 3607.5 & sleep 3608.5 & exec sleep 3609.5' &\n\
         (setsid -f sleep 3610.5)\n\
         sleep 0.3\necho minted-token-1",
    );
    world.add("daemon", &script);
    let _ = world.daemon.onecli(&["secret", "disable", "exec"]).ok("secret disable");
    assert_eq!(world.ask("/accept/1").0, 200);
    for argument in ["3606.5", "3607.5", "3608.5", "3609.5", "3610.5"] {
        until_gone(argument);
    }
}

/// A command cannot read the memory or environment of another command, nor kill it.
#[test]
fn commands_cannot_read_or_kill_each_other() {
    const HELD: &str = "held-by-the-first";
    let Some(world) = World::new() else { return };
    if !need::program("commands that inspect other commands", "python3", "python3") {
        return;
    }
    let _ = world.writable("seen");
    let first = world.script(
        "first",
        &format!("export HELD={HELD}\npython3 -c 'import time; time.sleep(6)' {{dir}}\necho minted-token-1"),
    );
    let second = world.script(
        "second",
        "exec >> {dir}/seen 2>&1\n\
         for p in /proc/[0-9]*; do\n\
         tr '\\0' ' ' < $p/cmdline | grep -q 'time.slee[p](6) {dir}' || continue\n\
         echo found; tr '\\0' '\\n' < $p/environ; readlink $p/fd/1; head -c 1 $p/mem\n\
         kill -0 ${p#/proc/} && echo signalled\n\
         done\n\
         tr '\\0' '\\n' < /proc/self/environ",
    );
    world.add("first", &first);
    let running = world.run("/accept/1").start();
    std::thread::sleep(Duration::from_millis(1500));
    let _ = world.daemon.onecli(&["secret", "disable", "first"]).ok("secret disable");
    world.add("second", &second);
    let _ = world.ask("/accept/1");
    let seen = fs::read_to_string(world.path("seen")).unwrap();
    assert!(seen.contains("found"), "the other command was running: {seen}");
    assert!(seen.contains("LANG=C.UTF-8"), "its own environment can be read: {seen}");
    assert!(!seen.contains(HELD) && !seen.contains("pipe:") && !seen.contains("signalled"), "{seen}");
    drop(running);
}

#[test]
fn slow_command_that_hangs_is_killed() {
    let Some(mut world) = World::new() else { return };
    let script = world.script(
        "hang",
        "trap '' TERM INT HUP\necho minted-token-1\nsleep 3602.5 & sleep 3602.5; sleep 3602.5",
    );
    world.add("exec", &script);
    let (status, body) = world.ask("/echo");
    assert_eq!(status, 502, "{body}");
    assert!(world.daemon.home().log().contains("it did not end within 10s"), "{}", world.daemon.home().log());
    until_gone("3602.5");
    // The next run, after the failure has expired, is in progress when the daemon is killed.
    std::thread::sleep(Duration::from_millis(1100));
    let running = world.run("/echo").start();
    assert!(wait_for(Duration::from_secs(5), || runs("3602.5").then_some(())).is_some());
    world.daemon.kill();
    until_gone("3602.5");
    drop(running);
    world.daemon.restart();
}

#[test]
fn output_of_a_command_is_bounded_and_never_logged() {
    let Some(world) = World::new() else { return };
    for (name, text, why) in [
        ("long", "yes minted-token-1 | head -c 70000", "printed more than 65536 bytes"),
        ("endless", "yes minted-token-1", "printed more than 65536 bytes"),
        ("errors", "echo minted-token-1 >&2; echo minted-token-1; exit 3", "it ended with exit status: 3"),
        ("killed", "echo minted-token-1; kill -9 $$", "signal: 9"),
        ("several", "echo minted-token-1; echo minted-token-2", "control character"),
        ("odd", "echo '{\"value\":\"minted-token-1\",\"expires\":\"minted-token-1\"}'", "begins as JSON"),
        ("over", "echo '{\"value\":\"minted-token-1\",\"expires_in\":0}'", "has already expired"),
    ] {
        let script = world.script(name, text);
        world.add(name, &script);
        let (status, body) = world.ask("/accept/1");
        assert_eq!(status, 502, "{name}: {body}");
        assert!(!body.contains("minted-token") && !body.contains(&script), "{name}: {body}");
        let log = world.daemon.home().log();
        assert!(log.contains(why), "{name}: {log}");
        assert!(!log.contains("minted-token"), "{name}: {log}");
        let _ = world.daemon.onecli(&["secret", "remove", name]).ok("secret remove");
    }
}

#[test]
fn command_that_others_could_replace_is_refused() {
    let Some(world) = World::new() else { return };
    let script = world.script("print", "echo minted-token-1");
    world.add("exec", &script);
    assert_eq!(world.ask("/accept/1").0, 200);
    let set = |path: &Path, mode: u32| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let refused = |what: &str| {
        let refusal = world.try_add("other", &script);
        assert!(!refusal.status.success() && refusal.err().contains(what), "{refusal:?}");
    };
    // Before and after the secret is stored.
    set(Path::new(&script), 0o775);
    let _ = world.daemon.onecli(&["secret", "disable", "exec"]).ok("secret disable");
    let _ = world.daemon.onecli(&["secret", "remove", "exec"]).ok("secret remove");
    refused("mode 0775");
    set(Path::new(&script), 0o755);
    set(world.dir.path(), 0o777);
    refused("mode 0777");
    set(world.dir.path(), 0o755);
    // With another argument it is another command, whose output is separate.
    world.add("exec", &format!("{script} again"));
    chown(&script, Some(65534), None).unwrap();
    refused("belongs to uid 65534");
    let (status, body) = world.ask("/accept/1");
    assert_eq!(status, 502, "{body}");
    assert!(world.daemon.home().log().contains("belongs to uid 65534"));
    for (command, why) in [
        ("/bin/sh -c 'echo x'", "no shell"),
        ("print", "not an absolute path"),
        ("/run", "can be executed"),
        ("/no/such/command", "ENOENT"),
    ] {
        let refusal = world.try_add("other", command);
        assert!(!refusal.status.success() && refusal.err().contains(why), "{command}: {refusal:?}");
    }
}

#[test]
fn missing_executor_is_reported() {
    if !need::root("commands as sources") {
        return;
    }
    let config = "[backend.exec]\nuser = \"no-such-user-here\"";
    let daemon = Daemon::builder().config(config).start();
    let refusal = daemon.onecli(&["secret", "add", "x", "--host", API, "--bearer", "--exec", "/bin/true"]);
    assert!(!refusal.status.success() && refusal.err().contains("'no-such-user-here'"), "{refusal:?}");
}

/// An attacker who changes the row cannot choose a command or its arguments.
#[test]
fn command_changed_in_the_database_is_not_run() {
    const SCRIPT: &str = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1])\n\
        db.execute(\"UPDATE secrets SET profile = replace(profile, ' one', ' two')\")\n\
        db.commit()\n";
    let Some(mut world) = World::new() else { return };
    let _ = world.writable("runs");
    let script = world.script("print", "echo \"$1\" >> {dir}/runs\necho minted-token-1");
    world.add("exec", &format!("{script} one"));
    world.daemon.kill();
    let database = world.daemon.home().data_dir().join("onecli.db");
    let edited = Command::new("python3").args(["-c", SCRIPT]).arg(database).status().unwrap();
    assert!(edited.success());
    world.daemon.restart();
    let shown = world.daemon.onecli_json(&["secret", "show", "exec"]);
    assert_eq!(shown["profile"]["source"]["exec"], format!("{script} two"), "{shown}");
    let (status, body) = world.ask("/accept/1");
    assert_eq!((status, world.runs()), (502, 0), "{body}");
}
