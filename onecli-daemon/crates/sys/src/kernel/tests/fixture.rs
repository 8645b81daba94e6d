//! A network namespace, cgroups, listeners and attached programs, removed on drop.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use caps::{CapSet, Capability};
use nix::sched::{CloneFlags, unshare};
use onecli_common::TupleKey;
use onecli_model::flow::Flow;
use parking_lot::{Mutex, MutexGuard};
use socket2::{Domain, Socket, Type};

use crate::kernel::Cgroup2;
use crate::kernel::KernelConfig;
use crate::kernel::Redirect;
use crate::kernel::detach;

/// Port of the transparent listeners in the test's network namespace.
pub(super) const TRANSPARENT_PORT: u16 = 10256;
/// Port of the agents' resolver in the test's network namespace.
pub(super) const DNS_PORT: u16 = 5353;
/// Port of the explicit listener, which the tests do not open.
pub(super) const EXPLICIT_PORT: u16 = 10255;
/// Time limit for any local operation.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The test process moves between cgroups as a whole, so tests of one process take turns.
static TURN: Mutex<()> = Mutex::new(());
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Whether these tests can run here. They do not pass by default: without root or BPF they are reported as not run.
pub(super) fn possible(test: &str) -> bool {
    let missing = if !nix::unistd::geteuid().is_root() {
        "root"
    } else if !caps::has_cap(None, CapSet::Effective, Capability::CAP_BPF).unwrap_or(false) {
        "CAP_BPF"
    } else if !Path::new("/sys/fs/bpf").exists() {
        "a kernel with BPF"
    } else {
        return true;
    };
    eprintln!("NOT RUN: {test} needs {missing}");
    false
}

/// Everything that a test of the redirect needs.
pub(super) struct Fixture {
    pub(super) redirect: Redirect,
    pub(super) config: KernelConfig,
    pub(super) listener4: Option<TcpListener>,
    pub(super) listener6: Option<TcpListener>,
    // Dropped in this order: programs, then cgroups, then the turn.
    _pins: Pinned,
    cgroups: Cgroups,
    _turn: MutexGuard<'static, ()>,
}

impl Fixture {
    /// Sets everything up for the test of this name. Returns `None` if it cannot run here.
    pub(super) fn new(test: &str) -> Option<Self> {
        if !possible(test) {
            return None;
        }
        // A failed test leaves nothing that could affect the next one.
        let turn = TURN.lock();
        enter_namespace();
        let cgroups = Cgroups::new();
        let config = KernelConfig {
            agents_root: cgroups.base.join("agents.slice"),
            daemon_cgroup: cgroups.base.join("daemon.slice"),
            // A bpf file system allows no names with a dot.
            bpffs_dir: Path::new("/sys/fs/bpf").join(cgroups.base.with_extension("")),
            transparent_port: TRANSPARENT_PORT,
            dns_port: DNS_PORT,
            reserved_ports: vec![EXPLICIT_PORT, TRANSPARENT_PORT],
            log: false,
        };
        let pins = Pinned(config.bpffs_dir.clone());
        let redirect = Redirect::attach(&config).expect("attach");
        cgroups.tree.move_self_into(&config.daemon_cgroup).expect("join the daemon's cgroup");
        let mut fixture =
            Self { redirect, listener4: None, listener6: None, config, _pins: pins, cgroups, _turn: turn };
        fixture.listen();
        Some(fixture)
    }

    /// Opens and stamps the daemon's listeners.
    pub(super) fn listen(&mut self) {
        let open = |address: SocketAddr| {
            let listener = listen(address);
            self.redirect.stamp(&listener).expect("stamp");
            Some(listener)
        };
        (self.listener4, self.listener6) = (
            open((Ipv4Addr::LOCALHOST, TRANSPARENT_PORT).into()),
            open((Ipv6Addr::LOCALHOST, TRANSPARENT_PORT).into()),
        );
    }

    /// Removes the programs of the BPF LSM. The remaining programs are those of every kernel.
    pub(super) fn without_security_module(&self) {
        for program in ["refuse_send", "refuse_receipt", "refuse_family"] {
            match fs::remove_file(self.pins().join("links").join(program)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{program}: {error}"),
                _ => {}
            }
        }
    }

    /// The pin directory of this ABI version.
    pub(super) fn pins(&self) -> PathBuf {
        self.config.bpffs_dir.join(format!("v{}", onecli_common::ABI_VERSION))
    }

    /// Creates a cgroup below the agents root, and returns its path below the mount.
    pub(super) fn agent(&self, name: &str) -> PathBuf {
        let path = self.config.agents_root.join(name);
        self.cgroups.tree.ensure(&path).expect("create an agent's cgroup");
        path
    }

