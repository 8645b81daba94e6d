//! Attacks on the host that avoid the network: the launcher, files of other users, accounts, and the package.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use onecli_tests::client::{Outcome, Run, Running};
use onecli_tests::daemon::{AGENTS_DIR, Daemon};
use onecli_tests::{bins, need, wait_for};

use crate::stage::row::{Row, Trial};
use crate::stage::world::VALUE;

const OUTSIDE: &str = "outside of an agent the same user reads the file";

pub(crate) const ROWS: &[Row] = &[
    Row::new(
        "host/linked-directory",
        "the files of a directory that its user did not share",
        "a directory of the project is shared, and so is the link's target if the user names it",
        linked_directory,
    )
    .quick(),
    Row::new("host/home", "files in the home of another user", OUTSIDE, home).quick(),
    Row::new("host/temporary-file", "temporary files of other users", OUTSIDE, temporary_file).quick(),
    Row::new(
        "host/launcher-memory",
        "root's memory, and the connections of other users, without permission to run an agent",
        "a permitted user can run an agent before the attack",
        launcher_memory,
    ),
    Row::new(
        "host/package-removal",
        "a network without the kernel programs, once the package is removed",
        "without an agent the same command detaches the programs",
        package_removal,
    )
    .quick(),
    Row::new(
        "host/ssh-login",
        "a shell outside of the agent's cgroup for an accomplice",
        "the same key opens an account with a home that its user can write",
        ssh_login,
    ),
    Row::new(
        "host/administrator",
        "all values, for an administrator other than root",
        "the administrator manages agents, and root can run the same commands",
        administrator,
    )
    .quick(),
];

/// The agent's user, and the user who runs it. Both exist on every Debian.
const ROBOT: &str = "games";
const PERSON: (&str, u32) = ("bin", 2);

/// A daemon without kernel programs, with an agent that has a user. `None` without root, which is needed to start the
/// agent.
fn host(trial: &mut Trial) -> Option<Daemon> {
    if !nix::unistd::geteuid().is_root() {
        trial.not_run("starting an agent as root (needs root)");
        return None;
    }
    let daemon = Daemon::builder().no_ebpf().start();
    daemon.onecli(&["agent", "add", "robot", "--user", ROBOT, "--runner", PERSON.0]).ok("agent add");
    Some(daemon)
}

fn directory(path: PathBuf) -> PathBuf {
    fs::create_dir_all(&path).expect("a directory");
    give(&path, 0o755);
    path
}

fn file(path: &Path, text: &str) {
    fs::write(path, text).expect("a file");
    give(path, 0o644);
}

