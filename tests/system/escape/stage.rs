//! The stage: a host with agents, a target, and the ways in which a process enters an agent's cgroup.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onecli_tests::client::{Outcome, Run, Running};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::netns::Netns;
use onecli_tests::{cgroup, unique, wait_for};
use serde_json::{Value, json};

use super::world::{Report, World, reports};

/// The Python files with the attempts, in dependency order.
const ATTEMPTS: [&str; 10] = [
    include_str!("py/common.py"),
    include_str!("py/tcp.py"),
    include_str!("py/udp.py"),
    include_str!("py/families.py"),
    include_str!("py/passed.py"),
    include_str!("py/leave.py"),
    include_str!("py/host.py"),
    include_str!("py/files.py"),
    include_str!("py/scenarios.py"),
    "main()\n",
];

// Addresses for documentation (RFC 5737, RFC 3849). Those of RFC 2544 represent names that an agent may not resolve.
const HOST4: &str = "198.51.100.1";
const TARGET4: &str = "198.51.100.2";
const BROADCAST4: &str = "198.51.100.255";
const HOST6: &str = "2001:db8:e5c::1";
const TARGET6: &str = "2001:db8:e5c::2";
/// The port of a service on the agents' host that belongs to no agent.
const SERVICE: u16 = 7070;
/// The target listens on every port in this range. A row has a different port in each mode.
const PORTS: (u16, u16) = (20_000, 22_000);
/// The number of ports per mode.
const STEP: u16 = 250;

/// How the process that makes the attempt was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// By `onecli run`: the agent's uid, no capabilities, seccomp.
    Launched,
    /// Placed in the cgroup before exec, as systemd or a container engine does: the agent's uid, no seccomp.
    Placed,
    /// As `Placed`, in a cgroup below the agent's.
    Nested,
    /// As `Placed`, as uid 0 without capabilities, in the host's user namespace.
    Root,
    /// As `Placed`, with only `CAP_NET_RAW`, which container runtimes leave.
    NetRaw,
    /// Moved into the cgroup while it runs, with its open sockets.
    Moved,
    /// Outside the managed cgroups: the control.
    Outside,
}

impl Mode {
    /// Every mode, with the control last.
    pub(super) const ALL: [Self; 7] =
        [Self::Launched, Self::Placed, Self::Nested, Self::Root, Self::NetRaw, Self::Moved, Self::Outside];

    /// The private port of row number `index` of the table.
    pub(super) fn port(self, index: usize) -> u16 {
        let index = u16::try_from(index).expect("a table of rows");
        assert!(index < STEP, "more rows than ports");
        PORTS.0 + STEP * self as u16 + index
    }

    /// The thread name of that row, which the audit log shows.
    pub(super) fn comm(self, index: usize) -> String {
        format!("esc-{}", self.port(index))
    }
}

/// An attempt to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    /// Its function in Python.
    pub(super) name: &'static str,
    /// Its number in the table.
    pub(super) index: usize,
}

/// Two hosts. The first has a daemon with two agents; the second counts packets.
pub(super) struct Stage {
    // Fields are dropped in this order: the daemon first, the namespaces last.
    pub(super) daemon: Daemon,
    /// The agent `a`. The second is `a-b`: by systemd's rules `a-b.slice` is inside `a.slice`.
    pub(super) one: Agent,
    pub(super) one_cgroup: PathBuf,
    pub(super) other_cgroup: PathBuf,
    pub(super) target: World,
    _outside: World,
    _in_tmp: tempfile::TempDir,
    scene: Value,
    program: PathBuf,
    pub(super) host: Netns,
    pub(super) far: Netns,
    /// Whether the kernel runs programs of the BPF LSM.
    pub(super) secured: bool,
    /// Whether the kernel has Landlock's scopes.
    pub(super) scoped: bool,
}