    /// Creates a cgroup beside the agents root.
    pub(super) fn unmanaged(&self) -> PathBuf {
        let path = self.cgroups.base.join("unmanaged");
        self.cgroups.tree.ensure(&path).expect("create a cgroup");
        path
    }

    pub(super) fn id_of(&self, cgroup: &Path) -> u64 {
        self.cgroups.tree.id_of(cgroup).expect("cgroup id")
    }

    pub(super) fn tree(&self) -> &Cgroup2 {
        &self.cgroups.tree
    }

    /// Returns the next connection of the IPv4 listener and its flow.
    pub(super) fn accept4(&self) -> (TcpStream, Option<Flow>) {
        self.accepted(self.listener4.as_ref().expect("listener"))
    }

    /// Returns the next connection of the IPv6 listener and its flow.
    pub(super) fn accept6(&self) -> (TcpStream, Option<Flow>) {
        self.accepted(self.listener6.as_ref().expect("listener"))
    }

    fn accepted(&self, listener: &TcpListener) -> (TcpStream, Option<Flow>) {
        let stream = accept(listener).expect("no connection came");
        let flow = self.redirect.flow(&stream).expect("look the flow up");
        (stream, flow)
    }

    /// Returns the number of entries of each map whose entries do not belong to sockets.
    pub(super) fn entries(&self) -> [(&'static str, usize); 2] {
        let path = self.pins().join("maps/AGENTS");
        let data = aya::maps::MapData::from_pin(path).expect("open AGENTS");
        let map: aya::maps::HashMap<_, u64, onecli_common::AgentEntry> =
            aya::maps::Map::HashMap(data).try_into().expect("AGENTS");
        [("TUP", self.announced()), ("AGENTS", map.keys().count())]
    }

    /// Returns the number of entries of TUP: connections announced and not accepted.
    pub(super) fn announced(&self) -> usize {
        self.announcements().len()
    }

    /// Returns the keys of TUP.
    pub(super) fn announcements(&self) -> Vec<TupleKey> {
        let path = self.pins().join("maps/TUP");
        let data = aya::maps::MapData::from_pin(path).expect("open TUP");
        let map: aya::maps::HashMap<_, TupleKey, onecli_common::Ident> =
            aya::maps::Map::LruHashMap(data).try_into().expect("TUP");
        map.keys().map(|key| key.expect("a key")).collect()
    }
}

/// A listener with room for many connections.
pub(super) fn listen(address: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("socket");
    if address.is_ipv6() {
        socket.set_only_v6(true).expect("IPV6_V6ONLY");
    }
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&address.into()).expect("bind");
    socket.listen(4096).expect("listen");
    socket.into()
}

/// Returns the next connection, or an error if none arrives in time.
pub(super) fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() > deadline {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Gives this thread, and the threads and processes that it starts, a new network namespace with TCP Fast Open for all.
fn enter_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare the network namespace");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.expect("the `ip` command").success(), "bring up the loopback");
    // Client and server, without cookies, for every listener (ip-sysctl: 0x1 | 0x2 | 0x4 | 0x200 | 0x400).
    fs::write("/proc/thread-self/root/proc/sys/net/ipv4/tcp_fastopen", "1543").expect("tcp_fastopen");
}

/// The pin directory.
struct Pinned(PathBuf);

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = detach(&self.0) {
            eprintln!("left behind: {}: {error}", self.0.display());
        }
    }
}

/// The test's cgroups, and the one that this process came from.
struct Cgroups {
    tree: Cgroup2,
    base: PathBuf,
    home: PathBuf,
}

impl Cgroups {
    fn new() -> Self {
        let tree = Cgroup2::find().expect("cgroup2");
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let base = PathBuf::from(format!("onecli-test-{}-{number}.slice", std::process::id()));
        let own = fs::read_to_string("/proc/self/cgroup").expect("/proc/self/cgroup");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("cgroup2");
        let home = tree.path(Path::new("onecli-test")).expect("path");
        let home = home.parent().expect("mount").join(own);
        tree.ensure(&base).expect("create the test's cgroup");
        Self { tree, base, home }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let back = fs::write(self.home.join("cgroup.procs"), "0");
        let base = self.tree.path(&self.base).expect("path");
        let removed = remove_tree(&base);
        if let Err(error) = back.and(removed) {
            eprintln!("left behind: {}: {error}", base.display());
        }
    }
}

/// Removes a cgroup and those below it, deepest first. Processes that are ending keep it busy for a moment.
pub(super) fn remove_tree(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::remove_dir(cgroup) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}