fn give(path: &Path, mode: u32) {
    chown(path, Some(PERSON.1), Some(PERSON.1)).expect("its owner");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// Returns whether `user` prints `words` with a command outside of an agent.
fn outside(user: &str, script: &str, words: &str) -> bool {
    let run = Run::new("setpriv").args(["--reuid", user, "--clear-groups", "sh", "-c", script]);
    run.outcome().out().contains(words)
}

/// The agent replaces a directory of its project with a link to another one.
fn linked_directory(trial: &mut Trial) {
    let Some(daemon) = host(trial) else { return };
    let at = |name: &str| directory(daemon.home().dir().join(name));
    let (project, private) = (at("project"), at("private"));
    let part = directory(project.join("part"));
    file(&part.join("key"), "ordinary\n");
    file(&private.join("key"), "private\n");
    let run = |options: &[&str], place: &Path, script: &str| -> Outcome {
        let args = [&["run", "--agent", "robot"], options, &["--", "sh", "-c", script]].concat();
        daemon.home().cli(&args).cwd(place).env("PWD", place).outcome()
    };
    let named = ["--dir", text(&project)];
    run(&named, Path::new("/"), "true").ok("the project is confirmed once");
    trial.control("a directory is shared", run(&[], &part, "cat key").out() == "ordinary\n");
    let named_target = run(&["--dir", text(&private)], Path::new("/"), "cat key");
    trial.control("the target is shared if it is named", named_target.out() == "private\n");
    // A directory that was named stays confirmed, and now the link points to another one.
    let (other, link) = (at("other"), &part);
    file(&other.join("key"), "private\n");
    let script = format!("rm -r part && ln -s {} part", other.display());
    run(&named, Path::new("/"), &script).ok("the link");
    trial.control("the link is on the disk", fs::read_link(link).is_ok_and(|target| target == other));
    for options in [&[][..], &["--dir", "."], &["--dir", text(link)], &["--no-dir", "--share", "."]] {
        let out = run(options, link, "cat key; cat part/key");
        trial.attempt(format!("{options:?}"), out.out().contains("private"));
    }
}

/// Reads the home directory of a host user, which has mode 0755.
fn home(trial: &mut Trial) {
    let Some(daemon) = host(trial) else { return };
    let home = directory(daemon.home().dir().join("carol"));
    file(&home.join("key"), "private\n");
    let passwd = daemon.home().dir().join("passwd");
    let users = fs::read_to_string("/etc/passwd").expect("the users of this host");
    fs::write(&passwd, format!("{users}onecli-attack:x:4244:12::{}:/bin/sh\n", home.display()))
        .expect("passwd");
    let read = format!("cat {}/key", home.display());
    trial.control(OUTSIDE, outside(ROBOT, &read, "private"));
    for script in [
        read.clone(),
        format!(
            "unshare --user --map-root-user --mount sh -c 'umount {0}; umount -l {0}; {read}'",
            home.display()
        ),
        format!("ls -A {}", home.display()),
    ] {
        const INSIDE: &str = r#"mount --bind "$1" /etc/passwd || exit 120; shift; exec "$@""#;
        let cli = daemon.home().cli(&["run", "--agent", "robot", "--no-dir", "--", "sh", "-c", &script]);
        let run = Run::new("unshare").args(["--mount", "--propagation", "private", "sh", "-c", INSIDE, "sh"]);
        let run = run.arg(&passwd).arg(cli.program()).args(cli.arguments());
        let out = run.env(AGENTS_DIR, daemon.home().agents_dir()).outcome();
        assert_ne!(out.code(), Some(125), "the command does not start: {out:?}");
        trial.attempt(&script, out.out().contains("private") || out.out().contains("key"));
    }
}

/// Reads files in /tmp and /var/tmp of the host.
fn temporary_file(trial: &mut Trial) {
    let Some(daemon) = host(trial) else { return };
    for place in ["/tmp", "/var/tmp"] {
        let hosts = tempfile::Builder::new().prefix("onecli-attack-").tempfile_in(place).expect("a file");
        file(hosts.path(), "private\n");
        let read = format!("cat {}", hosts.path().display());
        trial.control(format!("{OUTSIDE} in {place}"), outside(ROBOT, &read, "private"));
        let mine = format!("{place}/onecli-attack-{}", std::process::id());
        let script = format!("{read}; echo evil > {mine}");
        let out = daemon.onecli(&["run", "--agent", "robot", "--no-dir", "--", "sh", "-c", &script]);
        out.clone().ok("the agent has a directory of its own there");
        trial.attempt(format!("{read} in an agent"), out.out().contains("private"));
        trial.attempt(format!("{mine} on the host"), fs::exists(&mine).unwrap_or(true));
    }
}

/// A Python script that opens many connections to the launcher. On half of them it announces the longest request. On
/// the others it sends most of the largest first frame, and then a byte from time to time.
const HOLD: &str = r#"
import socket, struct, sys, time
held = []
for number in range(128):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(0.2)
    length, sent = ((12 << 20), (11 << 20)) if number % 2 else (4096, 4000)
    try:
        s.connect(sys.argv[1])
        s.sendall(struct.pack("<I", length) + b"x" * sent)
    except OSError:
        pass
    held.append(s)
for _ in range(40):
    time.sleep(1)
    for s in held:
        try:
            s.sendall(b"x")
        except OSError:
            pass
"#;
/// The launcher's memory must grow by less than this many KiB for unauthorized callers. One authorized request alone
/// uses up to 12 MiB.
const MOST_KIB: u64 = 32 * 1024;

/// Users without permission to run an agent hold connections.
fn launcher_memory(trial: &mut Trial) {
    let Some(daemon) = host(trial) else { return };
    let socket = daemon.home().socket().with_file_name("launch.sock");
    let cli = daemon.home().cli(&["launcher", "--users", ROBOT]).timeout(Duration::from_mins(5));
    let launcher = cli.start();
    assert!(wait_for(Duration::from_secs(10), || socket.exists().then_some(())).is_some(), "no launcher");
    let run = || {
        let cli = daemon.home().cli(&["run", "--agent", "robot", "--no-dir", "--", "echo", "it runs"]);
        let run = Run::new("setpriv").args(["--reuid", PERSON.0, "--regid", PERSON.0, "--clear-groups"]);
        run.arg(cli.program()).args(cli.arguments()).outcome().out() == "it runs\n"
    };
    trial.control("the user runs the agent", run());
    let before = memory(launcher.pid());
    trial.control("the launcher's memory can be read", before > 0);
    let holders: Vec<Running> = (70_000..70_004_u32).map(|uid| hold(&socket, uid)).collect();
    let (mut grown, mut most) = (0, 0);
    for _ in 0..10 {
        std::thread::sleep(Duration::from_secs(1));
        grown = grown.max(memory(launcher.pid()).saturating_sub(before));
        most = most.max(children(launcher.pid()).len());
        trial.attempt("another user is locked out", !run());
    }
    trial.control("the launcher handles the connections", most > 0);
    trial.note(format!("512 connections of unauthorized users: {most} processes, {grown} KiB"));
    trial.attempt(format!("{grown} KiB of memory"), grown > MOST_KIB);
    drop(holders);
}

/// The child processes of a process.
fn children(pid: u32) -> Vec<u32> {
    let all = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    all.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn hold(socket: &Path, uid: u32) -> Running {
    let run =
        Run::new("setpriv").args([&format!("--reuid={uid}"), "--regid=65534", "--clear-groups", "python3"]);
    run.args(["-c", HOLD]).arg(socket).timeout(Duration::from_mins(2)).start()
}

/// The private memory of a process and its children, in KiB.
fn memory(pid: u32) -> u64 {
    let own = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let private = text.lines().filter_map(|line| line.strip_prefix("Private_Dirty:"));
        private.filter_map(|kib| kib.split_whitespace().next()?.parse::<u64>().ok()).sum::<u64>()
    };
    children(pid).iter().chain([&pid]).map(own).sum()
}

/// The configuration names a different agents root from the one with running agents.
fn package_removal(trial: &mut Trial) {
    if let Some(why) = need::bpf_missing() {
        trial.not_run(why);
        return;
    }
    let daemon = Daemon::builder().start();
    let robot = daemon.add_agent("robot", &["--user", ROBOT]);
    let (home, cgroup) = (daemon.home(), daemon.agent_cgroup(&robot));
    let config = fs::read_to_string(home.config_file()).expect("the configuration");
    let other = home.dir().join("other.toml");
    let renamed = config.replace(".slice/agents.slice", ".slice/renamed.slice");
    assert_ne!(config, renamed, "the configuration names the agents' root");
    fs::write(&other, renamed).expect("another configuration");
    let retire = |config: &Path| {
        let run = Run::new(bins::path("onecli-daemon")).arg("--config").arg(config).arg("--retire");
        run.outcome().code()
    };
    let agent = daemon.managed(&robot, &Run::new("sleep").arg("60")).start();
    let runs = || !onecli_tests::cgroup::processes(&cgroup).is_empty();
    assert!(wait_for(Duration::from_secs(10), || runs().then_some(())).is_some(), "the agent does not start");
    for config in [home.config_file(), other] {
        let code = retire(&config);
        trial.attempt(format!("with {}: exit {code:?}", config.display()), !home.pins().exists());
    }
    trial.control("the agent runs during the removal", runs());
    drop(agent);
    fs::write(cgroup.join("cgroup.kill"), "1").expect("end the agent");
    assert!(
        wait_for(Duration::from_secs(10), || (!runs()).then_some(())).is_some(),
        "the agent does not end"
    );
    let code = retire(&home.config_file());
    trial.control("without an agent they are detached", code == Some(0) && !home.pins().exists());
}

/// The output of a script that runs on a temporary copy of this host's user database, created by
/// `onecli_tests::scripts`.
fn on_a_copy(trial: &mut Trial, programs: &[&str], script: &str) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        trial.not_run("needs root");
        return None;
    }
    for program in programs {
        let found = Run::new("sh").args(["-c", "command -v \"$0\"", program]).outcome();
        if !found.status.success() {
            trial.not_run(format!("{program} is not installed"));
            return None;
        }
    }
    let home = Daemon::builder().no_ebpf().prepare();
    Some(onecli_tests::scripts::on_a_copy_of_the_host(&home, script).outcome().ok("a copy"))
}