impl Stage {
    pub(super) fn new() -> Self {
        let (host, far) = (Netns::new(), Netns::new());
        for netns in [&host, &far] {
            // Addresses are usable at once, and the kernel sends nothing unsolicited.
            netns.sysctl("net/ipv6/conf/default/accept_dad", "0");
            netns.sysctl("net/ipv6/conf/default/router_solicitations", "0");
            // Allows ping sockets for all groups, as systemd does.
            netns.sysctl("net/ipv4/ping_group_range", "0 2147483647");
            netns.sysctl("net/ipv4/tcp_fastopen", "3");
        }
        let (device, far_device) = host.join(&format!("{HOST4}/24"), &far, &format!("{TARGET4}/24"));
        for (netns, device, address) in [(&host, &device, HOST6), (&far, &far_device, TARGET6)] {
            netns.ip(&format!("address add {address}/64 dev {device}"));
        }
        // All addresses are routed through the target.
        host.ip(&format!("route add default via {TARGET4}"));
        host.ip(&format!("-6 route add default via {TARGET6}"));

        let daemon = Daemon::builder().inside(&host).start();
        let one = daemon.add_agent("a", &["--factors", "token,cgroup", "--user", "nobody"]);
        let other = daemon.add_agent("a-b", &["--factors", "token,cgroup", "--user", "games"]);
        let (one_cgroup, other_cgroup) = (daemon.agent_cgroup(&one), daemon.agent_cgroup(&other));
        let dir = daemon.home().dir().to_owned();
        let user = nix::unistd::User::from_name("nobody").unwrap().expect("nobody exists");
        let in_tmp = tempfile::tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(in_tmp.path(), Permissions::from_mode(0o755)).unwrap();
        let abstract_name = format!("onecli-test-{}-{}", std::process::id(), unique());
        let scene = json!({
            "target4": TARGET4, "target6": TARGET6, "host4": HOST4, "host6": HOST6, "broadcast4": BROADCAST4,
            "device": device, "service": SERVICE, "abstract": abstract_name, "tmp_socket": in_tmp.path().join("sock"),
            "explicit": daemon.explicit_addr().port(), "transparent": daemon.transparent_addr().port(),
            "admin": daemon.home().socket(), "pin": pinned_link(&daemon),
            "uid": user.uid.as_raw(), "gid": user.gid.as_raw(),
            "cgroup": one_cgroup, "sibling": other_cgroup, "cgroup_mount": cgroup::mount(),
            "ports": [PORTS.0, PORTS.1],
        });
        let world = |netns: &Netns, role: &str, device: &str| {
            let control = dir.join(format!("{role}.sock"));
            World::start(
                netns,
                &dir,
                &with(&scene, &json!({ "role": role, "control": control, "device": device })),
            )
        };
        let target = world(&far, "target", &far_device);
        let outside = world(&host, "outside", &device);
        let scene = with(
            &scene,
            &json!({
                "target": target.control(), "outside": outside.control(),
                "outside_pid": outside.pid(), "daemon_pid": daemon.pid(),
                "same_user_pid": outside.ask(&json!({ "op": "status" }))["same_user"],
            }),
        );
        let secured = crate::doctor::look(&daemon)
            .iter()
            .any(|check| check["name"] == "bpf lsm" && check["status"] == "ok");
        let program = dir.join("attempts.py");
        std::fs::write(&program, ATTEMPTS.concat()).unwrap();
        Self {
            daemon,
            one,
            one_cgroup,
            other_cgroup,
            target,
            _outside: outside,
            _in_tmp: in_tmp,
            scene,
            program,
            host,
            far,
            secured,
            scoped: has_scopes(),
        }
    }

    /// The interpreter with `attempts`, run in one process tree. `over` overrides its settings.
    pub(super) fn python(&self, mode: Mode, attempts: &[Attempt], over: &Value) -> Run {
        let row =
            |a: &Attempt| json!({ "name": a.name, "port": mode.port(a.index), "comm": mode.comm(a.index) });
        let rows: Vec<_> = attempts.iter().map(row).collect();
        let input = with(&self.scene, &json!({ "rows": rows, "enter": mode == Mode::Moved, "wait": "" }));
        Run::new("python3")
            .arg(&self.program)
            .arg(with(&input, over).to_string())
            .timeout(Duration::from_mins(2))
    }

    /// Makes the attempts as the first agent, one after the other.
    pub(super) fn run(&self, mode: Mode, attempts: &[Attempt]) -> Vec<Report> {
        let python = self.python(mode, attempts, &json!({}));
        let outcome = self.wrapped(mode, &python).outcome();
        let _ = outcome.ok(&format!("{mode:?}"));
        let all = reports(&outcome.stdout);
        assert_eq!(all.len(), attempts.len(), "{mode:?}: {outcome:?}");
        all
    }

    /// The number of operations that the kernel programs have refused.
    pub(super) fn refusals(&self) -> u64 {
        let status = self.daemon.onecli_json(&["status"]);
        status["counters"]["kernel_operations_denied"].as_u64().expect("a counter")
    }

    /// The result of one attempt outside the table, made by the agent or process that `wrap` selects.
    pub(super) fn one(&self, name: &'static str, more: &Value, wrap: impl Fn(&Run) -> Run) -> String {
        result(name, &wrap(&self.python(Mode::Outside, &[Attempt { name, index: 0 }], more)).outcome())
    }