/// The agent stores an accomplice's key where sshd reads keys.
fn ssh_login(trial: &mut Trial) {
    let script = r#"
        onecli agent add a --create-user --factors token >/dev/null; unlock onecli-a-a
        onecli run --agent a --no-dir -- sh -c "umask 077; mkdir ~/.ssh; echo '$pub' > ~/.ssh/authorized_keys; ls -A ~"
        echo "agent: $(login onecli-a-a)"
        useradd --system --create-home --home-dir "$dir/upper/visitor" --shell /bin/sh visitor; unlock visitor
        chmod 755 "$dir" "$dir/upper"; mkdir "$dir/upper/visitor/.ssh"; echo "$pub" > "$dir/upper/visitor/.ssh/authorized_keys"
        chown -R visitor "$dir/upper/visitor"; chmod 700 "$dir/upper/visitor/.ssh"
        echo "visitor: $(login visitor)""#;
    let script = format!("{}{script}", onecli_tests::scripts::SSHD);
    let Some(out) = on_a_copy(trial, &["useradd", "sshd", "ssh"], &script) else { return };
    trial.control("the agent wrote the file", out.contains(".ssh\n"));
    trial.control("the key opens another account", out.contains("visitor: in\n"));
    trial.attempt("login as the agent's user", out.contains("agent: in"));
}