    /// Starts such an attempt, and waits until it is ready.
    pub(super) fn start(&self, name: &'static str, more: &Value, wrap: impl Fn(&Run) -> Run) -> Actor {
        let ready = self.signal("ready");
        let more = with(more, &json!({ "ready": ready }));
        let running = wrap(&self.python(Mode::Outside, &[Attempt { name, index: 0 }], &more)).start();
        let there = wait_for(Duration::from_secs(15), || ready.exists().then_some(()));
        let actor = Actor { name, running };
        assert!(there.is_some(), "{name} is not ready: {}", actor.result());
        actor
    }

    /// A file that any user may create, used as a signal.
    pub(super) fn signal(&self, name: &str) -> PathBuf {
        let dir = self.daemon.home().dir().join("signals");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
        dir.join(format!("{name}-{}", unique()))
    }

    /// `run` on the agents' host, as the first agent if the mode requires it.
    pub(super) fn wrapped(&self, mode: Mode, run: &Run) -> Run {
        const NONE: &str = "-all";
        match mode {
            Mode::Launched => self.daemon.managed(&self.one, run),
            Mode::Placed => self.on_host(&placed(&self.one_cgroup, "nobody", NONE, run)),
            Mode::Nested => {
                let nested = self.one_cgroup.join("nested");
                // Removed with the agent's own cgroup, when the daemon's home is cleaned.
                std::fs::create_dir_all(&nested).unwrap();
                self.on_host(&placed(&nested, "nobody", NONE, run))
            }
            Mode::Root => self.on_host(&placed(&self.one_cgroup, "root", NONE, run)),
            Mode::NetRaw => self.on_host(&placed(&self.one_cgroup, "root", "-all,+net_raw", run)),
            Mode::Moved | Mode::Outside => self.on_host(run),
        }
    }

    /// `run` as the second agent in mode `Placed`, on either host.
    pub(super) fn as_other(&self, netns: &Netns, run: &Run) -> Run {
        inside(netns, &placed(&self.other_cgroup, "games", "-all", run))
    }

    /// `run` on the agents' host, in no managed cgroup.
    fn on_host(&self, run: &Run) -> Run {
        inside(&self.host, run)
    }
}

/// `run` in a cgroup as `user` with a bounding set, without the launcher's other restrictions.
fn placed(cgroup: &Path, user: &str, bounding: &str, run: &Run) -> Run {
    const ENTER: &str = r#"echo $$ > "$1" && shift && exec "$@""#;
    Run::new("sh")
        .args(["-c", ENTER, "sh"])
        .arg(cgroup.join("cgroup.procs"))
        .args(["setpriv", "--reuid", user, "--regid", "nogroup", "--clear-groups"])
        .args(["--inh-caps", "-all", "--bounding-set", bounding])
        .arg(run.program())
        .args(run.arguments())
}

/// An attempt in progress.
pub(super) struct Actor {
    name: &'static str,
    running: Running,
}

impl Actor {
    /// Waits until it ends.
    pub(super) fn result(self) -> String {
        result(self.name, &self.running.finish())
    }
}

/// The result of the only attempt.
fn result(name: &str, outcome: &Outcome) -> String {
    let _ = outcome.ok(name);
    let [report] = &reports(&outcome.stdout)[..] else { panic!("{name}: {outcome:?}") };
    assert!(report.result != "broken" && !report.result.starts_with("ended by"), "{report:?}");
    report.result.clone()
}

/// `run` inside a network namespace, for which nsenter(1) needs root.
fn inside(netns: &Netns, run: &Run) -> Run {
    let nsenter = Run::new("nsenter").arg(format!("--net={}", netns.path().display()));
    nsenter.arg(run.program()).args(run.arguments()).timeout(Duration::from_mins(2))
}

/// One of the links that attach the programs.
fn pinned_link(daemon: &Daemon) -> PathBuf {
    let mut open = vec![daemon.home().pins()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().map_while(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().contains("connect4") {
                return path;
            }
        }
    }
    panic!("no pinned link below {}", daemon.home().pins().display());
}

/// Merges one object into another.
fn with(base: &Value, over: &Value) -> Value {
    let mut all = base.clone();
    let over = over.as_object().expect("an object").clone();
    all.as_object_mut().expect("an object").extend(over);
    all
}

/// Returns whether the kernel has Landlock's scopes: Linux 6.12, if Landlock is enabled.
fn has_scopes() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    numbers.next().zip(numbers.next()).expect("two numbers") >= (6, 12)
}