/// A member of the group `onecli`, whose commands could print every value.
fn administrator(trial: &mut Trial) {
    let script = format!(
        r#"
        gid=$(getent group onecli | cut -d: -f3)
        mkdir "$dir/own"; chown 4242:"$gid" "$dir/own"
        cp "$cli" "$dir/cli"; chmod 755 "$dir/cli"
        echo {VALUE} | onecli secret add key --bearer --host a.test --value-stdin >/dev/null
        member() {{ setpriv --reuid=4242 --regid="$gid" --clear-groups "$dir/cli" --socket "$dir/admin.sock" "$@" 2>&1; }}
        member agent add bot --factors token >/dev/null && echo 'the member adds an agent'
        for words in 'key add-recovery' 'key add-key-file' 'key rotate' "backup $dir/own/copy" 'vault import secret/team' \
            "secret add mine --bearer --host a.test --file /etc/hostname" \
            "secret add mine --bearer --host a.test --exec /bin/true"; do
            member $words >/dev/null; echo "$words: exit $?"
        done || true
        [ ! -e "$dir/own/copy" ] || echo 'a copy of the store'
        onecli key add-recovery >/dev/null && onecli backup "$dir/own/roots" >/dev/null && echo 'root does'"#
    );
    let Some(out) = on_a_copy(trial, &["groupadd"], &format!("set +e\n{script}")) else { return };
    trial.control("the member administers", out.contains("the member adds an agent\n"));
    trial.control("root runs the commands", out.contains("root does\n"));
    let exits: Vec<_> = out.lines().filter(|line| line.contains(": exit ")).collect();
    trial.control("each command was tried", exits.len() == 7);
    for exit in exits {
        trial.attempt(exit, !exit.ends_with("exit 4"));
    }
    trial.attempt("a copy of the store", out.contains("a copy of the store"));
}
